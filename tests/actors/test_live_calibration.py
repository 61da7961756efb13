"""Served widths are those of the evaluation's function on the same outcomes, in a second life too, and bounded by what was known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from market.forecasts import QUANTILE_LEVELS, HorizonForecast
from tests.actors.test_forecaster import HOUR, START
from tests.actors.test_live_demotion import LiveWorld
from tuning.adaptive_calibration import adaptive_quantiles, in_levels
from tuning.replay import own_words

CLOSES = 40


class Narrow(LiveWorld):
    """Both models say a third of the width that the market has."""

    def _horizon(self, bars: int, as_of: Any, times: float) -> HorizonForecast:
        made = super()._horizon(bars, as_of, times / 3)
        prices = {level: 1.1 * np.exp(value) for level, value in (made.quantiles or {}).items()}
        return HorizonForecast(**made.__dict__ | {"price_quantiles": prices})


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Narrow]:
    made = Narrow(tmp_path, bad=1.0)
    yield made
    made.ledger.close()


def served(world: LiveWorld, bars: int) -> list[dict[str, Any]]:
    """Horizons as recorded, oldest first."""
    rows = world.ledger.history("EURUSD", "H1", 1000)
    return [horizon for row in reversed(rows) for horizon in row["horizons"] if horizon["bars"] == bars]


@pytest.mark.parametrize("bars", [1, 24])
def test_serving_adapts_as_the_evaluation_does(world: Narrow, bars: int) -> None:
    forecaster = world.live()
    forecaster.step()
    for k in range(CLOSES):
        if k == 30:
            forecaster = world.live()  # a second life has nothing but the ledger
        forecaster.on_bars(world.close_bar())
        forecaster.step()
    said = served(world, bars)
    assert len(said) == CLOSES + 1
    own = np.array([in_levels(h["model_quantiles"] or h["quantiles"]) for h in said])
    steps = world.steps[0, 199 : 200 + CLOSES]  # the first as-of is the close of bar 199
    actual = np.array([steps[k + bars] - steps[k] if k + bars < len(steps) else np.nan for k in range(CLOSES + 1)])
    time = np.datetime64(START.replace(tzinfo=None), "us") + np.arange(CLOSES + 1) * np.timedelta64(1, "h")
    ends = time + bars * np.timedelta64(1, "h")
    expected = adaptive_quantiles(own, actual, np.zeros(CLOSES + 1, int), time, ends, bars)
    np.testing.assert_allclose([in_levels(h["quantiles"]) for h in said], expected, rtol=1e-9)
    assert said[bars - 1]["model_quantiles"] is None, "no label had ended"
    assert expected[-1, 5] > own[-1, 5], "it has become wider"


def test_what_is_published_is_one_consistent_forecast(world: Narrow) -> None:
    forecaster = world.live()
    forecaster.step()
    for _ in range(5):
        forecaster.on_bars(world.close_bar())
    published = forecaster.snapshot().forecasts["EURUSD/H1"]
    horizon = published["horizons"][0]
    assert set(horizon) & {"baseline", "model_quantiles", "widths"} == set()
    assert list(horizon["quantiles"]) == [str(level) for level in QUANTILE_LEVELS]
    for level, value in horizon["quantiles"].items():
        assert horizon["price_quantiles"][level] == pytest.approx(published["last_close"] * np.exp(value))
    recorded = served(world, 1)[-1]
    assert recorded["quantiles"] == horizon["quantiles"]
    assert own_words(recorded)["quantiles"] == recorded["model_quantiles"] != recorded["quantiles"]


def test_a_ledger_that_is_away_leaves_the_widths_as_they_are(world: Narrow, monkeypatch: pytest.MonkeyPatch) -> None:
    forecaster = world.live()
    forecaster.step()
    for _ in range(5):
        forecaster.on_bars(world.close_bar())

    def away(*_: Any, **__: Any) -> Any:
        raise OSError("network down")

    before = forecaster._record.live._calibration._trackers["EURUSD", "H1", 1].log_width.copy()
    for name in ("append", "settle", "settled", "oldest_pending", "newest", "closes"):
        monkeypatch.setattr(world.ledger, name, away)
    forecaster.on_bars(world.close_bar())
    assert forecaster.snapshot().forecasts["EURUSD/H1"]["as_of"] > str(START + HOUR)
    assert forecaster._record.live._calibration._trackers["EURUSD", "H1", 1].log_width == before
