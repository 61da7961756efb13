"""A stored model on stored bars once more: the same bundle and the same bars give the same bytes, whenever and wherever.

What it forecasts at a close comes from the bars up to that close only, as in serving. Knows no ledger and no Ray.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from market.bar_store import BarStore
from market.errors import InputError, NotEnoughBars
from market.forecasts import iso_utc, jsonable
from tuning.bundle import Bundle

# What a model says of a horizon; skill cards and what is derived for the page come later.
OWN_WORDS = ("bars", "target_time", "volatility", "volatility_ratio", "quantiles", "p_up", "reason", "baseline")


def replay(bundle: Bundle, bars: Mapping[str, pa.Table], since: datetime, until: datetime) -> Iterator[dict[str, Any]]:
    """One forecast per symbol and close in [since, until], by close and symbol; closes with too short a past are skipped.

    bars: symbol -> table, oldest first. Symbols that close together are forecast together, as when they are served.
    """
    closes = {s: table["close_time"].to_numpy().astype("datetime64[us]") for s, table in bars.items()}
    first, last = (np.datetime64(moment.replace(tzinfo=None), "us") for moment in (since, until))
    every = np.unique(np.concatenate([*closes.values(), np.zeros(0, "datetime64[us]")]))
    for moment in every[(every >= first) & (every <= last)]:
        tails = {}
        for symbol, table in bars.items():
            at = int(np.searchsorted(closes[symbol], moment, side="right"))
            if at >= bundle.bars_needed and closes[symbol][at - 1] == moment:
                tails[symbol] = table.slice(at - bundle.bars_needed, bundle.bars_needed)
        for symbol, horizons in sorted(bundle.forecast(tails).items()) if tails else ():
            said = [own_words(jsonable(asdict(horizon))) for horizon in horizons]
            as_of = iso_utc(tails[symbol]["close_time"][-1].as_py())
            yield {"symbol": symbol, "as_of": as_of, "model_id": bundle.version.id, "horizons": said}


def own_words(horizon: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a horizon, as a dictionary, that the model alone answers for."""
    own = horizon.get("model_quantiles") or horizon.get("quantiles")  # before the widths were adapted online
    # The base rate is a constant of the model, which older rows of the ledger do not have.
    baseline = horizon.get("baseline") and {k: v for k, v in horizon["baseline"].items() if k != "p_up"}
    return {name: horizon.get(name) for name in OWN_WORDS} | {"quantiles": own, "baseline": baseline}


def line(forecast: Mapping[str, Any]) -> str:
    """One text per forecast: sorted keys, no spaces."""
    return json.dumps(forecast, sort_keys=True, separators=(",", ":"), allow_nan=False)


def bars_of(
    store: BarStore, bundle: Bundle, symbols: Sequence[str], until: datetime, data_version: str
) -> dict[str, pa.Table]:
    """Symbol -> bars as the store knew them at `data_version` ("bars@12"), for the symbols that the model knows."""
    known = [symbol for symbol in symbols or bundle.version.symbols if symbol in bundle.version.symbols]
    if not known:
        raise InputError(
            f"{bundle.version.id} knows none of {', '.join(symbols)}.",
            hint=f"It was trained on {', '.join(bundle.version.symbols)}.",
        )
    number = _version_number(data_version, store.version())
    found = {s: store.read([s], bundle.version.timeframe, until=until, as_of_version=number) for s in known}
    if not any(table.num_rows for table in found.values()):
        raise NotEnoughBars(f"{data_version} holds no bars before {iso_utc(until)}.", hint="See `lstmc bars gaps`.")
    return {symbol: table for symbol, table in found.items() if table.num_rows}


def _version_number(data_version: str, newest: int) -> int:
    name, _, number = data_version.partition("@")
    if name != "bars" or not number.isdigit() or int(number) > newest:
        raise InputError(
            f"There is no version {data_version!r} of the bars.", hint=f"Write bars@N, with N from 0 to {newest}."
        )
    return int(number)
