"""Polling, backfill and recovery are one question: nothing is lost in an outage, nothing doubled after it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from actors.market_data import COOL_DOWN_SECONDS, MarketData
from actors.rolling_reread import SLICE_BARS
from market.bar_store import BarStore
from market.bars import Question, bars_from_columns, empty_bars
from market.calendar import expected_opens
from market.coverage import Coverage
from market.errors import NodeDown, NotConnected, UnknownSymbol
from market.timeframes import Timeframe

MONDAY = datetime(2022, 3, 14, 12, 30, tzinfo=UTC)


@dataclass
class World:
    """A clock, and a source of one price per hour that can go away, correct itself, or send nonsense."""

    now: datetime = MONDAY
    seconds: float = 0.0
    away: bool = False
    offers: tuple[str, ...] = ("EURUSD", "USDJPY")
    closes: dict[tuple[str, datetime], float] = field(default_factory=dict)
    asked: list[tuple[str, datetime | None, datetime | None]] = field(default_factory=list)

    def closed_bars(
        self, symbol: str, timeframe: str, since: datetime | None, until: datetime | None = None
    ) -> pa.Table:
        self.asked.append((symbol, since, until))
        self._check()
        if symbol not in self.offers:
            raise UnknownSymbol(f"This account does not offer {symbol}.", hint="Others.")
        frame, begin, end = Timeframe.parse(timeframe), since or self.now, min(until or self.now, self.now)
        opens = expected_opens(
            frame, begin - frame.delta + timedelta(seconds=1), end - frame.delta + timedelta(seconds=1)
        )
        if len(opens) == 0:
            return empty_bars()
        moments = [moment.astype(datetime).replace(tzinfo=UTC) for moment in opens]
        close = np.array([self.closes.get((symbol, moment), 1.1) for moment in moments])
        return bars_from_columns(symbol, frame, opens, close, close, close, close, received_at=self.now)

    def prices(self, symbols: list[str]) -> list[dict[str, Any]]:
        self._check()
        return [{"symbol": symbol, "bid": 1.1, "ask": 1.1001, "spread_points": 10, "reason": ""} for symbol in symbols]

    def health(self) -> dict[str, Any]:
        self._check()
        return {"connected": True, "simulated": True, "server": "Here", "reason": ""}

    def _check(self) -> None:
        if self.away:
            raise NodeDown("The node is gone.", hint="Bring it back.")


class Broken:
    """A source that never answers."""

    def __init__(self) -> None:
        self.asked = 0

    def _fail(self, *_: Any) -> Any:
        self.asked += 1
        raise NotConnected("No terminal.", hint="Start it.")

    closed_bars = prices = health = _fail


def market_data(
    world: World, folder: Path, symbols: tuple[str, ...] = ("EURUSD", "USDJPY"), **given: Any
) -> MarketData:
    options: dict[str, Any] = {"timeframes": ("H1",), "history_days": 10, "sources": [("ray", world)]} | given
    return MarketData(
        options["sources"],
        BarStore(folder / "bars", now=lambda: world.now),
        symbols,
        options["timeframes"],
        options["history_days"],
        lambda: world.now,
        monotonic=lambda: world.seconds,
        slice_bars=options.get("slice_bars", SLICE_BARS),
    )


def stored(folder: Path, symbol: str = "EURUSD", frame: str = "H1") -> list[datetime]:
    return BarStore(folder / "bars").read([symbol], frame)["open_time"].to_pylist()


def expected(since: datetime, until: datetime, frame: Timeframe = Timeframe.H1) -> list[datetime]:
    """Opens of the bars with since < close <= until."""
    opens = expected_opens(
        frame, since - frame.delta + timedelta(seconds=1), until - frame.delta + timedelta(seconds=1)
    )
    return [moment.astype(datetime).replace(tzinfo=UTC) for moment in opens]


def test_backfill_reports_and_is_resumed_for_free(tmp_path: Path) -> None:
    world = World()
    progress: list[tuple[str, int, int]] = []
    report = market_data(world, tmp_path).backfill(lambda *step: progress.append(step))
    assert progress == [("EURUSD", 1, 2), ("USDJPY", 2, 2)]
    assert stored(tmp_path) == expected(MONDAY - timedelta(days=10), MONDAY)
    assert report == {"added": 2 * len(stored(tmp_path)), "bars": report["bars"], "reason": ""}
    assert report["bars"]["USDJPY/H1"] == len(stored(tmp_path))
    again = market_data(world, tmp_path).backfill(None)
    assert again["added"] == 0
    assert BarStore(tmp_path / "bars").version() == 1, "one commit a symbol, none for what is known"


def test_a_longer_history_is_filled_at_its_old_end(tmp_path: Path) -> None:
    world = World()
    market_data(world, tmp_path).backfill(None)
    market_data(world, tmp_path, history_days=30).backfill(None)
    assert stored(tmp_path) == expected(MONDAY - timedelta(days=30), MONDAY)


def test_poll_announces_each_closed_bar_once_in_one_commit(tmp_path: Path) -> None:
    world = World()
    core = market_data(world, tmp_path)
    core.backfill(None)
    version = BarStore(tmp_path / "bars").version()
    assert core.poll() == []
    world.now += timedelta(minutes=30)
    told: list[Any] = []
    tables = core.poll(lambda closed: told.append((closed, BarStore(tmp_path / "bars").version())))
    assert told == [(tables, version + 1)], "once they are stored"
    assert [(table["symbol"].to_pylist(), table["close_time"].to_pylist()) for table in tables] == [
        (["EURUSD"], [world.now]),
        (["USDJPY"], [world.now]),
    ]
    assert BarStore(tmp_path / "bars").version() == version + 1
    assert core.poll() == []
    assert core.tail("EURUSD", "H1", 2)["close_time"].to_pylist()[-1] == world.now


def test_between_closes_nobody_is_asked_for_bars(tmp_path: Path) -> None:
    world = World()
    core = market_data(world, tmp_path)
    core.backfill(None)
    world.asked.clear()
    for minutes in (1, 5, 20):
        world.now = MONDAY + timedelta(minutes=minutes)
        core.poll()
    assert world.asked == []


def test_an_outage_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    world = World()
    core = market_data(world, tmp_path, timeframes=("H1", "M15"))
    core.backfill(None)
    world.away = True
    for _ in range(30):
        world.now += timedelta(hours=1)
        assert core.poll() == []
    status = core.status()
    assert (status["connected"], status["reason"]) == (False, "The node is gone. Bring it back.")
    world.away = False
    tables = core.poll()
    assert sorted((t["timeframe"][0].as_py(), t.num_rows) for t in tables) == [("H1", 30)] * 2 + [("M15", 120)] * 2
    assert core.status()["connected"] is True
    since = MONDAY - timedelta(days=10)
    assert stored(tmp_path) == expected(since, world.now)
    assert stored(tmp_path, frame="M15") == expected(since, world.now, Timeframe.M15)
    assert core.poll() == []


def test_a_crash_is_recovered_by_the_same_call(tmp_path: Path) -> None:
    world = World()
    market_data(world, tmp_path).backfill(None)
    world.now += timedelta(days=9)
    core = market_data(world, tmp_path)
    assert [table.num_rows for table in core.poll()] == [len(expected(MONDAY, world.now))] * 2


def test_a_weekend_is_no_outage(tmp_path: Path) -> None:
    world = World(now=datetime(2022, 3, 18, 21, 0, tzinfo=UTC))
    core = market_data(world, tmp_path)
    core.backfill(None)
    world.asked.clear()
    for hours in range(1, 47, 5):
        world.now = datetime(2022, 3, 18, 21, tzinfo=UTC) + timedelta(hours=hours)
        assert core.poll() == []
    assert core.status()["connected"] is True
    assert all(until is not None for _, _, until in world.asked), "nobody asks for new bars"
    world.now = datetime(2022, 3, 20, 22, 0, tzinfo=UTC)
    assert [table.num_rows for table in core.poll()] == [1, 1]


def test_the_second_source_takes_over_and_the_first_is_tried_again(tmp_path: Path) -> None:
    world, broken = World(), Broken()
    sources = [("ray", broken), ("http", world)]
    core = market_data(world, tmp_path, sources=sources)
    assert core.backfill(None)["reason"] == ""
    assert core.status()["transport"] == "http"
    assert broken.asked == 1, "a dead source is not waited for at every question"
    world.seconds += 20.0
    world.now += timedelta(hours=1)
    assert len(core.poll()) == 2
    assert broken.asked == 2
    back = market_data(world, tmp_path, sources=[("ray", world), ("http", broken)])
    back.poll()
    assert back.status()["transport"] == "ray"


def test_a_source_that_fails_within_a_backfill_is_taken_over_from_and_returned_to(tmp_path: Path) -> None:
    """The third question of eight is the first source's last for now."""
    pairs = ("EURUSD", "USDJPY", "GBPUSD", "AUDUSD")
    first, second = World(offers=pairs), World(offers=pairs)
    whole, seen = first.closed_bars, []

    def failing(*given: Any) -> pa.Table:
        seen.append(given[:2])
        first.away = first.away or len(seen) == 3
        return whole(*given)

    first.closed_bars = failing  # type: ignore[method-assign]
    sources = [("ray", first), ("http", second)]
    core = market_data(first, tmp_path, symbols=pairs, timeframes=("H1", "M15"), sources=sources)
    ways = []
    report = core.backfill(lambda *_: ways.append(core.status()["transport"]))
    assert ways == ["ray"] * 2 + ["http"] * 6
    assert report["reason"] == ""
    status = core.status()
    assert (status["connected"], status["transport"], status["reason"]) == (True, "http", "")
    since = MONDAY - timedelta(days=10)
    for symbol in pairs:
        assert stored(tmp_path, symbol) == expected(since, MONDAY)
        assert stored(tmp_path, symbol, "M15") == expected(since, MONDAY, Timeframe.M15)
    bars = BarStore(tmp_path / "bars").read()
    assert report["added"] == bars.num_rows == 4 * (len(stored(tmp_path)) + len(stored(tmp_path, frame="M15")))
    assert set(bars["revision"].to_pylist()) == {0}, "both say the same"
    asked = len(seen)
    first.away, second.now = False, MONDAY + timedelta(minutes=15)
    first.now = second.now
    first.seconds += COOL_DOWN_SECONDS / 2
    assert len(core.poll()) == 4
    assert (core.status()["transport"], len(seen)) == ("http", asked), "it is left alone for a while"
    first.now = second.now = MONDAY + timedelta(minutes=30)
    first.seconds += COOL_DOWN_SECONDS
    assert len(core.poll()) == 8
    assert core.status()["transport"] == "ray"
    assert len(seen) > asked


