"""The board's bytes, tags, stale flags and events, with an injected clock."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from market.timeframes import Timeframe
from serve_app.auth import Caller
from serve_app.board import Board
from serve_app.condition import stale_after
from serve_app.routes_stream import events
from serve_app.stream import QUEUE_LIMIT
from tests.serve_app.made_board import NOON, SYMBOLS, MadeMarket, SetClock


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def market() -> MadeMarket:
    return MadeMarket()


@pytest.fixture
def board(clock: SetClock, market: MadeMarket) -> Board:
    board = Board(clock.now, SYMBOLS, ("H1",), wall=lambda: 1_700_000_000.0, instance="x")
    board.apply(market.update())
    return board


def read(board: Board, key: str = "EURUSD/H1") -> dict[str, Any]:
    answer = board.forecast(key)
    assert answer is not None
    return orjson.loads(answer.body)


@pytest.mark.parametrize(
    ("as_of", "speed", "expected"),
    [
        (datetime(2026, 3, 4, 12, tzinfo=UTC), 1, datetime(2026, 3, 4, 13, 1, 15, tzinfo=UTC)),
        (datetime(2026, 3, 4, 12, tzinfo=UTC), 60, datetime(2026, 3, 4, 13, 16, tzinfo=UTC)),
        (
            datetime(2026, 3, 6, 22, tzinfo=UTC),
            1,
            datetime(2026, 3, 8, 22, 1, 15, tzinfo=UTC),
        ),  # over a weekend, DST begins
    ],
)
def test_stale_after_the_next_close_and_a_grace(as_of: datetime, speed: float, expected: datetime) -> None:
    board = Board(lambda: NOON, speed=speed)
    assert stale_after(as_of, Timeframe.H1, board.grace) == expected


def test_the_stale_flag_flips_by_the_clock_alone(board: Board, clock: SetClock) -> None:
    clock.moment = NOON + timedelta(hours=1, seconds=75)
    assert board.tick() == []
    assert read(board)["stale"] is False
    clock.advance(seconds=1)
    body = read(board)  # at the answer, without a tick
    assert (body["stale"], body["data_age_seconds"]) == (True, 3676)
    assert body["reason"] == "No bar has closed since 2026-03-04T12:00:00Z; the next was due at 2026-03-04T13:00:00Z."


def test_stale_names_a_source_that_is_away(board: Board, clock: SetClock, market: MadeMarket) -> None:
    clock.advance(hours=2)
    board.apply(market.update(source={"connected": False, "reason": "The mt5 node is down."}))
    assert "The market data source is not connected: The mt5 node is down." in read(board)["reason"]


def test_stale_says_when_a_recording_is_over(board: Board, clock: SetClock, market: MadeMarket) -> None:
    clock.advance(hours=2)
    board.apply(market.update(source={"connected": True, "reason": "The recording has been played to its end."}))
    assert read(board)["reason"].endswith("was due at 2026-03-04T13:00:00Z. The recording has been played to its end.")


def test_a_new_bar_ends_staleness(board: Board, clock: SetClock, market: MadeMarket) -> None:
    clock.advance(hours=1, minutes=10)
    assert read(board)["stale"] is True
    board.apply(market.close_a_bar())
    assert (read(board)["stale"], read(board)["reason"]) == (False, "")


def test_what_the_forecaster_calls_stale_stays_stale(board: Board, market: MadeMarket) -> None:
    update = market.update()
    update.forecasts["EURUSD/H1"] |= {"stale": True, "reason": "The model refused the bars."}
    board.apply(update)
    assert (read(board)["stale"], read(board)["reason"]) == (True, "The model refused the bars.")


def test_the_tag_follows_what_is_said_not_when(board: Board, clock: SetClock, market: MadeMarket) -> None:
    first = board.forecast("EURUSD/H1")
    clock.advance(minutes=5)
    later = board.forecast("EURUSD/H1")
    assert first is not None
    assert later is not None
    assert first.etag == later.etag
    assert first.body != later.body  # the age moved on
    board.apply(market.close_a_bar())
    newer = board.forecast("EURUSD/H1")
    assert newer is not None
    assert newer.etag != first.etag


def test_an_old_version_is_ignored_a_new_life_is_not(board: Board, market: MadeMarket) -> None:
    old = market.update()
    board.apply(market.close_a_bar())
    assert board.apply(old) is False
    assert read(board)["as_of"] == "2026-03-04T13:00:00Z"
    reborn = MadeMarket(started_at="2026-11-02T00:00:00Z", as_of=NOON + timedelta(hours=2))
    assert board.apply(reborn.update()) is True
    assert read(board)["as_of"] == "2026-03-04T14:00:00Z"


def test_a_forecast_that_cannot_be_rendered_stays_as_it_was(board: Board, market: MadeMarket) -> None:
    before = read(board, "USDJPY/H1")
    update = market.update()
    update.forecasts["USDJPY/H1"]["horizons"][0]["volatility"] = object()
    update.forecasts["EURUSD/H1"]["last_close"] = 1.5
    assert board.apply(update)
    assert read(board, "USDJPY/H1") == before
    assert read(board)["last_close"] == 1.5
    assert board.unrendered.startswith("The forecast of USDJPY/H1 cannot be rendered: TypeError")
    assert board.apply(market.update())
    assert board.unrendered == ""


def test_bars_are_merged_revised_and_bounded(clock: SetClock) -> None:
    board = Board(clock.now, bars_kept=3)
    market = MadeMarket(symbols=("EURUSD",))
    rows = [["2026-03-04T10:00:00Z", 1, 2, 0.5, 1.5], ["2026-03-04T11:00:00Z", 1.5, 2, 1, 1.2]]
    market.bars["EURUSD"] = rows
    board.apply(market.update())
    market.bars["EURUSD"] = [
        ["2026-03-04T11:00:00Z", 1.5, 2, 1, 1.3],
        *([f"2026-03-04T{h}:00:00Z", 1, 1, 1, 1] for h in (12, 13)),
    ]
    board.apply(market.update())
    assert [row[0][11:13] for row in board.bars("EURUSD/H1", 10)] == ["11", "12", "13"]
    assert board.bars("EURUSD/H1", 10)[0][4] == 1.3
    assert len(board.bars("EURUSD/H1", 2)) == 2


def test_a_missing_number_is_null(board: Board, market: MadeMarket) -> None:
    update = market.update()
    update.forecasts["EURUSD/H1"]["horizons"][0] |= {"volatility": None, "reason": "Too few bars."}
    board.apply(update)
    assert read(board)["horizons"][0]["volatility"] is None


# The stream


def parse(wire: bytes) -> tuple[str, str, dict[str, Any]]:
    fields = dict(line.split(": ", 1) for line in wire.decode().strip().split("\n"))
    return fields["event"], fields.get("id", ""), json.loads(fields["data"])


def caller(*scopes: str) -> Caller:
    return Caller("t", frozenset(scopes), expires_at=2e9)


async def collect(
    board: Board, n: int, *, scopes: tuple[str, ...] = ("read", "signals"), since: str = "", then: Any = None
) -> list[bytes]:
    """The first `n` events of a stream; `then` is called after the first."""
    stream, found = events(board, caller(*scopes), since, 0.01), []
    async for wire in stream:
        if wire.startswith(b"retry"):
            continue
        found.append(wire)
        if len(found) == 1 and then:
            then()
        if len(found) == n:
            break
    await stream.aclose()  # type: ignore[attr-defined]
    return found


def test_the_stream_starts_with_a_snapshot_and_goes_on_with_updates(board: Board, market: MadeMarket) -> None:
    first, second = asyncio.run(collect(board, 2, then=lambda: board.apply(market.close_a_bar())))
    kind, identity, body = parse(first)
    assert (kind, identity) == ("snapshot", "x-1")
    assert len(body["bars"]["EURUSD/H1"]) == 160
    kind, identity, body = parse(second)
    assert (kind, identity) == ("update", "x-2")
    assert [row[0] for row in body["bars"]["EURUSD/H1"]] == ["2026-03-04T13:00:00Z"]
    assert body["forecasts"]["EURUSD/H1"]["as_of"] == "2026-03-04T13:00:00Z"
    assert body["signals"]["GBPUSD/H1"]["side"] == "buy"
    assert board.subscriber_count == 0


def test_a_board_that_is_about_to_go_ends_its_streams(board: Board) -> None:
    async def listen() -> bytes:
        stream = events(board, caller("read"), "", 3600)
        assert [parse(wire)[0] for wire in [await anext(stream), await anext(stream)][1:]] == ["snapshot"]
        waiting = asyncio.ensure_future(anext(stream, b"the end"))
        await asyncio.sleep(0)  # it listens now, for an hour if need be
        board.end_streams()
        assert [wire async for wire in events(board, caller("read"), "", 3600)] == [b"retry: 2000\n\n"]
        return await asyncio.wait_for(waiting, 5)

    assert asyncio.run(listen()) == b"the end"
    assert board.subscriber_count == 0


def test_turning_stale_is_an_event(board: Board, clock: SetClock) -> None:
    def late() -> None:
        clock.advance(hours=2)
        board.tick()

    _, second = asyncio.run(collect(board, 2, then=late))
    assert {f["stale"] for f in parse(second)[2]["forecasts"].values()} == {True}


def test_signals_are_left_out_for_those_who_may_not_see_them(board: Board) -> None:
    (wire,) = asyncio.run(collect(board, 1, scopes=("read",)))
    assert "signals" not in parse(wire)[2]


def test_silence_is_broken_by_heartbeats(board: Board) -> None:
    beat = asyncio.run(collect(board, 2))[1]
    assert parse(beat)[0] == "heartbeat"
    assert parse(beat)[2]["market_time"] == "2026-03-04T12:00:20Z"


def test_a_listener_gets_what_it_missed(board: Board, market: MadeMarket) -> None:
    board.apply(market.close_a_bar())
    board.apply(market.close_a_bar())
    missed = asyncio.run(collect(board, 2, since="x-1"))
    assert [parse(wire)[:2] for wire in missed] == [("update", "x-2"), ("update", "x-3")]


@pytest.mark.parametrize("since", ["y-1", "x-99", "x-", "nonsense", "-1"])
def test_an_unknown_last_event_gives_a_snapshot(board: Board, since: str) -> None:
    (wire,) = asyncio.run(collect(board, 1, since=since))
    assert parse(wire)[0] == "snapshot"


def test_too_long_away_gives_a_snapshot(board: Board, market: MadeMarket) -> None:
    for _ in range(70):
        board.apply(market.update())
    (wire,) = asyncio.run(collect(board, 1, since="x-1"))
    assert parse(wire)[0] == "snapshot"


def test_a_slow_listener_costs_nothing_and_starts_over(board: Board, market: MadeMarket) -> None:
    def flood() -> None:
        for _ in range(QUEUE_LIMIT + 5):
            board.apply(market.update())

    first, second = asyncio.run(collect(board, 2, then=flood))
    assert (parse(first)[0], parse(second)[:2]) == ("snapshot", ("snapshot", f"x-{QUEUE_LIMIT + 6}"))


def test_the_stream_ends_with_the_token(board: Board) -> None:
    async def run() -> list[bytes]:
        return [wire async for wire in events(board, Caller("t", frozenset({"read"}), expires_at=0), "", 0.01)]

    assert asyncio.run(run()) == [b"retry: 2000\n\n"]


def test_a_thousand_listeners_cost_one_encoding(board: Board, market: MadeMarket) -> None:
    listeners = [board.subscribe(signals=True, last_event_id="x-1") for _ in range(1000)]
    board.apply(market.close_a_bar())
    taken = [listener.take() for listener in listeners]
    assert len({id(listener.body(event)) for listener, event in zip(listeners, taken, strict=True) if event}) == 1
    assert len({id(board.snapshot_event()) for _ in range(1000)}) == 1


def test_an_update_holds_what_changed_and_skill_once(board: Board, market: MadeMarket) -> None:
    update = market.update()
    update.skill["H1"][0]["live_n"] += 1  # with every bar
    update.forecasts["EURUSD/H1"]["last_close"] += 0.001
    listener = board.subscribe(signals=False, last_event_id="x-1")
    tag = board.forecast("GBPUSD/H1")
    board.apply(update)
    event = listener.take()
    assert event is not None
    body = parse(event.public)[2]
    assert set(body["forecasts"]) == {"EURUSD/H1"}
    assert "skill" not in body["forecasts"]["EURUSD/H1"]
    assert body["forecasts"]["EURUSD/H1"].items() <= read(board).items()
    assert body["skill"]["H1"][0]["live_n"] == 1
    assert board.forecast("GBPUSD/H1") != tag, "the answer to a question has the skill beside it"
