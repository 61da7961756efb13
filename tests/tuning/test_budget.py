"""What fits into a run's wall, on a clock that only tells what it is told."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace
from math import inf

import psutil
import pytest

from tuning.budget import LEFT_OUT_FIRST, BudgetSpent, Costs, UnitCost, Wall, plan, within
from tuning.cross_validate import in_process
from tuning.distributed import process_pool
from tuning.presets import Boosting, Nets, Preset, Search

ALL = ("lightgbm", "xgboost", "lstm", "gru", "attention")
# One second a fold for a tree family; 1 + 0.1 a step for a net: 11 s at 100 steps, 3 s at 20.
COSTS = Costs(
    {f: UnitCost(0.0, 0.01) if f in ("lightgbm", "xgboost") else UnitCost(1.0, 0.1) for f in ALL},
    before=10.0,
    after=4.0,
    slots=2,
    folds=7,
)
PRESET = Preset("made", ALL, boosting=Boosting(trees=100), nets=Nets(steps=100, steps_warm=20))
# Two tree families on seven folds (burn-in, five, lockbox) and three chains of eight links: 85 s; the trees' final fit is in `after`.
NEEDED = 10 + 1.25 * (2 * 7 * 1 + 3 * (11 + 7 * 3)) / 2 + 1.25 * (1 + 4)


class Clock:
    def __init__(self) -> None:
        self.moment = 100.0

    def __call__(self) -> float:
        return self.moment


def test_a_wall_keeps_its_last_seconds_from_the_units():
    clock = Clock()
    wall = Wall(60.0, now=clock)
    wall.kept = 20.0
    clock.moment += 30
    assert (wall.left(), wall.seconds_left()) == (30.0, 10.0)
    half = wall.part(0.5)
    clock.moment += 16
    with pytest.raises(BudgetSpent, match="before the gate; the champion stays"):
        half.check("the gate")
    wall.check("the gate")
    assert not Wall(now=clock).finite
    assert Wall(now=clock).part(0.5).left() == inf


def test_no_unit_begins_behind_the_wall():
    clock, begun = Clock(), []
    wall = Wall(25.0, now=clock)

    def unit(number: int) -> int:
        begun.append(number)
        clock.moment += 10
        return number

    got = []
    with pytest.raises(BudgetSpent):
        got += within(in_process, wall)(unit, [(n,) for n in range(6)])
    assert begun == [0, 1, 2]
    clock.moment, begun[:] = 100.0, []
    assert list(within(in_process, wall)(unit, [(n,) for n in range(3)])) == [0, 1, 2], "the last one was done"


@pytest.mark.parametrize(
    ("left", "families", "steps", "said"),
    [
        (NEEDED, ALL, 100, ()),
        (70.0, ALL, 66, ("34 of the nets' 100 steps",)),
        # Even 40 and 8 steps of three nets need 10 + 1.25 * (14 + 3 * (5 + 7 * 1.8)) / 2 + 6.25 = 58 s.
        (57.6, ALL[:4], 75, ("attention: 58 s would be needed with it, 58 s were left", "25 of the nets' 100 steps")),
        (
            40.0,
            ("lightgbm", "xgboost", "gru"),
            45,
            (
                "attention: 58 s would be needed with it, 40 s were left",
                "lstm: 47 s would be needed with it, 40 s were left",
                "55 of the nets' 100 steps",
            ),
        ),
    ],
)
def test_steps_go_before_families(left: float, families: tuple[str, ...], steps: int, said: tuple[str, ...]):
    made = plan(PRESET, COSTS, left)
    assert (made.preset.families, made.preset.nets.steps, made.left_out) == (families, steps, said)


@pytest.mark.parametrize(
    ("left", "families"), [(30.0, ("lightgbm", "xgboost")), (21.0, ("lightgbm",)), (20.0, ()), (0.0, ())]
)
def test_families_go_in_the_stated_order(left: float, families: tuple[str, ...]):
    made = plan(PRESET, COSTS, left)
    assert made.preset.families == families
    assert [words.split(":")[0] for words in made.left_out] == [f for f in LEFT_OUT_FIRST if f not in families]


def test_the_search_goes_first():
    searching = replace(PRESET, search=Search(trials=20, share=0.8))
    trial = 1.25 * 3 * 35 / 2
    rich = plan(searching, COSTS, 1000.0)
    assert rich.search_seconds == 800.0
    assert rich.left_out == ()
    assert plan(searching, COSTS, NEEDED + 3 * trial + 1e-6).search_seconds == pytest.approx(3 * trial)
    poor = plan(searching, COSTS, NEEDED + 3 * trial - 1)
    assert poor.search_cut
    assert poor.search_seconds == 0.0
    assert poor.left_out == ("the search: 197 s would be needed, 196 s were left for it",)
    assert poor.preset.families == ALL


def test_what_is_kept_for_judging_and_the_final_fit():
    assert plan(PRESET, COSTS, 1000.0).kept == 1.25 * (1 + 4)
    assert plan(replace(PRESET, families=("lstm",)), COSTS, 1000.0).kept == 1.25 * 4, "its chain has it"


def pid(_: int) -> int:
    return os.getpid()


def never_returns() -> None:
    threading.Event().wait()


def test_a_unit_that_never_returns_is_killed_and_later_ones_run():
    left = [inf]
    with process_pool(1, lambda: left[0]) as here, process_pool(2, lambda: left[0]) as run_units:
        assert here is None
        assert run_units is not None
        workers = set(run_units(pid, [(n,) for n in range(4)]))
        left[0] = 0.3
        with pytest.raises(BudgetSpent, match="while never_returns ran; the champion stays"):
            list(run_units(never_returns, [()]))
        assert not any(psutil.pid_exists(worker) for worker in workers)
        left[0] = inf
        assert workers.isdisjoint(run_units(pid, [(0,)]))
    assert not multiprocessing.active_children()


def test_workers_end_with_a_parent_that_was_killed():
    script = """
        from tests.tuning.test_budget import never_returns, pid
        from tuning.distributed import process_pool
        if __name__ == "__main__":
            with process_pool(2) as run_units:
                print(next(iter(run_units(pid, [(0,)]))), flush=True)
                list(run_units(never_returns, [()]))
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert psutil.wait_procs([worker], timeout=20)[1] == []