def test_the_sources_clock_is_kept_with_the_evidence(tmp_path: Path) -> None:
    world = World()
    said = {
        "server": "Here",
        "clock": "52 of 52 weekly opens follow eu.",
        "clock_rule": "eu",
        "server_utc_offset": 7200,
    }
    world.health = lambda: {"connected": True, "simulated": True} | said  # type: ignore[method-assign]
    market_data(world, tmp_path).backfill(None)
    assert Coverage.beside(tmp_path / "bars").clock == said


def test_when_all_sources_fail_the_first_ones_reason_is_given(tmp_path: Path) -> None:
    core = market_data(World(), tmp_path, sources=[("ray", Broken()), ("http", Broken())])
    report = core.backfill(None)
    assert (report["added"], report["reason"]) == (0, "No terminal. Start it.")
    assert core.poll() == []
    assert core.status()["connected"] is False
    assert core.tail("EURUSD", "H1", 5).num_rows == 0


def test_a_symbol_that_is_not_offered_does_not_stop_the_others(tmp_path: Path) -> None:
    world = World(offers=("EURUSD",))
    core = market_data(world, tmp_path)
    report = core.backfill(None)
    assert list(report["bars"]) == ["EURUSD/H1"]
    assert core.status()["problems"] == {"USDJPY/H1": "This account does not offer USDJPY. Others."}
    assert core.status()["connected"] is True
    world.offers = ("EURUSD", "USDJPY")
    for _ in range(10):
        core.poll()
    assert core.status()["problems"] == {}
    assert core.tail("USDJPY", "H1", 1).num_rows == 1


