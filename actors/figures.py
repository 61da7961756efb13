"""What the platform tells Prometheus: the list of its metrics, and each process's figures out of what that process holds.

Pure: times are given. What is not known is absent, never 0. Ray exports every name with "ray_" before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from market.forecasts import BoardUpdate, parse_utc
from market.market_clock import open_time_between

if TYPE_CHECKING:
    from actors.run_log import Run

PREFIX = "ray_"


@dataclass(frozen=True)
class Metric:
    """`name`: as Prometheus has it, without PREFIX. `unit`: in words, for the docs. `labels`: ours; Ray adds its own."""

    name: str
    unit: str
    labels: tuple[str, ...]
    help: str
    kind: Literal["gauge", "counter"] = "gauge"


SERIES, TARGET = ("symbol", "timeframe"), ("target", "timeframe")
METRICS = (
    Metric("lstmc_source_connected", "1 or 0", ("transport",), "whether bars come this way (ray, http), once it was tried"),
    Metric("lstmc_bar_age_seconds", "market seconds", SERIES, "since the newest stored bar closed"),
    Metric("lstmc_bar_gaps", "holes", SERIES, "in the last 1000 bars, which the source was asked for and does not have"),
    Metric("lstmc_forecast_age_seconds", "market seconds", SERIES, "since the close that the newest forecast is made at"),
    Metric("lstmc_gate_passed", "1 or 0", TARGET, "whether what serves the target was better than its baseline, out of sample"),
    Metric("lstmc_live_coverage", "share", TARGET, "of live outcomes of the serving model inside its 80 % interval"),
    Metric("lstmc_live_outcomes", "outcomes", TARGET, "that live coverage and live skill are measured over"),
    Metric("lstmc_live_skill", "share", TARGET, "of its baseline's live loss that the serving model saves"),
    Metric("lstmc_ledger_spooled", "forecasts", (), "that wait for the ledger's database"),
    Metric("lstmc_ledger_lag_rows", "outcomes", (), "that stored bars show and the ledger does not have yet"),
    Metric("lstmc_job_budget_used_ratio", "share", ("run",), "of its wall that a training run at work has used"),
    Metric("lstmc_rate_limited_total", "requests", ("limit",), "refused with 429, by the problem's code", "counter"),
)  # fmt: skip

# (metric's name, ((label, its value), ...) as the metric orders them) -> value
Figures = dict[tuple[str, tuple[tuple[str, str], ...]], float]
_LABELS = {metric.name: metric.labels for metric in METRICS}


@dataclass(frozen=True)
class SeriesState:
    """Of one stored series: the newest bar's close, and how many holes its source does not fill."""

    last_close: datetime
    gaps: int


def _put(figures: Figures, name: str, value: float | None, *labels: str) -> None:
    if value is not None:
        figures[name, tuple(zip(_LABELS[name], labels, strict=True))] = float(value)


def of_market_data(
    transports: Mapping[str, bool], series: Mapping[tuple[str, str], SeriesState], now: datetime
) -> Figures:
    """`transports`: those that were tried; `now`: market time. Ages stand still while the market is closed."""
    found: Figures = {}
    for name, connected in transports.items():
        _put(found, "lstmc_source_connected", connected, name)
    for key, state in series.items():
        _put(found, "lstmc_bar_age_seconds", open_time_between(state.last_close, now).total_seconds(), *key)
        _put(found, "lstmc_bar_gaps", state.gaps, *key)
    return found


def of_forecaster(board: BoardUpdate, status: Mapping[str, Any], now: datetime) -> Figures:
    """`status`: Forecaster.status, which is newer than the board's; `now`: market time."""
    found: Figures = {}
    for key, forecast in board.forecasts.items():
        age = open_time_between(parse_utc(forecast["as_of"]), now).total_seconds()
        _put(found, "lstmc_forecast_age_seconds", age, *key.split("/"))
    for timeframe, cards in board.skill.items():
        for card in cards:
            if card["metric"] == "auc":  # stands beside the log-loss of the same target
                continue
            where = card["target"], timeframe
            _put(found, "lstmc_gate_passed", card["passed_gate"], *where)
            _put(found, "lstmc_live_skill", card["live_value"], *where)
            _put(found, "lstmc_live_coverage", card["live_coverage80"], *where)
            _put(found, "lstmc_live_outcomes", card["live_n"] if card["live_since"] else None, *where)
    _put(found, "lstmc_ledger_spooled", status["spooled"])
    _put(found, "lstmc_ledger_lag_rows", status["ledger_lag"])
    return found


def of_schedule(runs: Iterable[Run], now: datetime) -> Figures:
    """`runs`: those that are open; `now`: wall time."""
    found: Figures = {}
    for run in runs:
        if run.state == "running":
            used = (now - run.attempts[-1].submitted).total_seconds() / run.wall.total_seconds()
            _put(found, "lstmc_job_budget_used_ratio", used, run.name)
    return found


def of_replica(limited: Mapping[str, int]) -> Figures:
    """`limited`: problem's code -> requests that were refused with it since the replica began."""
    found: Figures = {}
    for limit, count in limited.items():
        _put(found, "lstmc_rate_limited_total", count, limit)
    return found
