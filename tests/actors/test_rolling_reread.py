"""Old bars are asked for again, a slice an hour: revisions are found, polls and evidence are left as they were."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from actors.market_data import RECHECK_BARS, MarketData
from actors.rolling_reread import SLICE_BARS, RollingReread
from market.bar_store import BarStore
from market.calendar import expected_opens
from market.coverage import ENOUGH, Coverage
from market.errors import NotConnected
from market.timeframes import Timeframe
from tests.actors.test_market_data import MONDAY, World, market_data, stored

KEY = ("EURUSD", "H1")
HISTORY = 60  # days: more than RECHECK_BARS of H1
OLD = MONDAY.replace(hour=10, minute=0) - timedelta(days=41)
SLICE = 100


def started(world: World, folder: Path, **given: Any) -> MarketData:
    core = market_data(
        world, folder, **({"symbols": ("EURUSD",), "history_days": HISTORY, "slice_bars": SLICE} | given)
    )
    core.backfill(None)
    world.asked.clear()
    return core


def old_questions(world: World) -> list[tuple[str, datetime | None, datetime | None]]:
    return [asked for asked in world.asked if asked[2] is not None]


def pass_hours(core: MarketData, world: World, hours: int) -> list[datetime]:
    """`hours` times: the poll that brings the closed bar, then one in the middle of the hour. Opens that were announced."""
    announced: list[datetime] = []
    for _ in range(2 * hours):
        world.now += timedelta(minutes=30)
        for table in core.poll():
            announced += table["open_time"].to_pylist()
    return announced


@pytest.mark.parametrize(
    ("frame", "days", "slices"), [("H1", 365, 3), ("M1", 365, 125), ("M15", 365, 9), ("D1", 365, 1)]
)
def test_a_year_is_walked_through_from_the_newest_bars_to_the_oldest_and_again(
    frame: str, days: int, slices: int
) -> None:
    coverage, key, last = Coverage(), ("EURUSD", frame), datetime(2022, 3, 11, 22, tzinfo=UTC)
    first = last - timedelta(days=days)
    walk, found = RollingReread(coverage), []
    for _ in range(slices + 1):
        found.append(walk.slice(key, first, last))
        walk.done(key, found[-1][0])
    assert abs(len({end for _, end in found}) - slices) <= 1
    once = found[: next((n for n in range(1, len(found)) if found[n][1] == last), len(found))]
    assert [start for start, _ in once[:-1]] == [end for _, end in once[1:]], "no bar between two slices"
    assert (once[0][1], once[-1][0]) == (last, first)
    sizes = [len(expected_opens(Timeframe.parse(frame), *slice_)) for slice_ in once]
    assert set(sizes[:-1]) <= {SLICE_BARS}
    assert sizes[-1] <= 1.5 * SLICE_BARS


def test_an_old_revision_is_found_kept_as_a_revision_and_not_announced(tmp_path: Path) -> None:
    world = World()
    core = started(world, tmp_path)
    assert len(stored(tmp_path)) - stored(tmp_path).index(OLD) > RECHECK_BARS
    before, then = BarStore(tmp_path / "bars").read(), world.now
    world.closes["EURUSD", OLD] = 1.2
    announced = pass_hours(core, world, 12)
    assert announced == [MONDAY.replace(minute=0) + timedelta(hours=n) for n in range(12)], "each closed bar, once"
    bar = next(row for row in BarStore(tmp_path / "bars").read().to_pylist() if row["open_time"] == OLD)
    assert (bar["close"], bar["revision"]) == (1.2, 1)
    assert BarStore(tmp_path / "bars").read(as_of=then).equals(before)
    assert core.tail("EURUSD", "H1", 2000)["close"].to_pylist().count(1.2) == 1


def test_one_slice_of_each_series_an_hour_and_one_question_a_poll(tmp_path: Path) -> None:
    world = World()
    core = started(world, tmp_path, symbols=("EURUSD", "USDJPY"))
    for minutes in range(1, 180):
        world.now, before = MONDAY + timedelta(minutes=minutes), len(old_questions(world))
        closed = core.poll()
        fresh = old_questions(world)[before:]
        assert len(fresh) <= (0 if closed else 1)
        assert not fresh or world.now.minute not in (59, 0), "not while a bar closes"
    assert [symbol for symbol, _, _ in old_questions(world)] == ["EURUSD", "USDJPY"] * 2


def test_the_place_survives_a_restart(tmp_path: Path) -> None:
    world = World()
    core = started(world, tmp_path)
    pass_hours(core, world, 3)
    asked = [question[1:] for question in old_questions(world)]
    assert len(asked) >= 2
    again = started(world, tmp_path)
    pass_hours(again, world, 2)
    assert old_questions(world)[0][2] == asked[-1][0]


def test_a_series_that_is_never_offered_holds_up_nothing(tmp_path: Path) -> None:
    world = World(offers=("EURUSD",))
    core = started(world, tmp_path, symbols=("EURUSD", "USDJPY"))
    pass_hours(core, world, 3)
    assert [symbol for symbol, _, until in world.asked if until is not None] == ["EURUSD"] * 2


def test_evidence_stays_what_it_was(tmp_path: Path) -> None:
    """A bar that the source never has stays missing; half an answer, or none, is no evidence and takes nothing back."""
    world = World()
    whole = world.closed_bars
    hole = OLD + timedelta(hours=3)

    def without(*given: Any) -> pa.Table:
        bars = whole(*given)
        return bars.filter(
            pa.compute.not_equal(bars["open_time"], pa.scalar(hole, bars.schema.field("open_time").type))
        )

    world.closed_bars = without  # type: ignore[method-assign]
    core = started(world, tmp_path)
    for _ in range(3):  # settles it
        world.now += timedelta(minutes=3)
        core.backfill(None)
    opens = expected_opens(Timeframe.H1, MONDAY - timedelta(days=59), MONDAY - timedelta(hours=2))
    before = Coverage.beside(tmp_path / "bars").times(KEY, opens)
    assert before.min() >= 1
    pass_hours(core, world, 12)
    after = Coverage.beside(tmp_path / "bars").times(KEY, opens)
    assert ((before <= after) & (after <= ENOUGH)).all()
    world.closed_bars = lambda *given: without(*given).slice(0, 2) if given[3] else without(*given)  # type: ignore[method-assign]
    pass_hours(core, world, 12)
    assert (Coverage.beside(tmp_path / "bars").times(KEY, opens) == after).all()
    assert len(stored(tmp_path)) == len(set(stored(tmp_path)))


def test_a_slice_without_an_answer_is_no_outage_and_is_asked_for_again(tmp_path: Path) -> None:
    world = World()
    whole = world.closed_bars

    def loading(symbol: str, timeframe: str, since: datetime | None, until: datetime | None = None) -> pa.Table:
        bars = whole(symbol, timeframe, since, until)
        if until is not None:
            raise NotConnected("The terminal is still loading.", hint="It is asked again.")
        return bars

    world.closed_bars = loading  # type: ignore[method-assign]
    second = World()
    second.closed_bars = loading  # type: ignore[method-assign]
    core = started(world, tmp_path, sources=[("ray", world), ("http", second)])
    assert len(pass_hours(core, world, 3)) == 3
    assert (core.status()["connected"], core.status()["transport"], core.status()["problems"]) == (True, "ray", {})
    assert len({question[2] for question in old_questions(world)}) > 1, "the newest slice, as bars close"
    assert Coverage.beside(tmp_path / "bars").reread_down_to(KEY) is None
    world.closed_bars = whole  # type: ignore[method-assign]
    pass_hours(core, world, 2)
    assert Coverage.beside(tmp_path / "bars").reread_down_to(KEY) is not None


def test_old_bars_at_another_hour_are_refused_and_said_while_polls_go_on(tmp_path: Path) -> None:
    world = World()
    rows = expected_opens(Timeframe.H1, MONDAY - timedelta(days=HISTORY), MONDAY)
    for n, open_ in enumerate(rows):
        world.closes["EURUSD", open_.astype(datetime).replace(tzinfo=UTC)] = 1.1 + n * 1e-5
    core = started(ranged(world), tmp_path)
    before = BarStore(tmp_path / "bars").read()
    whole = world.closed_bars

    def slipped(symbol: str, timeframe: str, since: datetime | None, until: datetime | None = None) -> pa.Table:
        bars = whole(symbol, timeframe, since, until)
        if until is None:
            return bars
        for name in ("open_time", "close_time"):
            moved = pa.compute.add(bars[name], pa.scalar(timedelta(hours=1), pa.duration("us")))
            bars = bars.set_column(bars.schema.get_field_index(name), bars.schema.field(name), moved)
        return bars

    world.closed_bars = slipped  # type: ignore[method-assign]
    assert len(pass_hours(core, world, 4)) == 4
    assert "Old bars of EURUSD/H1 come +1 h" in core.status()["problems"]["EURUSD/H1 old bars"]
    assert core.status()["connected"] is True
    now = BarStore(tmp_path / "bars").read()
    assert now.slice(0, before.num_rows).equals(before)
    world.closed_bars = whole  # type: ignore[method-assign]
    pass_hours(core, world, 2)
    assert core.status()["problems"] == {}


def ranged(world: World) -> World:
    """The same world, whose bars move: one that does not is alike at any hour."""
    flat = world.closed_bars

    def moving(*given: Any) -> pa.Table:
        bars = flat(*given)
        high = pa.compute.multiply(bars["high"], 1.001)
        return bars.set_column(bars.schema.get_field_index("high"), bars.schema.field("high"), high)

    world.closed_bars = moving  # type: ignore[method-assign]
    return world


@pytest.mark.parametrize("memory", [10_000, 50])
@pytest.mark.parametrize(
    ("age", "nonsense", "reason"),
    [
        (timedelta(hours=1), 1100.0, "price_jump"),
        (timedelta(days=41), 1100.0, "price_jump"),
        (timedelta(days=41), -1.0, "not_positive"),
        (timedelta(days=41), float("nan"), "not_a_number"),
    ],
)
def test_a_revision_that_is_no_bar_is_set_aside_and_the_good_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age: timedelta, nonsense: float, reason: str, memory: int
) -> None:
    monkeypatch.setattr("actors.market_data.MEMORY_BARS", memory)
    world = World()
    core = started(world, tmp_path)
    bad = MONDAY.replace(minute=0) - timedelta(hours=1) - age
    world.closes["EURUSD", bad] = nonsense
    pass_hours(core, world, 12)
    store = BarStore(tmp_path / "bars")
    assert [(row["open_time"], row["reason"]) for row in store.quarantined().to_pylist()] == [(bad, reason)]
    kept = next(row for row in store.read().to_pylist() if row["open_time"] == bad)
    assert (kept["close"], kept["revision"]) == (1.1, 0)
    world.closes["EURUSD", bad] = 1.15
    pass_hours(core, world, 12)
    kept = next(row for row in store.read().to_pylist() if row["open_time"] == bad)
    assert (kept["close"], kept["revision"]) == (1.15, 1)


@pytest.mark.parametrize("memory", [10_000, 50])
def test_one_old_bar_alone_is_judged_by_the_bars_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: int
) -> None:
    """A late bar beyond memory comes without neighbours, and a price x1000 must show all the same."""
    monkeypatch.setattr("actors.market_data.MEMORY_BARS", memory)
    world = World()
    whole, late = world.closed_bars, pa.scalar(OLD, pa.timestamp("us", "UTC"))
    world.closed_bars = lambda *given: (bars := whole(*given)).filter(pa.compute.not_equal(bars["open_time"], late))  # type: ignore[method-assign]
    started(world, tmp_path)
    world.closes["EURUSD", OLD] = 1100.0
    world.closed_bars = lambda *given: (  # type: ignore[method-assign]
        (bars := whole(*given)).filter(pa.compute.equal(bars["open_time"], late)) if given[3] else whole(*given)
    )
    started(world, tmp_path)
    assert OLD not in stored(tmp_path)
    assert set(BarStore(tmp_path / "bars").quarantined()["reason"].to_pylist()) == {"price_jump"}
