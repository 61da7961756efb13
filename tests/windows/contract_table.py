"""What MetaTrader5 5.0.6231 answers without a terminal: call by call, and of what kind each answer is.

Rows are (function, arguments as source, expected kind). A kind is "VALUE CODE" (what is returned, `last_error`'s code),
"SystemError CAUSE CODE" or "TypeError". H1, UTC, Text (a str) and Moment (a datetime) are the runner's.
"""

from __future__ import annotations

Row = tuple[str, str, str]

NAMES = ["'EURUSD'", "Text('EURUSD')", "'E' * 29", "''", "'\\u20ac' * 20", "'EUR\\0USD'", "'\\U0001F600' * 14"]
WRONG_NAMES = ["b'EURUSD'", "None", "5", "'E' * 30", "Text('E' * 30)", "'\\U0001F600' * 15"]
INTEGERS = ["0", "-1", "7", "True", "2**31 - 1", "-2**31", "np.int64(1)", "np.int32(1)", "np.uint8(1)"]
WRONG_INTEGERS = ["1.0", "'1'", "None", "b'1'", "[]", "np.float64(1)"]
LONG_INTEGERS = ["2**31", "2**32 - 1", "2**32", "2**64", "-2**31 - 1"]
DATES = [
    *("datetime(2020, 1, 1, tzinfo=UTC)", "Moment(2020, 1, 1, tzinfo=UTC)", "datetime(2020, 1, 1)"),
    *("datetime(1970, 1, 1, tzinfo=UTC)", "datetime(9999, 12, 31, tzinfo=UTC)", "datetime(1, 1, 1, tzinfo=UTC)"),
    *("datetime(1970, 1, 2)", "datetime(1970, 1, 1, fold=1)", "datetime(3001, 1, 1, 7, 59, 59)"),
    *("datetime(2020, 1, 1, tzinfo=timezone(timedelta(hours=3)))", "1577836800", "1577836800.5", "2.0**40", "-1"),
    *("2**31 - 1", "-2**31", "True", "np.float64(1)", "float('nan')", "float('inf')", "1e300", "-1.0"),
]
WRONG_DATES = [
    *("np.int64(1)", "np.int32(1)", "np.float32(1)", "np.datetime64('2020-01-01')", "date(2020, 1, 1)"),
    *("'2020-01-01'", "None", "[]", "b'1'", "timedelta(1)"),
]
LONG_DATES = ["2**31", "-2**31 - 1", "2**70"]  # as int; as float or datetime the same moment is taken
NAIVE_OUT_OF_RANGE = [  # of Windows' localtime
    *("datetime(1970, 1, 1)", "datetime(1970, 1, 1, 23, 59, 59)", "datetime(1969, 12, 31)", "datetime(1, 1, 1)"),
    *("datetime(9999, 12, 31)", "datetime(3001, 1, 1, 8)", "datetime(3000, 12, 31, 23, 59, 59, fold=1)"),
]
NO_ARGUMENTS = {
    "version": "(0, 0, '') -10004",
    "terminal_info": "None -10004",
    "account_info": "None -10004",
    "symbols_total": "None -5",
    "orders_total": "None -10004",
    "positions_total": "None -10004",
    "last_error": "(1, 'Success') 1",
    "shutdown": "True 1",
}
OF_A_SYMBOL = {
    "symbol_info": "None -10004",
    "symbol_info_tick": "None -10004",
    "market_book_add": "False 1",
    "market_book_get": "None -10004",
    "market_book_release": "False 1",
}
# Function -> what its arguments are, after the symbol.
COPIES = {
    "copy_rates_from": ("integer", "date", "integer"),
    "copy_rates_from_pos": ("integer", "integer", "integer"),
    "copy_rates_range": ("integer", "date", "date"),
    "copy_ticks_from": ("date", "integer", "integer"),
    "copy_ticks_range": ("date", "date", "integer"),
}
OVERFLOW = "SystemError OverflowError -2"


def table() -> list[Row]:
    """All rows."""
    return [*_bare(), *_of_a_symbol(), *_copies(), *_select(), *_groups(), *_initialize(), *_login(), *_trades()]


def _rows(function: str, kind: str, *arguments: str) -> list[Row]:
    return [(function, one, kind) for one in arguments]


def _bare() -> list[Row]:
    rows = []
    for function, kind in NO_ARGUMENTS.items():
        rows += _rows(function, kind, "", "**{}") + _rows(function, "TypeError", "1", "1, 2", "x=1", "1, x=1")
    return rows


def _of_a_symbol() -> list[Row]:
    rows = []
    for function, kind in OF_A_SYMBOL.items():
        rows += _rows(function, kind, *NAMES) + _rows(function, "None -2", "", "'A', 'B'", *WRONG_NAMES)
        rows += _rows(function, "TypeError", "symbol='EURUSD'", "5, x=1")
    return rows


