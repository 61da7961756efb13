"""The model that serves: baselines, learners, weights and quantiles, fitted on all bars and frozen. Judges nothing.

For each target it uses the stack where the gate let it pass, else the baseline: HAR + hour-of-week for volatility and
quantiles, the base rate for direction. An artefact is JSON plus the learners' own formats; there is no pickle.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from market.errors import BundleRefused
from market.forecasts import QUANTILE_LEVELS, BaselineForecast, HorizonForecast
from market.market_clock import add_open_time
from market.timeframes import Timeframe
from tuning.features import FeatureSpec, make_spec
from tuning.learners.baseline import VarianceModel
from tuning.learners.baseline import side_by_side as models_side_by_side
from tuning.learners.fitting import NET_FAMILIES, TREE_FAMILIES, Learner, load_learner
from tuning.scaling import COMPARED, YARDSTICK, BaselineView, baseline_view, net_inputs, tree_inputs
from tuning.series import Series, side_by_side
from tuning.stack_folds import BASELINE, stacked_log_rv, stacked_p_up
from tuning.stacking import logit, sigmoid

FORMAT = 2
Weights = dict[str, float]
LEVELS = tuple(str(level) for level in QUANTILE_LEVELS)
SETS_KEPT = 16  # sets of symbols whose baselines stay side by side in memory


@dataclass
class Ensemble:
    """`weights`: per target ("rv24", "r24", "sign24") family -> weight; "r24" scales the quantiles.

    z_quantiles[h][symbol]: 7 quantiles of r / sigma; base_rate[h][symbol]; usual_volatility[h][symbol]: the median over
    training. `baselines[symbol][family]`. `baseline_quantiles`: as z_quantiles, of the baseline's own forecast.
    """

    timeframe: Timeframe
    symbols: tuple[str, ...]
    spec: FeatureSpec
    baselines: dict[str, dict[str, VarianceModel]]
    weights: dict[str, Weights]
    z_quantiles: dict[int, dict[str, list[float]]]
    baseline_quantiles: dict[int, dict[str, list[float]]]
    base_rate: dict[int, dict[str, float]]
    usual_volatility: dict[int, dict[str, float]]
    learners: dict[str, Learner] = field(default_factory=dict)
    _kept: dict[tuple[str, ...], dict[str, VarianceModel]] = field(default_factory=dict, init=False, repr=False)

    @property
    def horizons(self) -> tuple[int, ...]:
        return self.spec.horizons

    @property
    def spec_digest(self) -> str:
        return self.spec.digest

    @property
    def bars_needed(self) -> int:
        """Bars per symbol that `forecast` wants; older ones change nothing."""
        return self.spec.lookback + self.spec.window

    def forecast(self, bars: Mapping[str, pa.Table]) -> dict[str, tuple[HorizonForecast, ...]]:
        """Tables in BAR_SCHEMA -> forecasts at each table's last close, nets batched over symbols.

        A symbol the model was not trained on, or with too short a tail, gets empty horizons that say why.
        """
        return self._forecast(bars, self.bars_needed)

    def forecast_from_all(self, bars: Mapping[str, pa.Table]) -> dict[str, tuple[HorizonForecast, ...]]:
        """As `forecast`, from every bar given: the same numbers, unless `bars_needed` is wrong. Slow on long histories."""
        return self._forecast(bars, max((table.num_rows for table in bars.values()), default=0))

    def _forecast(self, bars: Mapping[str, pa.Table], tail: int) -> dict[str, tuple[HorizonForecast, ...]]:
        out: dict[str, tuple[HorizonForecast, ...]] = {}
        alike: dict[int, dict[str, pa.Table]] = {}  # by length, so that they can stand side by side
        for symbol in sorted(bars):
            table, problem = bars[symbol], self._problem(symbol, bars[symbol].num_rows)
            if problem:
                out[symbol] = self._empty(table, problem)
            else:
                table = table.slice(max(table.num_rows - tail, 0))
                alike.setdefault(table.num_rows, {})[symbol] = table
        for tables in alike.values():
            symbols = tuple(tables)
            series = side_by_side(list(tables.values()), self.timeframe)
            models = self._models(symbols)
            view = self._baselines_say(series, models)
            learned = self._learned(symbols, series, models, view)
            made = [self._horizon(h, symbols, series, view.tail(1), learned) for h in self.horizons]
            out |= zip(symbols, zip(*made, strict=True), strict=True)
        return out

    def _problem(self, symbol: str, rows: int) -> str:
        if symbol not in self.baselines:
            return f"the model was not trained on {symbol}"
        if rows < self.bars_needed:
            return f"{rows} bars, {self.bars_needed} are needed"
        return ""

    def _empty(self, table: pa.Table, reason: str) -> tuple[HorizonForecast, ...]:
        if table.num_rows == 0:
            return ()
        as_of = table["close_time"][-1].as_py()
        return tuple(
            HorizonForecast(
                h, add_open_time(as_of, h * self.timeframe.delta), None, None, None, None, None, reason=reason
            )
            for h in self.horizons
        )

    def _families(self) -> tuple[str, ...]:
        """Baselines that a forecast needs."""
        weighted = {f for name, weights in self.weights.items() if not name.startswith("sign") for f in weights}
        if self.learners:
            weighted |= {YARDSTICK, *COMPARED}
        return tuple(sorted((weighted - set(self.learners)) | {BASELINE}))

    def _models(self, symbols: tuple[str, ...]) -> dict[str, VarianceModel]:
        """family -> the symbols' baselines side by side; those of the last few sets of symbols are kept."""
        found = self._kept.get(symbols)
        if found is None:
            if len(self._kept) >= SETS_KEPT:
                self._kept.clear()
            own = [self.baselines[symbol] for symbol in symbols]
            found = {f: models_side_by_side([models[f] for models in own]) for f in self._families()}
            self._kept[symbols] = found
        return found

    def _baselines_say(self, series: Series, models: dict[str, VarianceModel]) -> BaselineView:
        """Of the rows past the look-back, which the nets read, and the one before; without learners of the last row."""
        families = self._families()
        if self.learners:
            rows = len(series) - self.spec.lookback + 1
            return baseline_view(series, self.timeframe, models, families, rows)
        said = {family: models[family].log_rv(series, last=1) for family in families}
        return BaselineView(np.empty((*series.close.shape[:-1], 1, 0)), said)

    def _learned(
        self, symbols: tuple[str, ...], series: Series, models: dict[str, VarianceModel], view: BaselineView
    ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """family -> (log ratio, logit excess), each [symbols, H]."""
        views = {}
        owner = np.array([self.symbols.index(symbol) for symbol in symbols])
        for families, make, said in ((TREE_FAMILIES, tree_inputs, view.tail(1)), (NET_FAMILIES, net_inputs, view)):
            used = [family for family in families if family in self.learners]
            if used:
                inputs = make(series, self.timeframe, models, view=said)
                starts = np.arange(len(symbols) + 1) * inputs.shape[1]
                flat = inputs.reshape(-1, inputs.shape[2])
                for family in used:
                    views[family] = self.learners[family].predict(flat, starts, owner, starts[1:] - 1)
        return views

    def _horizon(
        self,
        h: int,
        symbols: tuple[str, ...],
        series: Series,
        last: BaselineView,
        learned: dict[str, tuple[np.ndarray, np.ndarray]],
    ) -> list[HorizonForecast]:
        """One horizon of every symbol. `last`: the baselines' view of the last row."""
        column = self.horizons.index(h)
        log_rv = {family: by_h[h] for family, by_h in last.log_rv.items()}  # [symbols, 1]
        for family, (log_ratio, _) in learned.items():
            log_rv[family] = log_rv[YARDSTICK] + log_ratio[:, column, None]
        base = np.array([[self.base_rate[h][symbol]] for symbol in symbols])
        odds = {f: _shifted(base, excess[:, column, None]) for f, (_, excess) in learned.items()}
        p_up = stacked_p_up(odds, base, self.weights[f"sign{h}"])
        sigma, scale, limit = (
            np.exp(0.5 * part)
            for part in (
                stacked_log_rv(log_rv, self.weights[f"rv{h}"]),
                stacked_log_rv(log_rv, self.weights[f"r{h}"]),
                log_rv[BASELINE],
            )
        )
        usual = np.array([[self.usual_volatility[h][symbol]] for symbol in symbols])
        quantiles = scale * np.array([self.z_quantiles[h][symbol] for symbol in symbols])
        baseline_quantiles = limit * np.array([self.baseline_quantiles[h][symbol] for symbol in symbols])
        prices = series.close[:, -1:] * np.exp(quantiles)
        ends = self._target_times(h, series.close_time[:, -1])
        return [
            HorizonForecast(
                bars=h,
                target_time=end,
                volatility=one_sigma,
                volatility_ratio=ratio,
                quantiles=_by_level(own),
                price_quantiles=_by_level(price),
                p_up=p,
                baseline=BaselineForecast(BASELINE, one_limit, _by_level(low), rate),
            )
            for end, one_sigma, ratio, own, price, p, one_limit, low, rate in zip(
                ends,
                sigma[:, 0].tolist(),
                (sigma / usual)[:, 0].tolist(),
                quantiles.tolist(),
                prices.tolist(),
                p_up[:, 0].tolist(),
                limit[:, 0].tolist(),
                baseline_quantiles.tolist(),
                base[:, 0].tolist(),
                strict=True,
            )
        ]

    def _target_times(self, h: int, as_of: np.ndarray) -> list[datetime]:
        """When the horizon ends, for each close. datetime64 [symbols] -> aware datetimes"""
        moments = as_of.astype("datetime64[us]").tolist()
        ahead = h * self.timeframe.delta
        ends = {moment: add_open_time(moment.replace(tzinfo=UTC), ahead) for moment in set(moments)}
        return [ends[moment] for moment in moments]

    def save(self, folder: Path) -> None:
        """Write `ensemble.json` and one folder of files per learner."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for family, learner in self.learners.items():
            (folder / family).mkdir(exist_ok=True)
            for name, content in learner.to_files().items():
                (folder / family / name).write_bytes(content)
        (folder / "ensemble.json").write_text(json.dumps(self._to_dict(), sort_keys=True, separators=(",", ":")))

    def _to_dict(self) -> dict[str, Any]:
        kept = self._families() if not self.learners else (*self._families(), YARDSTICK)
        return {
            "format": FORMAT,
            "timeframe": self.timeframe.value,
            "symbols": list(self.symbols),
            "spec": {"names": list(self.spec.names), "lookback": self.spec.lookback, "window": self.spec.window,
                     "horizons": list(self.spec.horizons), "version": self.spec.version},
            "spec_digest": self.spec.digest,
            "weights": self.weights,
            "z_quantiles": self.z_quantiles,
            "baseline_quantiles": self.baseline_quantiles,
            "base_rate": self.base_rate,
            "usual_volatility": self.usual_volatility,
            "learners": sorted(self.learners),
            "baselines": {
                symbol: [models[family].to_dict() for family in sorted(set(kept))] for symbol, models in self.baselines.items()
            },
        }  # fmt: skip

    @classmethod
    def load(cls, folder: Path) -> Ensemble:
        """Read what `save` wrote. BundleRefused when content or feature schema is not this code's."""
        folder = Path(folder)
        try:
            return _from_dict(json.loads((folder / "ensemble.json").read_text()), folder)
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise BundleRefused(
                f"The model in {folder} cannot be read: {error}.", hint="Train again: `lstmc train`."
            ) from error


def _from_dict(fields: dict[str, Any], folder: Path) -> Ensemble:
    timeframe = Timeframe.parse(fields["timeframe"])
    spec = make_spec(timeframe, int(fields["spec"]["window"]))
    if fields["format"] != FORMAT or spec.digest != fields["spec_digest"]:
        raise BundleRefused(
            "The model was made for other features or another format than this code has.",
            hint="Train again: `lstmc train`.",
        )
    models = {
        symbol: {one["family"]: VarianceModel.from_dict(one) for one in saved}
        for symbol, saved in fields["baselines"].items()
    }
    if strange := set(fields["learners"]) - {*TREE_FAMILIES, *NET_FAMILIES}:  # a name becomes a path below
        raise ValueError(f"{sorted(strange)[0]!r} is no family of learners")
    learners = {
        family: load_learner(family, {path.name: path.read_bytes() for path in sorted((folder / family).iterdir())})
        for family in fields["learners"]
    }
    for family, learner in learners.items():
        if learner.past >= spec.window:
            raise BundleRefused(
                f"The {family} of this model wants more bars than the model asks for.",
                hint="Train again: `lstmc train`.",
            )
    return Ensemble(
        timeframe=timeframe,
        symbols=tuple(fields["symbols"]),
        spec=spec,
        baselines=models,
        weights=fields["weights"],
        z_quantiles=_by_horizon(fields["z_quantiles"]),
        baseline_quantiles=_by_horizon(fields["baseline_quantiles"]),
        base_rate=_by_horizon(fields["base_rate"]),
        usual_volatility=_by_horizon(fields["usual_volatility"]),
        learners=learners,
    )


def _by_level(values: list[float]) -> dict[str, float]:
    return dict(zip(LEVELS, values, strict=True))


def _shifted(base_rate: np.ndarray, excess: np.ndarray | np.floating) -> np.ndarray:
    """The base rate with its logit moved by `excess`."""
    return sigmoid(logit(base_rate) + excess)


def _by_horizon(fields: dict[str, Any]) -> dict[int, Any]:
    return {int(h): values for h, values in fields.items()}
