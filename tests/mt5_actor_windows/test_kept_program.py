"""A kept program: up, ended, too slow, not to be started at all; by an injected clock."""

from __future__ import annotations

from mt5_actor_windows.kept_program import PAUSES, STEADY_SECONDS, KeptProgram


class Fake:
    """A program that does what the test says."""

    def __init__(self) -> None:
        self.up, self.last_line, self.end_word, self.was_ended = False, "", "", False

    def ended(self) -> str | None:
        return self.end_word or None

    def end(self) -> None:
        self.was_ended = True


class Bench:
    """One kept program, its clock, and what it started and said."""

    def __init__(self, refuse: bool = False) -> None:
        self.now, self.refuse = 0.0, refuse
        self.started: list[Fake] = []
        self.said: list[str] = []
        self.kept = KeptProgram(
            "the node", self._start, self.said.append, start_seconds=75, monotonic=lambda: self.now, jitter=lambda: 0.5
        )

    def _start(self) -> Fake:
        if self.refuse:
            raise OSError("no such program")
        self.started.append(Fake())
        return self.started[-1]

    def step(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.kept.step()


def test_it_is_started_and_said_to_be_up_once() -> None:
    bench = Bench()
    bench.step()
    assert bench.kept.is_first_start
    bench.started[0].up = True
    bench.step(20)
    bench.step(1)
    assert bench.said == ["the node is up after 20 s"]
    assert bench.kept.is_up
    assert not bench.kept.is_first_start


def test_one_that_ends_is_started_again_after_a_pause_and_its_last_line_is_told() -> None:
    bench = Bench()
    bench.step()
    bench.started[0].end_word, bench.started[0].last_line = "its raylet", "Timed out waiting for file"
    bench.step(16)
    assert bench.started[0].was_ended  # whatever is left of it
    assert bench.said == [
        "the node ended with its raylet after 16 s; it is started again in 3 s: Timed out waiting for file"
    ]
    bench.step(PAUSES[0] - 0.1)
    assert len(bench.started) == 1
    bench.step(0.2)
    assert len(bench.started) == 2


def test_one_that_does_not_come_up_is_ended_and_started_again() -> None:
    bench = Bench()
    bench.step()
    bench.step(75)
    assert not bench.started[0].was_ended
    bench.step(1)
    assert bench.started[0].was_ended
    assert bench.said == ["the node is not up after 76 s; it is started again in 3 s"]


def test_pauses_grow_and_a_steady_run_forgets_old_trouble() -> None:
    bench = Bench(refuse=True)
    for pause in (*PAUSES, PAUSES[-1]):
        bench.step()
        assert (
            bench.said[-1] == f"the node could not be started (no such program); it is started again in {pause:.0f} s"
        )
        bench.now += pause
    bench.refuse = False
    bench.step()
    bench.started[0].up = True
    bench.step(1)
    bench.step(STEADY_SECONDS + 1)
    bench.started[0].end_word = "code 1"
    bench.step()
    assert f"again in {PAUSES[0]:.0f} s" in bench.said[-1]


def test_end_ends_what_runs() -> None:
    bench = Bench()
    bench.step()
    bench.kept.end()
    assert bench.started[0].was_ended
    assert not bench.kept.is_up