def _copies() -> list[Row]:
    rows = []
    for function, kinds in COPIES.items():
        for name in NAMES:
            rows += _rows(function, "None -10004", _with(kinds, None, "5", name))
        for name in WRONG_NAMES:
            rows += _rows(function, "None -2", _with(kinds, None, "5", name))
        for at, kind in enumerate(kinds):
            for arguments, expected in _of_kind(kind):
                rows += _rows(function, expected, *(_with(kinds, at, one) for one in arguments))
        rows += _rows(function, "None -2", "", "'EURUSD'", "'EURUSD', 5, 5", "'EURUSD', 5, 5, 5, 5")
        rows += _rows(function, "TypeError", "symbol='EURUSD'", "'EURUSD', 5, 5, 5, count=1")
    rows += _rows("copy_rates_from", OVERFLOW, "5, 2**31, None, 1")  # integers are read before the symbol and dates
    rows += _rows("copy_rates_from", "None -2", "5, H1, 2**31, 1")
    rows += _rows("copy_rates_range", OVERFLOW, "'EURUSD', H1, 2**31, None", "'EURUSD', 2**40, 2**40, 2**40")
    rows += _rows("copy_rates_range", "None -2", "'EURUSD', H1, None, 2**31")
    rows += _rows("copy_rates_range", "SystemError OverflowError -10004", "'EURUSD', H1, 2**31, 1.5")
    rows += _rows("copy_ticks_range", "SystemError OSError -2", "'EURUSD', datetime(1970, 1, 1), None, -1")
    rows += _rows("copy_ticks_range", "SystemError TypeError -2", "'EURUSD', None, 1, 1.0", "5, 1, 1, 1.0")
    return rows


def _with(kinds: tuple[str, ...], at: int | None, value: str = "5", name: str = "'EURUSD'") -> str:
    values = [value if place == at else "5" for place in range(len(kinds))]
    return ", ".join([name, *values])


def _of_kind(kind: str) -> list[tuple[list[str], str]]:
    if kind == "integer":
        wrong = (WRONG_INTEGERS, "SystemError TypeError -2")
        return [(INTEGERS, "None -10004"), wrong, (LONG_INTEGERS, OVERFLOW)]
    beyond = (NAIVE_OUT_OF_RANGE, "SystemError OSError -2")
    return [(DATES, "None -10004"), (WRONG_DATES, "None -2"), (LONG_DATES, "SystemError OverflowError -10004"), beyond]


def _select() -> list[Row]:
    enabled = [f"'EURUSD', {value}" for value in ("True", "0", "2", "None", "'x'", "1.0", "2**40")]
    rows = _rows("symbol_select", "False -10004", *NAMES, *enabled)
    rows += _rows("symbol_select", "False -2", "", "'EURUSD', True, 1", "5, True", *WRONG_NAMES)
    return rows + _rows("symbol_select", "TypeError", "'EURUSD', enable=True", "symbol='EURUSD'")


def _groups() -> list[Row]:
    taken = ["", "'*'", "'*USD*'", "group='*USD*'", "grp='x'", "'*', group='*'", "group=Text('*')", "''", "'x' * 1997"]
    wrong = ["group=5", "group=None", "'a', 'b'", "5", "None", "b'*'", "5, group='*'", "'*', group=5", "5, 6"]
    wrong += ["'x' * 1998", "group='x' * 1998", "None, foo=1"]
    return _rows("symbols_get", "None -5", *taken) + _rows("symbols_get", "False -2", *wrong)


def _initialize() -> list[Row]:
    path = "'C:\\\\nope.exe'"
    taken = [
        "",
        path,
        f"path={path}",
        "r'C:\\none\\terminal64.exe'",
        f"Text({path})",
        "''",
        "path=''",
        "foo=1",
        "'x' * 257",
    ]
    taken += [f"{path}, path='C:\\\\other.exe'", f"{path}, path=''", "portable='x'", "portable=None", "portable=True"]
    taken += ["login=5", "login=0", "login=True", "login=2**63", "password='x'", "server='x'", "server=''"]
    taken += ["timeout=5000", "timeout=0", "timeout=2**31", "server='x' * 253", "password='x' * 253"]
    taken += ["login=5, password='x', server='y', timeout=1000, portable=False"]
    wrong = ["None", "5", "b'x'", "'a', 'b'", "path=None", "path=5", "'', path=None", "5, path='x'", "'x' * 258"]
    wrong += [f"{name}={value}" for name in ("login", "timeout") for value in ("'x'", "None", "1.5", "np.int64(5)")]
    wrong += [f"{name}={value}" for name in ("server", "password") for value in ("5", "None", "'x' * 254")]
    wrong += ["server=5, password=5", "server=5, login='x'", "timeout='x', password=5", "path=5, timeout='x'"]
    wrong += ["path=5, login='x'", "5, login='x'", "'a', 'b', login='x'", "path='x' * 258"]
    beyond = ["login=-1", "login=2**64", "timeout=-1", "timeout=2**32", "timeout=2**64", "login=-1, timeout=-1"]
    rows = _rows("initialize", "False -10003", *taken) + _rows("initialize", "False -2", *wrong)
    return rows + _rows("initialize", OVERFLOW, *beyond, "login=2**64, server=5", "timeout=-1, path=5")


