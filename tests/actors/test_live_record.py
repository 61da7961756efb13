"""A second life that reads little says what the first one said: widths, live skill and verdicts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from actors.live_record import LiveRecord
from tests.actors.test_forecaster import version
from tests.actors.test_live_demotion import LiveWorld, run

KEPT = 40


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveWorld]:
    monkeypatch.setattr("actors.live_record.CLOSES_KEPT", KEPT)
    made = LiveWorld(tmp_path, bad=1.2)
    yield made
    made.ledger.close()


class Counting:
    """The ledger, and how many outcomes were read."""

    def __init__(self, ledger: Any) -> None:
        self.ledger, self.rows, self.asked = ledger, 0, list[str]()

    def __getattr__(self, name: str) -> Any:
        def call(*given: Any) -> Any:
            found = getattr(self.ledger, name)(*given)
            self.asked.append(name)
            self.rows += len(found) if name.startswith("settled") else 0
            return found

        return call


def widths(record: LiveRecord) -> dict[Any, list[float]]:
    """Of the series that have learned something."""
    return {key: one.log_width for key, one in record._calibration._trackers.items() if any(one.log_width)}


def test_a_second_life_reads_a_window_and_says_the_same(world: LiveWorld) -> None:
    first = world.live()
    first.step()
    run(world, first, 80)
    serving = first._swap.serving["H1"]
    counting = Counting(world.ledger)
    again = LiveRecord(counting, world.settings.symbols)
    again.catch_up(serving.version, serving.since)
    assert counting.rows <= 2 * KEPT + 2, "of 136 outcomes"
    assert [v.closes for v in again.verdicts("H1")] == [v["closes"] for v in first.status()["live"]["H1"]]
    assert widths(again) == widths(first._record.live)
    assert widths(again)
    figure = again.figure("H1", "rv1", None)
    assert figure is not None
    assert figure.value is not None
    assert figure.value < 0, "20 % too much is worse than the baseline"


def test_a_ledger_that_does_not_say_what_was_learned_is_read_from_the_start(world: LiveWorld) -> None:
    first = world.live()
    first.step()
    run(world, first, 12)
    serving = first._swap.serving["H1"]
    old = Counting(world.ledger)
    newest = {s: body | {"horizons": [h | {"widths": None} for h in body["horizons"]]}
              for s, body in world.ledger.newest("H1", ["EURUSD"]).items()}  # fmt: skip
    old.newest = lambda *_: newest
    again = LiveRecord(old, world.settings.symbols)
    assert again.catch_up(serving.version, serving.since) == len(world.ledger.settled("H1"))
    assert widths(again) == widths(first._record.live)


def test_skill_cards_carry_live_skill_with_the_reason_until_there_is_enough(world: LiveWorld) -> None:
    cards_of = replace(world.registry.get(world.stack), skill=version("h1-a").skill)
    registry: Any = SimpleNamespace(champion_pointer=world.registry.champion_pointer, get=lambda _: cards_of)
    forecaster = world.forecaster(registry=registry, wall=world.now)
    forecaster.step()
    run(world, forecaster, 3)
    cards = {card["target"]: card for card in forecaster.snapshot().skill["H1"]}
    assert {card["live_value"] for card in cards.values()} == {None}
    assert cards["r1"]["live_reason"].endswith("30 are needed.")
    run(world, forecaster, 30)
    cards = {card["target"]: card for card in forecaster.snapshot().skill["H1"]}
    assert cards["r1"]["live_value"] < 0
    assert (cards["r1"]["live_n"], cards["r1"]["live_baseline"], cards["r1"]["live_reason"]) == (32, "har_how", "")
    forecast = forecaster.snapshot().forecasts["EURUSD/H1"]["horizons"][0]
    own = {card["target"]: card for card in forecast["skill"]}
    assert own["r1"]["live_value"] == pytest.approx(cards["r1"]["live_value"]), "there is one symbol"
    orjson.dumps(asdict(forecaster.snapshot()))  # as the HTTP side does: strict about types
