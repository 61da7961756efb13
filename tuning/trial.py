"""A bundle is tried out in a process of its own before it may become champion: load, verify, forecast stored bars.

Whatever happens there - a crash in a parser, a hang, a number that is none - is a reason, and the champion stays.

    python -m tuning.trial BUNDLE BARS KEYS [SECONDS]      prints {"reason": ""} when all is well
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from configs.settings import ROOT
from market.errors import LstmcError
from market.forecasts import HorizonForecast
from tuning.bundle import Bundle, load_bundle
from tuning.bundle_signature import BundleKeys, refused

if TYPE_CHECKING:
    from market.bar_store import BarStore

DEADLINE = 180.0  # seconds; loading torch and a stack takes 3 on a quiet machine
# Bars that are taken off the end: the same model forecasts at each of these closes. Not a whole day or week apart.
CUTS = (0, 7, 31)
Forecasts = Mapping[str, tuple[HorizonForecast, ...]]


@dataclass(frozen=True)
class Trial:
    """bars: the bar store; keys: the folder of trusted keys; command: what runs, given bundle, bars and keys."""

    bars: Path
    keys: Path
    deadline: float = DEADLINE
    command: tuple[str, ...] = (sys.executable, "-m", "tuning.trial")

    def __call__(self, folder: Path) -> None:
        """BundleRefused with the reason unless the model forecasts as it should."""
        words = [*self.command, str(folder), str(self.bars), str(self.keys), f"{self.deadline:g}"]
        lean = os.environ | {"OMP_NUM_THREADS": "1"}
        try:
            done = subprocess.run(
                words, cwd=ROOT, env=lean, stdin=subprocess.DEVNULL, capture_output=True, timeout=self.deadline
            )
        except subprocess.TimeoutExpired:
            raise _failed(folder, f"no answer within {self.deadline:g} s") from None
        if reason := _reason(done):
            raise _failed(folder, reason)


def _failed(folder: Path, reason: str) -> LstmcError:
    return refused(
        folder.name,
        f"in its trial process: {reason}",
        "The champion stays. Train again, or see whether enough bars are stored (`lstmc bars gaps`).",
    )


def _reason(done: subprocess.CompletedProcess[bytes]) -> str:
    """Why the trial failed; empty when it did not. Only a last line that says so is a success."""
    last_words = (done.stderr.decode(errors="replace").strip().splitlines() or ["without a word"])[-1][:200]
    if done.returncode < 0:
        return f"it died of {signal.Signals(-done.returncode).name} ({last_words})"
    try:
        return str(json.loads(done.stdout.splitlines()[-1])["reason"])
    except (IndexError, ValueError, KeyError, TypeError):
        return f"it ended with {done.returncode} ({last_words})"


def main(arguments: Sequence[str]) -> None:
    from market.bar_store import BarStore

    folder, bars, keys = (Path(word) for word in arguments[:3])
    if len(arguments) > 3:
        signal.alarm(math.ceil(float(arguments[3])) + 5)  # in case that whoever waits has died
    try:
        reason = try_out(load_bundle(folder, BundleKeys(keys)), BarStore(bars))
    except LstmcError as error:
        reason = error.message
    print(json.dumps({"reason": reason}), flush=True)


def try_out(bundle: Bundle, store: BarStore) -> str:
    """What is wrong with the model's forecasts at the ends of the stored bars, in words; empty when they are sound."""
    timeframe, needed = bundle.version.timeframe, bundle.bars_needed
    tails = {symbol: store.tail(symbol, timeframe, needed + max(CUTS)) for symbol in bundle.version.symbols}
    tails = {symbol: table for symbol, table in tails.items() if table.num_rows == needed + max(CUTS)}
    if not tails:
        return f"no symbol has the {needed + max(CUTS)} stored {timeframe} bars that it wants"
    made = [bundle.forecast({s: _without_newest(table, cut) for s, table in tails.items()}) for cut in CUTS]
    for forecasts in made:
        if why := _unsound(forecasts, list(tails), bundle.version.horizons):
            return why
    return _constant(made)


def _without_newest(bars: pa.Table, n: int) -> pa.Table:
    return bars.slice(0, bars.num_rows - n)


def _unsound(forecasts: Forecasts, symbols: Sequence[str], horizons: Sequence[int]) -> str:
    for symbol in symbols:
        found = [horizon.bars for horizon in forecasts.get(symbol, ())]
        if found != list(horizons):
            return f"{symbol}: horizons {found}, expected {list(horizons)}"
        for horizon in forecasts[symbol]:
            if why := wrong_with(horizon):
                return f"{symbol}, {horizon.bars} bars: {why}"
    return ""


def wrong_with(horizon: HorizonForecast) -> str:
    """What is wrong with a forecast, in words; empty when it is sound."""
    if horizon.volatility is None or not math.isfinite(horizon.volatility) or horizon.volatility <= 0:
        return f"volatility {horizon.volatility}"
    if horizon.volatility_ratio is not None and not math.isfinite(horizon.volatility_ratio):
        return f"volatility ratio {horizon.volatility_ratio}"
    levels = sorted(horizon.quantiles or {}, key=float)
    values = [(horizon.quantiles or {})[level] for level in levels]
    if not values or not all(math.isfinite(value) for value in values):
        return "quantiles are missing or not finite"
    if values != sorted(values):
        return "quantiles are out of order"
    if horizon.p_up is None or not 0 <= horizon.p_up <= 1:
        return f"probability {horizon.p_up}"
    return ""


def _constant(made: Sequence[Forecasts]) -> str:
    """A model that says the same at every close has not looked at the bars. The base rate may well be constant."""
    for symbol, horizons in made[0].items():
        for k, horizon in enumerate(horizons):
            later = [forecasts[symbol][k] for forecasts in made[1:]]
            if all(one.volatility == horizon.volatility for one in later):
                return f"{symbol}, {horizon.bars} bars: the same volatility at every close"
            if all(one.quantiles == horizon.quantiles for one in later):
                return f"{symbol}, {horizon.bars} bars: the same quantiles at every close"
    return ""


if __name__ == "__main__":
    main(sys.argv[1:])
    # The verdict is out. Threads of native libraries that abort while they are torn down say nothing about the model.
    os._exit(0)