def test_a_corrected_bar_is_a_revision_and_not_announced_again(tmp_path: Path) -> None:
    world = World()
    core = market_data(world, tmp_path)
    core.backfill(None)
    last = MONDAY.replace(hour=11, minute=0)
    world.closes["EURUSD", last] = 1.2
    world.now += timedelta(minutes=30)
    tables = core.poll()
    assert [table["open_time"].to_pylist() for table in tables] == [[last + timedelta(hours=1)]] * 2
    before_last = core.tail("EURUSD", "H1", 2).to_pylist()[0]
    assert (before_last["close"], before_last["revision"]) == (1.2, 1)


def test_a_corrupt_price_is_set_aside_and_the_next_bar_comes(tmp_path: Path) -> None:
    world = World()
    core = market_data(world, tmp_path)
    core.backfill(None)
    world.closes["EURUSD", MONDAY.replace(minute=0)] = 1100.0
    world.now += timedelta(minutes=30)
    assert [table["symbol"][0].as_py() for table in core.poll()] == ["USDJPY"]
    store = BarStore(tmp_path / "bars")
    assert store.quarantined()["reason"].to_pylist() == ["price_jump"]
    world.now += timedelta(hours=1)
    assert sorted(table["symbol"][0].as_py() for table in core.poll()) == ["EURUSD", "USDJPY"]
    assert store.quarantined().num_rows == 1
    assert max(store.read(["EURUSD"])["close"].to_pylist()) == 1.1


