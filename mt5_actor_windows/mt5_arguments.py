"""How MetaTrader5 5.0.6231 reads its arguments: what it refuses before it asks the terminal, and with which error.

As observed on the real wheel. Some refusals also leave a Python exception pending, which the interpreter reports as
a SystemError. Does not know what the functions answer.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import wraps
from typing import Any

INVALID = "Invalid arguments"
MAX_SYMBOL, MAX_PATH, MAX_ACCOUNT_TEXT, MAX_GROUP = 29, 257, 253, 1997  # UTF-16 units
_ORDINALS = ("1st", "2nd", "3rd")
# What Windows' localtime can do, in seconds since 1970; a naive datetime is looked up one day before as well.
_NAIVE_EARLIEST, _NAIVE_LATEST = 86_400, 32_535_244_799


class Refused(Exception):
    """`last_error` becomes (-2, text). `cause`: the exception that the module leaves pending."""

    def __init__(self, text: str = INVALID, cause: Exception | None = None) -> None:
        super().__init__(text)
        self.text, self.cause = text, cause


# -- one argument


def integer(value: Any) -> int:
    """A C int, 32 bits: anything with __index__, so np.int64 too."""
    try:
        number = operator.index(value)
    except TypeError as error:
        raise Refused(cause=TypeError(str(error))) from None
    if not -(2**31) <= number < 2**31:
        raise Refused(cause=OverflowError("Python int too large to convert to C long"))
    return number


def anything(value: Any) -> Any:
    return value


def text(value: Any, longest: int, refusal: str = INVALID) -> str:
    if not isinstance(value, str) or len(value.encode("utf-16-le", "surrogatepass")) > 2 * longest:
        raise Refused(refusal)
    return str(value)


def symbol_name(value: Any) -> str:
    return text(value, MAX_SYMBOL)


def unsigned(value: Any, bits: int, refusal: str) -> int:
    """An int, not np.int64; out of range is a SystemError whose cause says which side."""
    if not isinstance(value, int):
        raise Refused(refusal)
    if value < 0:
        kind = "negative int to unsigned" if bits == 64 else "negative value to unsigned int"
        raise Refused(refusal, OverflowError(f"can't convert {kind}"))
    if value >= 2**bits:
        long = "Python int too large to convert to C unsigned long"
        raise Refused(refusal, OverflowError("int too big to convert" if bits == 64 else long))
    return int(value)


def date(value: Any) -> tuple[float, Exception | None]:
    """(epoch seconds, pending exception): datetime, int or float. An int beyond 32 bits is read as -1 and leaves one pending."""
    if isinstance(value, datetime):
        return (_naive_seconds(value) if value.tzinfo is None else value.timestamp()), None
    if isinstance(value, float):
        return float(value), None
    if not isinstance(value, int):
        raise Refused()
    if not -(2**31) <= value < 2**31:
        return -1.0, OverflowError("Python int too large to convert to C long")
    return float(value), None


def _naive_seconds(moment: datetime) -> float:
    """In this machine's zone, where Windows could say it; its localtime knows neither 1969 nor the year 3002."""
    wall = (moment.replace(tzinfo=UTC, fold=0) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
    looked_up = wall if moment.fold == 0 else wall + 86_400
    if looked_up < _NAIVE_EARLIEST or looked_up > _NAIVE_LATEST:
        raise Refused(cause=OSError(22, "Invalid argument"))
    return moment.timestamp()


# -- whole argument lists


def read_positional(
    kinds: Sequence[Callable[[Any], Any]], args: tuple[Any, ...], required: int
) -> tuple[list[Any], Exception | None]:
    """(values, pending exception). The module reads integers first, then the symbol, then dates; arity is not a TypeError."""
    if not required <= len(args) <= len(kinds):
        raise Refused()
    values: list[Any] = list(args)
    pending: Exception | None = None
    for kind in (integer, symbol_name, date):
        for at in (n for n, one in enumerate(kinds[: len(args)]) if one is kind):
            values[at], pending = _read_after(kind, args[at], pending)
    return values, pending


def _read_after(kind: Callable[[Any], Any], value: Any, pending: Exception | None) -> tuple[Any, Exception | None]:
    if kind is not date:
        return kind(value), pending
    try:
        seconds, problem = date(value)
    except Refused as refused:
        raise Refused(refused.text, pending or refused.cause) from None
    return seconds, pending or problem


def _named(keywords: dict[str, Any], found: dict[str, Any], name: str, read: Callable[[Any, str], Any]) -> None:
    if name in keywords:
        found[name] = read(keywords[name], f'Invalid "{name}" argument')


def _account_text(value: Any, refusal: str) -> str:
    return text(value, MAX_ACCOUNT_TEXT, refusal)


def _ticket(value: Any, refusal: str) -> int:
    return unsigned(value, 64, refusal)


def _account_keywords(keywords: dict[str, Any], found: dict[str, Any]) -> None:
    _named(keywords, found, "login", _ticket)
    _named(keywords, found, "server", _account_text)
    _named(keywords, found, "password", _account_text)
    _named(keywords, found, "timeout", lambda value, refusal: unsigned(value, 32, refusal))


def initialize_arguments(args: tuple[Any, ...], keywords: dict[str, Any]) -> dict[str, Any]:
    """path, login, server, password, timeout as far as given; a keyword wins; unknown keywords are ignored."""
    if len(args) > 1:
        raise Refused("Invalid number of arguments")
    found: dict[str, Any] = {}
    if args:
        found["path"] = text(args[0], MAX_PATH, "Invalid 1st unnamed argument")
    _account_keywords(keywords, found)
    _named(keywords, found, "path", lambda value, refusal: text(value, MAX_PATH, refusal))
    return found


def login_arguments(args: tuple[Any, ...], keywords: dict[str, Any]) -> dict[str, Any]:
    """login, password, server (in this order without keywords), timeout. Login 0 is none."""
    if len(args) > 3:
        raise Refused("Invalid number of arguments")
    readers: tuple[Callable[[Any, str], Any], ...] = (_ticket, _account_text, _account_text)
    found: dict[str, Any] = {}
    for at, (name, value) in enumerate(zip(("login", "password", "server"), args, strict=False)):
        found[name] = readers[at](value, f"Invalid {_ORDINALS[at]} unnamed argument")
    _account_keywords(keywords, found)
    if not found.get("login"):
        raise Refused('Invalid "login" argument')
    return found


def group_arguments(args: tuple[Any, ...], keywords: dict[str, Any]) -> dict[str, Any]:
    """One group, with or without its name."""
    if len(args) > 1:
        raise Refused("Invalid number of arguments")
    found: dict[str, Any] = {"group": None}
    if args:
        found["group"] = text(args[0], MAX_GROUP, "Invalid 1st unnamed argument")
    _named(keywords, found, "group", lambda value, refusal: text(value, MAX_GROUP, refusal))
    return found


def selection_arguments(args: tuple[Any, ...], keywords: dict[str, Any]) -> dict[str, Any]:
    """ticket, symbol, group of orders or positions: by name only."""
    if args:
        raise Refused("Unnamed arguments not allowed")
    found: dict[str, Any] = {}
    _named(keywords, found, "ticket", _ticket)
    _named(keywords, found, "symbol", lambda value, refusal: text(value, MAX_SYMBOL, refusal))
    _named(keywords, found, "group", lambda value, refusal: text(value, MAX_GROUP, refusal))
    return found


def history_arguments(args: tuple[Any, ...], keywords: dict[str, Any]) -> dict[str, Any]:
    """Two dates and perhaps a group; or a ticket; or a position. `pending` as in `read_positional`."""
    if len(args) == 2:
        (since, until), pending = read_positional((date, date), args, 2)
        found: dict[str, Any] = {"since": since, "until": until, "pending": pending}
        _named(keywords, found, "group", lambda value, refusal: text(value, MAX_GROUP, refusal))
        return found
    chosen = next((name for name in ("ticket", "position") if name in keywords), None)
    if args or chosen is None:
        raise Refused(INVALID if chosen is None else "Unnamed arguments not allowed")
    found = {}
    _named(keywords, found, chosen, _ticket)
    return found


# -- functions


def bare(method: Callable[[Any], Any]) -> Callable[..., Any]:
    """A function without arguments."""
    name = method.__name__

    @wraps(method)
    def call(self: Any, *args: Any, **keywords: Any) -> Any:
        if keywords:
            raise TypeError(f"MetaTrader5._core.{name}() takes no keyword arguments")
        if args:
            raise TypeError(f"MetaTrader5._core.{name}() takes no arguments ({len(args)} given)")
        return self._ask(name, lambda: method(self), None)

    return call


def positional(*kinds: Callable[[Any], Any], required: int | None = None, refused: Any = None) -> Any:
    """A function of positional arguments only. `refused`: what it returns when it refuses them."""
    least = len(kinds) if required is None else required

    def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
        name = method.__name__

        @wraps(method)
        def call(self: Any, *args: Any, **keywords: Any) -> Any:
            if keywords:
                raise TypeError(f"{name}() takes no keyword arguments")
            try:
                values, pending = read_positional(kinds, args, least)
            except Refused as refusal:
                return _refuse(self, name, refusal, refused)
            answer = self._ask(name, lambda: method(self, *values), refused)
            _raise_pending(name, pending)
            return answer

        return call

    return decorate


def keyworded(read: Callable[[tuple[Any, ...], dict[str, Any]], dict[str, Any]], refused: Any = None) -> Any:
    """A function that also takes keywords; its method gets what `read` found."""

    def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
        name = method.__name__

        @wraps(method)
        def call(self: Any, *args: Any, **keywords: Any) -> Any:
            try:
                found = read(args, keywords)
            except Refused as refusal:
                return _refuse(self, name, refusal, refused)
            pending = found.pop("pending", None)
            answer = self._ask(name, lambda: method(self, **found), refused)
            _raise_pending(name, pending)
            return answer

        return call

    return decorate


def _refuse(terminal: Any, name: str, refusal: Refused, refused: Any) -> Any:
    terminal._fail((-2, refusal.text))
    _raise_pending(name, refusal.cause)
    return refused


def _raise_pending(name: str, pending: Exception | None) -> None:
    if pending is not None:
        raise SystemError(f"<built-in function {name}> returned a result with an exception set") from pending
