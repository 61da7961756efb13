"""The model that serves: baselines, learners, weights and quantiles, fitted on all bars and frozen. Judges nothing.

For each target it uses the stack where the gate let it pass, else the baseline: HAR + hour-of-week for volatility and
quantiles, the base rate for direction. An artefact is JSON plus the learners' own formats; there is no pickle.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from market.errors import BundleRefused, NotEnoughBars
from market.forecasts import QUANTILE_LEVELS, BaselineForecast, HorizonForecast
from market.market_clock import add_open_time
from market.timeframes import Timeframe
from tuning.cross_validate import RunUnits, in_process
from tuning.features import FeatureSpec, lookback, make_spec
from tuning.fold_baselines import FoldBaselines, fit_fold_baselines, training_part
from tuning.learners.baseline import VarianceModel
from tuning.learners.baseline import side_by_side as models_side_by_side
from tuning.learners.fitting import NET_FAMILIES, TREE_FAMILIES, Learner, fit_to_files, load_learner, settings_of
from tuning.lessons import make_lessons
from tuning.out_of_fold import OutOfFold
from tuning.panel import Panel, final_rows, make_panel, recent
from tuning.presets import Preset
from tuning.scaling import COMPARED, YARDSTICK, BaselineView, baseline_view, net_inputs, tree_inputs
from tuning.series import Series, side_by_side
from tuning.stack_folds import BASELINE, ECONOMETRIC, stacked_log_rv, stacked_p_up, z_quantiles
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
            families = self.baselines[symbols[0]]
            found = {f: models_side_by_side([self.baselines[symbol][f] for symbol in symbols]) for f in families}
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
                baseline=BaselineForecast(BASELINE, one_limit, _by_level(low)),
            )
            for end, one_sigma, ratio, own, price, p, one_limit, low in zip(
                ends,
                sigma[:, 0].tolist(),
                (sigma / usual)[:, 0].tolist(),
                quantiles.tolist(),
                prices.tolist(),
                p_up[:, 0].tolist(),
                limit[:, 0].tolist(),
                baseline_quantiles.tolist(),
                strict=True,
            )
        ]

    def _target_times(self, h: int, as_of: np.ndarray) -> list[datetime]:
        """When the horizon ends, for each close. datetime64 [symbols] -> aware datetimes"""
        ends = {
            moment: add_open_time(moment.replace(tzinfo=UTC), h * self.timeframe.delta)
            for moment in set(as_of.astype("datetime64[us]").tolist())
        }
        return [ends[moment] for moment in as_of.astype("datetime64[us]").tolist()]

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


def fit_ensemble(
    bars: Mapping[str, pa.Table],
    timeframe: Timeframe,
    preset: Preset,
    out_of_fold: OutOfFold,
    passed: Mapping[str, bool],
    *,
    floor: Mapping[str, bool] | None = None,
    run_units: RunUnits = in_process,
) -> Ensemble:
    """Fit what serves on all bars: per target the stack where `passed[target]`, else the baseline.

    `floor`: targets on which the stack of econometric families alone stands in for the baseline.
    Weights are those of the last fold; learners that carry none in a passed target are not fitted. Nets whose chain
    has already run to its end (`out_of_fold.nets`) are taken from there. NotEnoughBars when no symbol has enough
    labelled bars.
    """
    look = lookback(timeframe)
    panel = make_panel(recent(bars, preset.scheme(max(timeframe.horizons)), look), timeframe, timeframe.horizons, look)
    train = final_rows(panel, preset.max_train_bars)
    fitted = fit_fold_baselines(panel, train, train[:0])
    if not fitted.models:
        raise NotEnoughBars("No symbol has enough bars for the final fit.", hint="Backfill a longer history.")
    if len(fitted.models) < len(panel.series):  # learners number the symbols, so leave the short ones out altogether
        enough = {panel.symbols[s]: bars[panel.symbols[s]] for s in fitted.models}
        return fit_ensemble(enough, timeframe, preset, out_of_fold, passed, floor=floor, run_units=run_units)
    weights = _final_weights(out_of_fold, passed, floor or {})
    used = sorted({f for w in weights.values() for f in w} & set(preset.families))
    files = {f: out_of_fold.nets[f] for f in used if f in out_of_fold.nets and out_of_fold.symbols == panel.symbols}
    unfitted = [f for f in used if f not in files]
    units = make_lessons(panel, fitted, unfitted)
    arguments = [(f, settings_of(f, preset), preset.seed, *units[f], train) for f in unfitted]
    if unfitted:
        files |= zip(unfitted, run_units(fit_to_files, arguments), strict=True)
    named = {s: panel.symbols[s] for s in fitted.models}
    return Ensemble(
        timeframe=timeframe,
        symbols=tuple(named.values()),
        spec=make_spec(timeframe, preset.nets.context + 1 if set(used) & set(NET_FAMILIES) else 1),
        baselines={named[s]: models for s, models in fitted.models.items()},
        weights=weights,
        z_quantiles=_final_quantiles(panel, fitted, train, out_of_fold, weights),
        baseline_quantiles=_final_quantiles(
            panel, fitted, train, out_of_fold, {f"r{h}": {BASELINE: 1.0} for h in panel.horizons}
        ),
        base_rate={h: {name: float(fitted.base_rate[h][s]) for s, name in named.items()} for h in panel.horizons},
        usual_volatility=_usual_volatility(panel, fitted, weights),
        learners={f: load_learner(f, files[f]) for f in used},
    )


def _final_weights(out: OutOfFold, passed: Mapping[str, bool], floor: Mapping[str, bool]) -> dict[str, Weights]:
    weights: dict[str, Weights] = {}
    for h in out.horizons:
        stack, odds = out.stack_weights[f"rv{h}"], out.stack_weights[f"sign{h}"]
        fallback = out.stack_weights.get(f"econometric_stack/rv{h}", stack)
        for target in (f"rv{h}", f"r{h}"):
            chosen = stack if passed.get(target) else fallback if floor.get(target) else {BASELINE: 1.0}
            weights[target] = dict(chosen)
        weights[f"sign{h}"] = dict(odds) if passed.get(f"sign{h}") else {"base_rate": 1.0}
    return weights


def _final_quantiles(
    panel: Panel, fitted: FoldBaselines, train: np.ndarray, out: OutOfFold, weights: dict[str, Weights]
) -> dict[int, dict[str, list[float]]]:
    """z-quantiles of the forecast that scales the quantiles, from the training part and every out-of-fold row."""
    number = [out.symbols.index(symbol) for symbol in panel.symbols]  # symbols too short to be fitted are in `out` only
    part = training_part(panel, train, fitted.log_rv)
    part = replace(part, symbol=np.array(number)[part.symbol])
    known = np.ones(len(out), bool)
    found: dict[int, dict[str, list[float]]] = {}
    for h in panel.horizons:
        used = weights[f"r{h}"]
        scaled = stacked_log_rv({f: out.families[f].log_rv[h] for f in {*used, BASELINE}}, used)
        z = z_quantiles(out, scaled, h, known, part, used)
        found[h] = {panel.symbols[s]: z[number[s]].tolist() for s in fitted.models}
    return found


def _usual_volatility(panel: Panel, fitted: FoldBaselines, weights: dict[str, Weights]) -> dict[int, dict[str, float]]:
    """Median over training of the baselines' part of the volatility forecast, per symbol."""
    usual: dict[int, dict[str, float]] = {}
    for h in panel.horizons:
        used = {f: w for f, w in weights[f"rv{h}"].items() if f in (BASELINE, *ECONOMETRIC)}
        sigma = np.exp(0.5 * stacked_log_rv({f: fitted.log_rv[f][h] for f in {*used, BASELINE}}, used))
        usual[h] = {panel.symbols[s]: float(np.nanmedian(sigma[panel.slice(s)])) for s in fitted.models}
    return usual