def test_a_recording_that_ended_is_asked_rarely_and_is_no_outage(tmp_path: Path) -> None:
    world = World()
    core = market_data(world, tmp_path, symbols=("EURUSD",))
    core.backfill(None)
    world.now += timedelta(days=1)
    world.closed_bars = lambda *given: world.asked.append(given) or empty_bars()  # type: ignore[method-assign, func-returns-value]
    world.asked.clear()
    for _ in range(40):
        world.now += timedelta(minutes=1)
        core.poll()
    assert 3 <= len(world.asked) <= 6
    assert core.status()["connected"] is True


def test_tails_longer_than_memory_come_from_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.market_data.MEMORY_BARS", 20)
    world = World()
    core = market_data(world, tmp_path)
    core.backfill(None)
    assert core.tail("EURUSD", "H1", 20).num_rows == 20
    assert core.tail("EURUSD", "H1", 50)["open_time"].to_pylist() == stored(tmp_path)[-50:]
    world.now += timedelta(hours=3)
    core.poll()
    assert core.tail("EURUSD", "H1", 20)["open_time"].to_pylist() == stored(tmp_path)[-20:]


class Far(World):
    def expect(self, questions: list[Question]) -> None:
        self.expected = questions
        self.asked.clear()


def test_a_source_far_away_hears_all_questions_before_the_first(tmp_path: Path) -> None:
    world = Far()
    core = market_data(world, tmp_path)
    core.backfill(None)
    world.now += timedelta(hours=1)
    assert len(core.poll()) == 2
    assert [(symbol, since, until) for symbol, _, since, until in world.expected] == world.asked


