"""The board follows the forecaster through pushes, gaps, restarts and silence."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from market.forecasts import BoardUpdate
from serve_app.board import Board
from serve_app.follower import Follower
from tests.serve_app.made_board import NOON, MadeMarket, SetClock
from tests.virtual_time import run


class Forecaster:
    """Answers pulls like the real one: everything, or what changed since a version; counts and can be away."""

    def __init__(self, market: MadeMarket) -> None:
        self.board: BoardUpdate = market.update()
        self.asked: list[int | None] = []
        self.away = False

    async def pull(self, since: int | None) -> BoardUpdate:
        self.asked.append(since)
        if self.away:
            raise ConnectionError("the actor is restarting")
        return self.board if since != self.board.version else replace(self.board, forecasts={}, signals={}, bars={})


@pytest.fixture
def market() -> MadeMarket:
    return MadeMarket()


@pytest.fixture
def forecaster(market: MadeMarket) -> Forecaster:
    return Forecaster(market)


@pytest.fixture
def board() -> Board:
    return Board(SetClock().now)


@pytest.fixture
def follower(board: Board, forecaster: Forecaster) -> Follower:
    return Follower(board, forecaster.pull)


def as_of(board: Board) -> str:
    return board.update.forecasts["EURUSD/H1"]["as_of"]


def test_a_new_replica_pulls_everything(follower: Follower, board: Board, forecaster: Forecaster) -> None:
    assert asyncio.run(follower.catch_up()) is True
    assert (board.ready, forecaster.asked, follower.problem) == (True, [None], "")


def test_nothing_new_changes_nothing(follower: Follower, forecaster: Forecaster) -> None:
    asyncio.run(follower.catch_up())
    assert asyncio.run(follower.catch_up()) is False
    assert forecaster.asked == [None, 1]


def test_a_push_that_follows_is_applied_without_asking(
    follower: Follower, board: Board, market: MadeMarket, forecaster: Forecaster
) -> None:
    asyncio.run(follower.catch_up())
    assert follower.take(market.close_a_bar()) is True
    assert (as_of(board), forecaster.asked) == ("2026-03-04T13:00:00Z", [None])


def test_a_gap_is_pulled_not_papered_over(
    follower: Follower, board: Board, market: MadeMarket, forecaster: Forecaster
) -> None:
    asyncio.run(follower.catch_up())
    market.close_a_bar()  # this push is lost
    forecaster.board = market.close_a_bar()
    only_gbp = replace(forecaster.board, forecasts={"GBPUSD/H1": forecaster.board.forecasts["GBPUSD/H1"]})

    async def run() -> None:
        following = asyncio.create_task(follower.forever())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert follower.take(only_gbp) is False
        while as_of(board) != "2026-03-04T14:00:00Z":
            await asyncio.sleep(0)
        following.cancel()

    asyncio.run(asyncio.wait_for(run(), 5))


def test_a_forecaster_born_again_is_read_whole(follower: Follower, board: Board, forecaster: Forecaster) -> None:
    asyncio.run(follower.catch_up())
    reborn = MadeMarket(started_at="2026-11-09T00:00:00Z", as_of=NOON + timedelta(hours=4))
    forecaster.board = reborn.update()
    assert asyncio.run(follower.catch_up()) is True
    assert (as_of(board), forecaster.asked) == ("2026-03-04T16:00:00Z", [None, 1, None])


def test_a_forecaster_that_is_away_is_a_reason_not_an_error(
    follower: Follower, board: Board, forecaster: Forecaster
) -> None:
    asyncio.run(follower.catch_up())
    forecaster.away = True
    assert asyncio.run(follower.catch_up()) is False
    assert follower.problem == "ConnectionError: the actor is restarting"
    assert board.ready  # what is known stays served, and turns stale by the clock
    forecaster.away = False
    asyncio.run(follower.catch_up())
    assert follower.problem == ""


def test_an_update_that_cannot_be_read_is_a_reason_too(
    follower: Follower, board: Board, market: MadeMarket, forecaster: Forecaster
) -> None:
    asyncio.run(follower.catch_up())
    good = market.close_a_bar()
    board.wall = lambda: 1_772_625_600.0  # an answer says when it was served
    before = board.forecast("EURUSD/H1")
    forecaster.board = replace(good, forecasts={"EURUSD/H1": {"as_of": None}})
    assert asyncio.run(follower.catch_up()) is True
    assert follower.problem.startswith("The forecast of EURUSD/H1 cannot be rendered")
    assert board.forecast("EURUSD/H1") == before
    forecaster.board = replace(good, version=good.version + 1)
    assert asyncio.run(follower.catch_up()) is True
    assert follower.problem == ""


def test_a_new_replica_is_filled_by_another_while_the_forecaster_is_slow(board: Board, market: MadeMarket) -> None:
    update = market.update()

    async def slow(_: int | None) -> BoardUpdate:
        await asyncio.sleep(3600)
        raise AssertionError("never")

    async def sibling() -> BoardUpdate | None:
        return update

    assert run(Follower(board, slow).fill(sibling)) is True
    assert board.ready


def test_a_new_replica_waits_for_a_forecaster_that_starts_again(
    follower: Follower, board: Board, forecaster: Forecaster
) -> None:
    forecaster.away = True

    async def nobody() -> BoardUpdate | None:
        forecaster.away = len(forecaster.asked) < 3
        raise ConnectionError("no other replica")

    assert run(follower.fill(nobody)) is True
    assert (board.ready, forecaster.asked) == (True, [None] * 4)


def test_the_first_replica_does_not_wait_for_ever(board: Board) -> None:
    async def away(_: int | None) -> BoardUpdate:
        raise ConnectionError("away")

    async def nobody() -> BoardUpdate | None:
        await asyncio.sleep(3600)
        return None

    assert run(Follower(board, away).fill(nobody)) is False
