"""The trial process: a sound model passes, and whatever a model can do there is a reason that leaves the champion alone."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from configs.settings import make_settings
from market.bar_store import BarStore
from market.errors import BundleRefused
from market.forecasts import HorizonForecast
from tuning import retrain
from tuning.bundle import save_bundle
from tuning.bundle_signature import BundleKeys
from tuning.experiments import World, simulate
from tuning.registry import Registry
from tuning.trial import CUTS, Trial, try_out

SYMBOLS = ("EURUSD", "USDJPY")


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    made = make_settings(home=tmp_path_factory.mktemp("home"), symbols=SYMBOLS, timeframes="H1")
    for table in simulate(World(weeks=20, symbols=SYMBOLS), seed=5).values():
        BarStore(made.bars_path).append(table)
    retrain.econometric_champion(made, "H1")
    return made


@pytest.fixture
def registry(settings):
    return Registry.of(settings)


@pytest.fixture
def champion(registry):
    return registry.champion("H1").id


def doctored(registry: Registry, champion: str, tmp_path: Path, change) -> str:
    """A new model, signed and intact, that is the champion but for one change."""
    bundle = registry.load(champion)
    change(bundle.ensemble)
    fields = {k: getattr(bundle.version, k) for k in ("timeframe", "kind", "symbols", "horizons", "trained_from",
              "trained_until", "data_version")}  # fmt: skip
    save_bundle(bundle.ensemble, fields, tmp_path / "new")
    return registry.add(tmp_path / "new").id


def reverse_quantiles(ensemble) -> None:
    ensemble.z_quantiles[24]["EURUSD"].reverse()


def constant(ensemble) -> None:
    ensemble.z_quantiles[24] = {symbol: [0.0] * 7 for symbol in SYMBOLS}


def impossible_odds(ensemble) -> None:
    ensemble.base_rate[1]["EURUSD"] = 1.5


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (reverse_quantiles, "EURUSD, 24 bars: quantiles are out of order"),
        (constant, "24 bars: the same quantiles at every close"),
        (impossible_odds, "EURUSD, 1 bars: probability 1.5"),
    ],
)
def test_a_model_that_forecasts_nonsense_is_not_promoted(registry, champion, tmp_path, change, reason):
    model = doctored(registry, champion, tmp_path, change)
    with pytest.raises(BundleRefused, match=f"in its trial process: .*{reason}") as caught:
        registry.promote(model, "by hand")
    assert "champion stays" in caught.value.hint
    assert registry.champion("H1").id == champion


def test_a_sound_model_passes_in_its_own_process(registry, champion, tmp_path):
    def change(ensemble):
        ensemble.usual_volatility[1]["EURUSD"] *= 2

    model = doctored(registry, champion, tmp_path, change)
    registry.promote(model, "by hand")
    assert registry.champion("H1").id == model
    registry.rollback("H1")


def test_a_file_that_its_parser_cannot_read(registry, champion, tmp_path):
    def change(ensemble):
        ensemble.weights.pop("rv24")

    model = doctored(registry, champion, tmp_path, change)
    with pytest.raises(BundleRefused, match=r"it ended with 1 .KeyError"):
        registry.promote(model, "")


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import os; os.kill(os.getpid(), 11)", "it died of SIGSEGV"),
        ("import os; os.abort()", "it died of SIGABRT"),
        ("raise MemoryError('no more')", "it ended with 1 .MemoryError: no more"),
        ("pass", "it ended with 0 .without a word"),
        ("print('{}')", "it ended with 0"),
        ("print('[]')", "it ended with 0"),
        ("import os; os._exit(3)", "it ended with 3"),
    ],
)
def test_a_process_that_ends_without_saying_that_all_is_well(registry, settings, champion, program, reason):
    trial = Trial(settings.bars_path, registry.keys.folder, command=(sys.executable, "-c", program))
    with pytest.raises(BundleRefused, match=reason):
        trial(registry.path(champion))


def test_a_process_that_hangs_is_ended_at_the_deadline(registry, settings, champion):
    hang = (sys.executable, "-c", "import threading; threading.Event().wait()")
    with pytest.raises(BundleRefused, match=r"no answer within 0\.5 s"):
        Trial(settings.bars_path, registry.keys.folder, 0.5, hang)(registry.path(champion))


def test_without_bars_there_is_no_trial_to_pass(registry, champion, settings, tmp_path):
    with pytest.raises(BundleRefused, match="no symbol has the"):
        Trial(tmp_path / "no_bars", registry.keys.folder)(registry.path(champion))


def test_a_key_that_is_not_trusted_is_not_trusted_there(registry, champion, settings, tmp_path):
    with pytest.raises(BundleRefused, match="does not trust"):
        Trial(settings.bars_path, BundleKeys(tmp_path / "others").folder)(registry.path(champion))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"volatility": float("nan")}, "volatility nan"),
        ({"quantiles": None}, "missing"),
        ({"p_up": None}, "probability None"),
        ({"bars": 2}, r"horizons \[2, 24\], expected \[1, 24\]"),
    ],
)
def test_what_a_forecast_may_lack(registry, champion, settings, change, reason, monkeypatch):
    bundle = registry.load(champion)
    real = bundle.ensemble.forecast

    def forecast(bars):
        return {s: (replace(made[0], **change), *made[1:]) for s, made in real(bars).items()}

    monkeypatch.setattr(bundle.ensemble, "forecast", forecast)
    why = try_out(bundle, BarStore(settings.bars_path))
    assert re.search(reason, why), why


def test_a_volatility_that_never_moves_is_constant(registry, champion, settings, monkeypatch):
    bundle, calls = registry.load(champion), []
    real = bundle.ensemble.forecast

    def forecast(bars):
        calls.append({s: table["close_time"][-1].as_py() for s, table in bars.items()})
        return {s: tuple(_flat(one) for one in made) for s, made in real(bars).items()}

    monkeypatch.setattr(bundle.ensemble, "forecast", forecast)
    assert "the same volatility at every close" in try_out(bundle, BarStore(settings.bars_path))
    assert len({call["EURUSD"] for call in calls}) == len(CUTS), "three closes of real bars"


def _flat(one: HorizonForecast) -> HorizonForecast:
    return replace(one, volatility=0.001)
