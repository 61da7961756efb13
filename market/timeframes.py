"""Bar lengths. Knows MetaTrader's codes for them, nothing about prices or calendars."""

from __future__ import annotations

from datetime import timedelta
from enum import Enum

from market.errors import UnknownTimeframe


class Timeframe(Enum):
    """A bar length: `value` is its name, `seconds` its length, `mt5_code` MetaTrader's TIMEFRAME_* number."""

    M1 = "M1"
    M5 = "M5"
    M15 = "M15"
    M30 = "M30"
    H1 = "H1"
    H4 = "H4"
    D1 = "D1"

    @property
    def seconds(self) -> int:
        return _SECONDS[self.value]

    @property
    def delta(self) -> timedelta:
        return timedelta(seconds=self.seconds)

    @property
    def mt5_code(self) -> int:
        return _MT5_CODES[self.value]

    @property
    def horizons(self) -> tuple[int, ...]:
        """Default forecast horizons in bars: the next bar and about one day, plus an hour on the minute frames."""
        return _HORIZONS[self.value]

    @classmethod
    def parse(cls, text: str) -> Timeframe:
        """`"H1"` or `"h1"` -> Timeframe.H1; UnknownTimeframe lists what exists."""
        try:
            return cls(str(text).strip().upper())
        except ValueError:
            known = ", ".join(t.value for t in cls)
            raise UnknownTimeframe(f"Unknown timeframe {text!r}.", hint=f"Use one of {known}.") from None

    def __str__(self) -> str:
        return self.value


_SECONDS = {"M1": 60, "M5": 300, "M15": 900, "M30": 1800, "H1": 3600, "H4": 14400, "D1": 86400}
# MetaTrader packs hours and days with flag bits: TIMEFRAME_H1 = 1 | 0x4000.
_MT5_CODES = {"M1": 1, "M5": 5, "M15": 15, "M30": 30, "H1": 16385, "H4": 16388, "D1": 16408}
_HORIZONS = {
    "M1": (1, 60),
    "M5": (1, 12, 288),
    "M15": (1, 4, 96),
    "M30": (1, 48),
    "H1": (1, 24),
    "H4": (1, 6),
    "D1": (1, 5),
}
