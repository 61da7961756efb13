"""The connection to one terminal and one account: made, checked, lost and made again, and every call's answer judged.

Turns `last_error` into our errors. Not for two threads at once. Does not know bars, clocks or deadlines.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from market.errors import NotConnected, TerminalError, UnknownSymbol
from market.symbols import from_broker

LOST = range(-10005, -9999)  # IPC errors: the connection is gone, not the request wrong
NO_ERROR = (0, 1)
TRIES = 3  # of a call that answers nothing and names no error
BACKOFF_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_UNKNOWN_SYMBOL = (-1, -4)
_HINTS = {
    -2: "The request itself was refused: check symbol, timeframe and dates.",
    -4: "Is the symbol offered by this account? See it in the terminal's Market Watch.",
    -5: "Update the terminal and the MetaTrader5 package to matching versions.",
    -6: "Check MT5_LOGIN, MT5_PASSWORD and MT5_SERVER.",
    -8: "Allow algorithmic trading through the Python API in the terminal's options.",
    -10003: "Start the terminal in this user's session, or set MT5_PATH to terminal64.exe.",
    -10004: "The terminal was closed; it is asked again by itself.",
    -10005: "The terminal does not answer; restart it if this lasts.",
}


@dataclass(frozen=True)
class Account:
    """What to log in to; the password is never printed. Without a login the terminal's own account is taken as it is."""

    login: int | None = None
    server: str | None = None
    path: str | None = None
    password: str | None = field(default=None, repr=False)


class Connection:
    """`terminal()` gives the module; `monotonic()` seconds for backoff; `jitter()` in [0, 1) spreads the attempts.

    The first account seen, or the one asked for, is the only one believed for as long as this object lives: bars of two
    feeds must not end up in one series. While another account answers, `quarantine` says so and every call raises.
    """

    def __init__(
        self,
        terminal: Callable[[], Any],
        account: Account,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._open_terminal, self._account = terminal, account
        self._monotonic, self._jitter = monotonic, jitter
        self._terminal: Any = None
        self._failures, self._retry_at, self._reason = 0, float("-inf"), ""
        self._believed = {"login": account.login, "server": account.server}
        self.names: dict[str, str] = {}  # our code -> the broker's name
        self.who: dict[str, Any] = {}
        self.maxbars = 0
        self.quarantine = ""

    @property
    def is_open(self) -> bool:
        return self._terminal is not None

    def open(self) -> None:
        """Initialize, check the account, read the names. Raises NotConnected until the next step of the backoff."""
        if self._monotonic() < self._retry_at:
            raise NotConnected(f"No connection to the terminal: {self._reason}", hint="It is tried again by itself.")
        try:
            terminal = self._open_terminal()
            self._initialize(terminal)
            self._terminal = terminal
            self.verify()
            self.read_names()
            self.maxbars = int(self.call("terminal_info").maxbars)
        except Exception as error:  # half a connection would answer with the wrong names or for the wrong account
            self.lose(str(error))
            raise
        self._reason = ""

    def proved(self) -> None:
        """A whole question was answered: the next failure begins the backoff anew."""
        self._failures = 0

    def lose(self, reason: str) -> None:
        step = BACKOFF_SECONDS[min(self._failures, len(BACKOFF_SECONDS) - 1)]
        self._terminal, self._reason = None, reason
        self._retry_at = self._monotonic() + step * (0.8 + 0.4 * self._jitter())
        self._failures += 1

    def close(self) -> None:
        if self._terminal is not None:
            self._terminal.shutdown()
            self._terminal = None

    def verify(self) -> None:
        """Several terminals on one host can answer for each other, and people log in elsewhere: believe one account."""
        info = self.call("account_info")
        self.who = {"login": int(info.login), "server": str(info.server)}
        for name, wanted in self._believed.items():
            if wanted is not None and self.who[name] != wanted:
                self.quarantine = f"Another account answered: {name} {self.who[name]}, not {wanted}."
                self.lose(self.quarantine)
                raise NotConnected(
                    self.quarantine,
                    hint="One terminal per host; log it in again or set MT5_PATH. If the change is meant, restart.",
                )
        self._believed, self.quarantine = dict(self.who), ""

    def call(self, name: str, *args: Any) -> Any:
        """One call of the module. None or False is an error, also where the module names none: it is never "nothing"."""
        if self._terminal is None:
            raise NotConnected(f"No connection to the terminal: {self._reason}", hint="It is tried again by itself.")
        code, text = NO_ERROR[-1], ""
        for _ in range(TRIES):
            result = getattr(self._terminal, name)(*args)
            if result is not None and result is not False:
                return result
            code, text = self._terminal.last_error()
            if code not in NO_ERROR:
                break
        if code in LOST:
            self.lose(f"MetaTrader answered {code} ({text}).")
            raise NotConnected(f"MetaTrader answered {code} ({text}).", hint=_HINTS.get(code, ""))
        if code in NO_ERROR:
            raise TerminalError(code, text, hint=f"{name} gave no answer and no reason; it is asked again by itself.")
        raise TerminalError(code, text, hint=_HINTS.get(code, ""))

    def select(self, code: str) -> str:
        """The broker's name of a symbol, shown in Market Watch; without that the terminal answers nothing.

        A name that is no longer known is looked up anew: brokers rename their symbols.
        """
        name = self._name(code)
        try:
            self.call("symbol_select", name, True)
        except TerminalError as error:
            if error.code not in _UNKNOWN_SYMBOL:
                raise
            self.read_names()
            if self._name(code) == name:
                raise
            name = self._name(code)
            self.call("symbol_select", name, True)
        return name

    def read_names(self) -> None:
        """Our codes -> the broker's spelling, kept as it is (it is case-sensitive); the plainest name of several wins."""
        infos: Sequence[Any] = self.call("symbols_get")
        names: dict[str, str] = {}
        for name in sorted((str(info.name) for info in infos), key=lambda name: (len(name), name)):
            found = from_broker(name)
            if found is not None:
                names.setdefault(found.code, name)
        self.names = names

    def _name(self, code: str) -> str:
        name = self.names.get(code)
        if name is None:
            has = ", ".join(sorted(self.names)) or "none of ours"
            raise UnknownSymbol(f"This account does not offer {code}.", hint=f"It offers {has}.")
        return name

    def _initialize(self, terminal: Any) -> None:
        given = {"login": self._account.login, "password": self._account.password, "server": self._account.server}
        keywords = {name: value for name, value in given.items() if value is not None}
        path = [self._account.path] if self._account.path else []
        if not terminal.initialize(*path, **keywords):
            code, text = terminal.last_error()
            raise NotConnected(f"MetaTrader answered {code} ({text}).", hint=_HINTS.get(code, ""))
