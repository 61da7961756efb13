"""The exception tree. Every error says what happened and, in `hint`, what to do about it.

LstmcError
├── InputError              what the caller asked for cannot be understood          exit 2
│   ├── UnknownSymbol
│   ├── UnknownTimeframe
│   ├── BadTime
│   ├── BadBars             a file or folder that cannot be read as bars
│   └── ConfigError         a setting is unknown, malformed or contradicts another
├── ClusterError            the cluster's processes                                 exit 3
│   ├── NotRunning
│   ├── PortInUse
│   ├── StaleHead           a recorded head is dead or belongs to somebody else
│   └── WrongToken
├── MarketUnavailable       bars or prices cannot be read right now                 exit 4
│   ├── TerminalError       the terminal answered with an error (`code`, `text`)
│   ├── NotConnected        no connection to the terminal
│   ├── VersionsDisagree    the node that holds it runs packages that ours cannot work with
│   ├── ClockDisagrees      its times are not ours, or not those of the bars we hold
│   ├── StoreUnavailable    the bars came, and cannot be stored
│   └── NodeDown            the node that holds the `mt5` resource is gone
├── LedgerError             the record of forecasts                                 exit 5
│   ├── LedgerBroken        a row is not as it was written
│   ├── SecondWriter        another process writes it
│   ├── LedgerTooNew        a newer version has written it
│   └── LedgerUnavailable   its database does not answer                            exit 4
└── ModelError              models and their artefacts                              exit 5
    ├── NoChampion
    ├── BundleRefused       hash, schema or content of an artefact is not acceptable
    └── NotEnoughBars
"""

from __future__ import annotations

from typing import Any


class LstmcError(Exception):
    """Base of all errors that a user can meet. `hint` is one sentence: what to do."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only arguments would be lost on the way through Ray otherwise.
        return _rebuild, (type(self), self.message, self.hint, dict(self.__dict__))


def _rebuild(kind: type[LstmcError], message: str, hint: str, state: dict[str, Any]) -> LstmcError:
    error = kind.__new__(kind)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    error.message, error.hint = message, hint
    return error


class InputError(LstmcError):
    exit_code = 2


class UnknownSymbol(InputError): ...


class UnknownTimeframe(InputError): ...


class BadTime(InputError): ...


class BadBars(InputError): ...


class ConfigError(InputError): ...


class ClusterError(LstmcError):
    exit_code = 3


class NotRunning(ClusterError): ...


class PortInUse(ClusterError): ...


class StaleHead(ClusterError): ...


class WrongToken(ClusterError): ...


class MarketUnavailable(LstmcError):
    exit_code = 4


class TerminalError(MarketUnavailable):
    """The terminal refused: `code` and `text` are MetaTrader's own `last_error()` pair."""

    def __init__(self, code: int, text: str, *, hint: str = "") -> None:
        super().__init__(f"MetaTrader answered {code} ({text}).", hint=hint)
        self.code = code
        self.text = text


class NotConnected(MarketUnavailable): ...


class VersionsDisagree(MarketUnavailable): ...


class ClockDisagrees(MarketUnavailable): ...


class StoreUnavailable(MarketUnavailable): ...


class NodeDown(MarketUnavailable): ...


class LedgerError(LstmcError):
    exit_code = 5


class LedgerBroken(LedgerError): ...


class SecondWriter(LedgerError): ...


class LedgerTooNew(LedgerError): ...


class LedgerUnavailable(LedgerError):
    exit_code = 4


class ModelError(LstmcError):
    exit_code = 5


class NoChampion(ModelError): ...


class BundleRefused(ModelError): ...


class NotEnoughBars(ModelError): ...


def in_one_line(error: BaseException) -> str:
    """Ray's errors carry the whole remote traceback."""
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return (lines[-1] if lines else type(cause).__name__)[:300]