def test_a_source_that_is_not_asked_first_forgets_what_it_expected(tmp_path: Path) -> None:
    far, near = Far(), World()
    core = market_data(far, tmp_path, sources=[("ray", far), ("http", near)])
    core.backfill(None)
    far.now = near.now = far.now + timedelta(hours=1)
    far.away = True
    core.poll()
    far.expected = [("EURUSD", "H1", None, None)]
    core.poll()  # it rests
    assert far.expected == []


def test_status_before_anything_was_asked(tmp_path: Path) -> None:
    status = market_data(World(), tmp_path).status()
    assert (status["connected"], status["transport"], status["prices"]) == (False, "", {})
    assert status["reason"]


def test_a_source_that_is_a_little_ahead_gives_no_bar_that_has_not_closed_here(tmp_path: Path) -> None:
    """To it the bar that forms has closed already: its prices are not the last ones."""
    world, source = World(), World(now=MONDAY + timedelta(minutes=2))
    data = market_data(world, tmp_path, sources=[("ray", source)])
    data.backfill(None)
    world.now = MONDAY + timedelta(minutes=29)
    source.now = world.now + timedelta(minutes=2)
    assert data.poll() == []
    assert stored(tmp_path)[-1] == datetime(2022, 3, 14, 11, tzinfo=UTC)
    assert data.status()["connected"] is True
    world.now = source.now
    assert {bars["open_time"][0].as_py().hour for bars in data.poll()} == {12}
    assert stored(tmp_path) == expected(MONDAY - timedelta(days=10), world.now)


def test_a_source_that_is_far_ahead_is_named_and_not_believed(tmp_path: Path) -> None:
    world, source = World(), World()
    data = market_data(world, tmp_path, sources=[("ray", source)])
    data.backfill(None)
    source.now = MONDAY + timedelta(hours=2)
    world.now = MONDAY + timedelta(minutes=30)
    assert data.poll() == []
    assert "closes 1:00:00 after our now" in data.status()["problems"]["clock"]
    assert data.status()["connected"] is False
    source.now = world.now
    assert len(data.poll()) == 2
    assert (data.status()["connected"], data.status()["problems"]) == (True, {})


def test_a_store_that_takes_nothing_is_named_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    data = market_data(world, tmp_path)
    data.backfill(None)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("market.bar_store.write_deltalake", full)
        for _ in range(3):
            world.now += timedelta(hours=1)
            assert data.poll() == []
        assert "No space left on device" in data.status()["reason"]
        assert data.status()["connected"] is False
    assert sum(bars.num_rows for bars in data.poll()) == 6
    assert data.status()["connected"] is True
    assert stored(tmp_path) == expected(MONDAY - timedelta(days=10), world.now)
    assert data.tail("EURUSD", "H1", 9).num_rows == 9


def test_evidence_that_cannot_be_written_is_named_and_costs_no_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    data = market_data(world, tmp_path)
    data.backfill(None)
    before, writing = Coverage.beside(tmp_path / "bars").asked(("EURUSD", "H1")), Path.write_text

    def full(path: Path, text: str) -> None:
        writing(path, text[:7])  # what still fits
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        for _ in range(3):
            world.now += timedelta(hours=1)
            assert [bars.num_rows for bars in data.poll()] == [1, 1], "stored, and announced"
        status = data.status()
        assert "No space left on device" in status["problems"]["evidence"]
        assert (status["connected"], status["reason"]) == (True, "")
        assert list(tmp_path.glob("*.tmp")) == []
        assert Coverage.beside(tmp_path / "bars").asked(("EURUSD", "H1")) == before
    assert data.poll() == []
    assert data.status()["problems"] == {}
    written = Coverage.beside(tmp_path / "bars").asked(("EURUSD", "H1"))
    assert written == data._coverage.asked(("EURUSD", "H1")) != before
