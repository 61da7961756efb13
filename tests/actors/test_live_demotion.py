"""The whole way with a clock that a test moves: forecasts, outcomes, a look, a demotion, and the champion before serves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import sqlalchemy as sa

from actors.forecaster import Forecaster
from market.bars import bars_from_columns
from market.forecasts import BaselineForecast, HorizonForecast, parse_utc
from market.timeframes import Timeframe
from tests.actors.test_forecaster import HOUR, START, World
from tests.actors.test_live_judge import add
from tuning.bundle_signature import BundleKeys
from tuning.candidate import barred_by_live_loss, recipe
from tuning.presets import load_preset
from tuning.registry import Registry

LOOK = 100
SIGMA = 1e-3  # of an hour
Z = {"0.05": -1.64, "0.1": -1.28, "0.25": -0.67, "0.5": 0.0, "0.75": 0.67, "0.9": 1.28, "0.95": 1.64}


class LiveWorld(World):
    """Returns of SIGMA an hour; the stack forecasts `bad` times too much, the econometric model is its baseline."""

    def __init__(self, tmp_path: Path, bad: float) -> None:
        super().__init__(tmp_path)
        self.settings = self.settings.model_copy(update={"symbols": ("EURUSD",)})
        # No power cut is tested here, and hundreds of closes are written.
        engine = self.ledger._database.engine
        sa.event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
        self.bad = bad
        self.rows = 200
        self.steps = np.cumsum(np.random.default_rng(17).normal(0, SIGMA, (2, 2000)), axis=1)
        self.registry = Registry(tmp_path / "registry", BundleKeys(tmp_path / "keys"), now=self.now)
        self.econometric = add(self.registry, tmp_path, 0, "econometric").id
        self.stack = add(self.registry, tmp_path, 1, "stack").id

    def tail(self, symbol: str, timeframe: str, n: int) -> pa.Table:
        first = max(0, self.rows - n)
        opens = np.array(START.replace(tzinfo=None), "datetime64[us]") + np.arange(first, self.rows) * np.timedelta64(
            1, "h"
        )
        close = 1.1 * np.exp(self.steps[self.settings.symbols.index(symbol), first : self.rows])
        return bars_from_columns(symbol, Timeframe.H1, opens, close, close, close, close, received_at=START)

    def predict(self, model_id: str, bars: dict[str, pa.Table]) -> dict[str, tuple[HorizonForecast, ...]]:
        times = self.bad if model_id == self.stack else 1.0
        return {
            s: tuple(self._horizon(h, t["close_time"][-1].as_py(), times) for h in (1, 24)) for s, t in bars.items()
        }

    def _horizon(self, bars: int, as_of: datetime, times: float) -> HorizonForecast:
        base = SIGMA * bars**0.5
        own, limit = ({level: sigma * z for level, z in Z.items()} for sigma in (times * base, base))
        end = as_of + bars * HOUR
        baseline = BaselineForecast("har_how", base, limit)
        return HorizonForecast(bars, end, times * base, 1.0, own, None, 0.5, baseline=baseline)

    def live(self) -> Forecaster:
        return self.forecaster(registry=self.registry, wall=self.now)

    def now(self) -> datetime:
        self.wall += HOUR / 3600
        return self.wall


@pytest.fixture(autouse=True)
def sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.live_judge.LOOK_EVERY", LOOK)


def run(world: LiveWorld, forecaster: Forecaster, closes: int) -> None:
    for _ in range(closes):
        forecaster.on_bars(world.close_bar())
        forecaster.step()


@pytest.fixture
def bad_world(tmp_path: Path) -> Iterator[LiveWorld]:
    world = LiveWorld(tmp_path, bad=4.0)
    yield world
    world.ledger.close()


def test_a_stack_that_loses_to_its_baseline_is_taken_down_once(bad_world: LiveWorld, tmp_path: Path) -> None:
    world = bad_world
    forecaster = world.live()
    forecaster.step()
    run(world, forecaster, LOOK + 22)
    assert forecaster.status()["champion"] == {"H1": world.stack}, "99 outcomes of 24 bars are known"
    assert forecaster.status()["live"]["H1"][0]["closes"] == LOOK - 1
    run(world, forecaster, 2)
    assert forecaster.status()["champion"] == {"H1": world.econometric}
    [_, _, last] = world.registry.champion_history("H1")
    assert (last["action"], last["id"], last["before"]) == ("rollback", world.econometric, world.stack)
    assert last["live_loss"]["t"] >= last["live_loss"]["limit"]
    run(world, forecaster, 3)
    card = forecaster.snapshot().models["H1"]
    assert card["id"] == world.econometric
    assert "its live qlike of rv24 was" in card["champion_why"]
    assert card["live"][0]["target"] == "rv24"
    assert forecaster.status()["champion_why"]["H1"] == card["champion_why"]
    assert len(world.registry.champion_history("H1")) == 3

    # Promoted again by hand, it is judged by what it does from then on.
    world.registry.promote(world.stack, "I know better")
    run(world, forecaster, LOOK)
    assert forecaster.status()["champion"] == {"H1": world.stack}
    forecaster = world.live()  # a second life reads the same ledger
    forecaster.step()
    run(world, forecaster, 26)
    assert forecaster.status()["champion"] == {"H1": world.econometric}
    assert len(world.registry.champion_history("H1")) == 5


def test_a_stack_as_good_as_its_baseline_stays(tmp_path: Path) -> None:
    world = LiveWorld(tmp_path, bad=1.0)
    forecaster = world.live()
    forecaster.step()
    run(world, forecaster, LOOK + 30)
    assert forecaster.status()["champion"] == {"H1": world.stack}
    assert [v["t"] for v in forecaster.status()["live"]["H1"]] == [0.0, 0.0]
    world.ledger.close()


def test_without_a_champion_before_it_serves_on_and_says_so(bad_world: LiveWorld) -> None:
    world = bad_world
    (world.registry.path(world.econometric) / "ensemble.json").write_text("{}")
    forecaster = world.live()
    forecaster.step()
    run(world, forecaster, LOOK + 25)
    assert forecaster.status()["champion"] == {"H1": world.stack}
    assert "It still serves: There is no earlier champion" in forecaster.status()["problems"]["live loss H1"]


def test_an_econometric_champion_is_measured_and_stays(bad_world: LiveWorld) -> None:
    world = bad_world
    world.models = {world.stack: replace(world.registry.get(world.stack), kind="econometric")}
    registry: Any = SimpleNamespace(
        champion_pointer=world.registry.champion_pointer, get=world.models.get, demote=world.registry.demote
    )
    forecaster = world.forecaster(registry=registry, wall=world.now)
    forecaster.step()
    run(world, forecaster, LOOK + 25)
    assert forecaster.status()["live"]["H1"][0]["worse"] is True
    assert len(world.registry.champion_history("H1")) == 2


def test_its_like_is_not_promoted_by_the_evidence_that_has_failed(tmp_path: Path) -> None:
    """Until the lockbox, the newest days that the gate reads, begins after the failure."""
    preset = load_preset("quick")
    known_until = "2026-03-02T00:00:00Z"
    entry = {"before": "h1-bad", "live_loss": {"recipe": recipe(preset), "known_until": known_until}}
    registry: Any = SimpleNamespace(champion_history=lambda timeframe: [{"action": "promote"}, entry])
    free = parse_utc(known_until) + preset.lockbox_days * 24 * HOUR

    def barred(until: datetime, **changed: Any) -> str:
        data: Any = SimpleNamespace(until=until)
        return barred_by_live_loss(registry, Timeframe.H1, replace(preset, **changed), data)

    assert "h1-bad of the same recipe was taken down" in barred(parse_utc(known_until))
    assert barred(free - HOUR)
    assert barred(free) == ""
    assert barred(parse_utc(known_until), seed=8) == "", "another recipe is another model"
    assert preset.lockbox_days > 0
