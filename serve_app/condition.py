"""What is wrong with a forecast at the moment of an answer: a code for programs, a reason for people, and whether it is stale.

Judged from the clock and from what the forecaster said last. Pure; knows neither HTTP nor how a forecast is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from market.forecasts import iso_utc
from market.market_clock import add_open_time, closes_or_opens, is_open, next_week_open
from market.timeframes import Timeframe

# Of a signal, where the forecast's own code is not "": no side is given then.
SIGNAL_CODES = {"market_closed": "market_closed", "model_missing": "no_model"}


@dataclass(frozen=True)
class MarketHours:
    """At one moment. `next_open`: None while it is open; `silent_since`: where a holiday began, in which nothing trades."""

    is_open: bool
    changes: datetime  # when the week closes or opens next
    next_open: datetime | None = None
    silent_since: datetime | None = None

    @classmethod
    def at(cls, now: datetime, holiday: tuple[datetime, datetime] | None = None) -> MarketHours:
        """`holiday`: the span that `now` lies in, given that no symbol trades in it."""
        changes = closes_or_opens(now)
        if not is_open(now):
            return cls(False, changes, next_open=changes)
        if holiday is None:
            return cls(True, changes)
        start, end = holiday
        return cls(False, changes, end if is_open(end) else next_week_open(end), start)

    @property
    def in_words(self) -> str:
        """Empty while it is open."""
        return "" if self.is_open else f"The market is closed; it opens at {iso_utc(self.next_open)}."


@dataclass(frozen=True)
class Condition:
    """`code`: "" | late_bar | source_away | market_closed | model_missing | data_refused | forecast_failed | forecaster_away."""

    code: str
    reason: str
    stale: bool


def stale_after(as_of: datetime, timeframe: Timeframe, grace: timedelta) -> datetime:
    """Market time from which a forecast made at `as_of` is stale: the next bar's close, weekends stepped over, plus grace."""
    return add_open_time(as_of, timeframe.delta) + grace


def source_problem(status: Mapping[str, Any]) -> str:
    """Why the market data source is away, by the forecaster's status; empty while it is connected."""
    source = status.get("source") or {}
    if source.get("connected", True):
        return ""
    return f"The market data source is not connected: {source.get('reason') or 'no reason given'}"


def condition_of(
    forecast: Mapping[str, Any],
    as_of: datetime,
    timeframe: Timeframe,
    grace: timedelta,
    now: datetime,
    hours: MarketHours,
    status: Mapping[str, Any],
    forecaster_away: str = "",
) -> Condition:
    """`forecaster_away`: why nothing newer can be known of; empty while the forecaster is heard of."""
    due = add_open_time(as_of, timeframe.delta)
    # In a holiday no bar is expected by those who had the last one before it.
    waits = hours.silent_since is not None and as_of >= hours.silent_since - timeframe.delta
    late = now > due + grace and not waits
    said, flagged, source = str(forecast.get("reason") or ""), bool(forecast.get("stale")), source_problem(status)
    stale = late or flagged
    series = (status.get("series") or {}).get(f"{forecast['symbol']}/{forecast['timeframe']}") or {}
    played_out = str((status.get("source") or {}).get("reason") or "") if stale and not source else ""
    overdue = f"No bar has closed since {iso_utc(as_of)}; the next was due at {iso_utc(due)}." if late else ""
    found = [  # the first one gives the code, all of them the reason
        ("forecaster_away", forecaster_away),
        ("market_closed", "" if stale else hours.in_words),
        ("source_away", source),
        (str(series.get("code") or ""), str(series.get("reason") or "")),
        ("late_bar", overdue),
        ("forecast_failed", (said or "The forecaster itself calls it stale.") if flagged else ""),
    ]
    code = next((code for code, reason in found if code and reason), "")
    parts = (said, overdue, *(reason for _, reason in found), played_out, hours.in_words)
    return Condition(code, " ".join(dict.fromkeys(part for part in parts if part)), stale)


def signal_under(signal: Mapping[str, Any], condition: Condition) -> dict[str, Any]:
    """The signal as it may be given out: with anything wrong it is no side to take, and says why."""
    if not condition.code and not condition.stale:
        return dict(signal)
    code = SIGNAL_CODES.get(condition.code, "stale")
    why = f"The forecast is stale. {condition.reason}".strip() if condition.stale else condition.reason
    none = {"side": "none", "stale": condition.stale, "reason": why, "reason_code": code, "expected_edge_bp": None}
    return {**signal, **none}