def _login() -> list[Row]:
    taken = ["5", "5, 'p'", "5, 'p', 's'", "login=5", "login=5, password='p', server='s'", "5, timeout=1000", "2**63"]
    taken += ["True", "5, foo=1", "5, login=6", "5, 'p', password='q'", "5, 'x' * 253", "5, server='x' * 253"]
    wrong = [
        "",
        "'x'",
        "None",
        "1.5",
        "0",
        "np.int64(5)",
        "login='x'",
        "login=None",
        "foo=1",
        "password='x'",
        "timeout=5",
    ]
    wrong += ["5, 5", "5, None", "5, 'p', 5", "5, 'p', 's', 10", "5, 'p', 's', 10, 11", "5, password=5", "5, server=5"]
    wrong += ["5, password=None", "5, timeout='x'", "5, password=5, server=5", "5, password=5, timeout='x'", "5, 5, 5"]
    wrong += ["'x', login=5", "5, login='x'", "5, 'p', password=5", "5, 'p', 'x' * 254", "5, 'x' * 254"]
    beyond = ["-1", "2**64", "5, timeout=-1", "5, timeout=2**32", "5, login=-1, server=5"]
    rows = _rows("login", "False -10004", *taken) + _rows("login", "False -2", *wrong)
    return rows + _rows("login", OVERFLOW, *beyond)


def _trades() -> list[Row]:
    rows = []
    for function in ("orders_get", "positions_get"):
        taken = [
            "",
            "symbol='EURUSD'",
            "symbol=''",
            "symbol='E' * 29",
            "group='*'",
            "group='x' * 1997",
            "ticket=1",
            "foo=1",
        ]
        rows += _rows(function, "None -10004", *taken, "ticket=True", "symbol='EURUSD', ticket=1", "ticket=2**64 - 1")
        wrong = ["5", "'EURUSD'", "5, ticket='x'", "ticket='x'", "ticket=None", "ticket=1.0", "ticket=np.int64(1)"]
        wrong += [
            "symbol=5",
            "symbol='E' * 30",
            "group=5",
            "group='x' * 1998",
            "symbol=5, ticket='x'",
            "group=5, symbol=5",
        ]
        rows += _rows(function, "None -2", *wrong)
        rows += _rows(function, OVERFLOW, "ticket=-1", "ticket=2**64", "group=5, ticket=-1", "ticket=-1, symbol=5")
    for function in ("history_orders_get", "history_deals_get"):
        taken = [
            "1, 2",
            "1, 2.5",
            "1, 2, group='*'",
            "1, 2, foo=1",
            "1, 2, ticket='x'",
            "1, 2, position='x'",
            "ticket=1",
        ]
        rows += _rows(function, "None -10004", *taken, "position=1", "group=5, ticket=1", "ticket=1, position='x'")
        wrong = [
            "1",
            "1, 2, 3",
            "1, None",
            "None, 2**31",
            "'a', 1",
            "np.int64(1), 2",
            "1, 2, group=5",
            "foo=1",
            "group='*'",
        ]
        wrong += ["1, ticket=1", "1, 2, 3, ticket=1", "ticket='x'", "position=1.0", "ticket='x', position='x'"]
        rows += _rows(function, "None -2", "", *wrong, "'a', 1, ticket=1", "date_from=1, date_to=2", "'a', 1, group=5")
        rows += _rows(function, OVERFLOW, "ticket=-1", "position=2**64", "2**31, None")
    for function in ("history_orders_get", "history_deals_get", "history_orders_total", "history_deals_total"):
        rows += _rows(function, "SystemError OverflowError -10004", "2**31, 2", "1, 2**31")
        rows += _rows(function, "SystemError OSError -2", "datetime(1970, 1, 1), 2", "1, datetime(9999, 12, 31)")
    for function in ("history_orders_total", "history_deals_total"):
        rows += _rows(function, "None -10004", "1, 2", "1.5, 2", "datetime(2020, 1, 1, tzinfo=UTC), 2")
        rows += _rows(function, "None -2", "", "1", "1, 2, 3", "None, 1", "1, None", "'a', 1", "None, 2**31")
        rows += _rows(function, "TypeError", "1, 2, group='*'", "date_from=1, date_to=2")
    return rows
