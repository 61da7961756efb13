"""Named training settings from configs/models.yaml. Refuses unknown keys; fits nothing."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from market.errors import ConfigError
from tuning.splits import Scheme

MODELS_YAML = Path(__file__).resolve().parent.parent / "configs" / "models.yaml"
LEARNERS = ("lightgbm", "xgboost", "lstm", "gru", "attention")


@dataclass(frozen=True)
class Boosting:
    """Trees of LightGBM and XGBoost, one booster per target."""

    trees: int = 100
    leaves: int = 15
    learning_rate: float = 0.05
    min_rows_in_leaf: int = 400
    row_step: int = 4  # of rows whose labels overlap (horizon > 1) every `row_step`-th bar is used


@dataclass(frozen=True)
class Nets:
    """Sequence models. A chunk is `warm_up` bars without a loss, then `body` bars that each predict."""

    hidden: int = 32
    layers: int = 1
    steps: int = 100  # of the optimizer; a step sees batch * body bars
    warm_up: int = 64
    body: int = 128
    batch: int = 32  # chunks
    learning_rate: float = 6e-3
    weight_decay: float = 1e-3
    dropout: float = 0.1

    @property
    def stride(self) -> int:
        """Bars that one chunk predicts when forecasting, far fewer than when learning: see `context`."""
        return max(self.body // 4, 1)

    @property
    def context(self) -> int:
        """Bars a net has seen before any bar it forecasts, within what it was trained on.

        A recurrent state goes on changing long after `warm_up`: what is judged out of fold and what is served must
        have about the same past behind them.
        """
        return self.warm_up + self.body - self.stride


@dataclass(frozen=True)
class Search:
    """Settings are searched for before the first outer test row; `share`: of a run's budget, at most."""

    trials: int = 20  # of the trees' settings, and as many of the nets'; the preset's own are the first
    share: float = 0.5


@dataclass(frozen=True)
class Preset:
    """`families`: learners beyond the econometric baselines, which always run. Days are calendar days."""

    name: str
    families: tuple[str, ...] = ()
    folds: int = 5
    test_days: float = 365.0
    test_share: float = 0.45
    lockbox_days: float = 60.0
    max_train_bars: int | None = None
    min_train_bars: int = 500
    embargo_bars: int | None = None  # None: the longest horizon
    seed: int = 7
    boosting: Boosting = Boosting()
    nets: Nets = Nets()
    search: Search | None = None

    def scheme(self, longest_horizon: int) -> Scheme:
        """The cut for labels of `longest_horizon` bars; purge and embargo are never shorter than that."""
        return Scheme(
            folds=self.folds,
            purge=longest_horizon,
            embargo=max(self.embargo_bars or 0, longest_horizon),
            test_days=self.test_days,
            test_share=self.test_share,
            lockbox_days=self.lockbox_days,
            max_train_bars=self.max_train_bars,
            min_train_bars=self.min_train_bars,
            burn_in=True,
        )


def load_preset(name: str, path: Path = MODELS_YAML) -> Preset:
    """A preset by name; ConfigError names the bad key or lists the names there are."""
    import yaml

    known = yaml.safe_load(path.read_text())
    if not isinstance(known, dict) or name not in known:
        names = ", ".join(known) if isinstance(known, dict) else "none"
        raise ConfigError(f"There is no preset {name!r}.", hint=f"Use one of: {names}.")
    given = _checked(known[name] or {}, Preset, name, without={"name"})
    for key, kind in (("boosting", Boosting), ("nets", Nets), ("search", Search)):
        if key in given:
            given[key] = kind(**_checked(given[key], kind, f"{name}.{key}"))
    families = tuple(given.pop("families", ()))
    strange = [family for family in families if family not in LEARNERS]
    if strange:
        raise ConfigError(f"Preset {name}: unknown family {strange[0]!r}.", hint=f"Known: {', '.join(LEARNERS)}.")
    return Preset(name=name, families=families, **given)


def _checked(given: Any, kind: type, where: str, without: Collection[str] = ()) -> dict[str, Any]:
    """`given` as keyword arguments of `kind`; ConfigError names an unknown key or a value that is no number."""
    if not isinstance(given, dict):
        raise ConfigError(f"configs/models.yaml: {where} must hold keys and values.", hint="Compare the other presets.")
    allowed = {f.name: str(f.type) for f in fields(kind) if f.name not in without}
    for key, value in given.items():
        if key not in allowed:
            known = ", ".join(sorted(allowed))
            raise ConfigError(f"configs/models.yaml: {where} has the unknown key {key!r}.", hint=f"Known: {known}.")
        number = {"int": int, "int | None": int, "float": int | float}.get(allowed[key])
        if number is not None and (not isinstance(value, number) or isinstance(value, bool) or value < 0):
            raise ConfigError(
                f"configs/models.yaml: {where}.{key} cannot be {value!r}.", hint="Give a number, 0 or more."
            )
    return dict(given)
