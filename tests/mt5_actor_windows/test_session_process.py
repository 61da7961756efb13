"""The session's own process: the same answers over pipes, and a terminal that holds the GIL is killed from outside."""

from __future__ import annotations

import io
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from market.errors import NotConnected, TerminalError, UnknownSymbol
from mt5_actor_windows import session_process
from mt5_actor_windows.session_process import SessionProcess, serve
from mt5_actor_windows.session_wire import Frame, error_from, error_to, read_frame, write_frame
from tests.mt5_actor_windows.child_sessions import make

NOW = datetime(2022, 3, 16, 14, 37, 50, tzinfo=UTC)
SINCE = datetime(2022, 3, 15, tzinfo=UTC)


class Owner:
    """A session's process with a hand-set clock for its backoff."""

    def __init__(self, folder: Path) -> None:
        self.wedge, self.seconds = folder / "wedged", 0.0
        self.given = json.dumps({"now": NOW.isoformat(), "wedged": str(self.wedge)})
        self.process = self.with_deadline(60.0)

    def with_deadline(self, seconds: float) -> SessionProcess:
        return SessionProcess(
            "tests.mt5_actor_windows.child_sessions:make",
            self.given,
            now=lambda: NOW,
            deadline_seconds=seconds,
            start_seconds=30.0,
            monotonic=lambda: self.seconds,
            jitter=lambda: 0.5,
        )


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Owner]:
    one = Owner(tmp_path)
    yield one
    one.process.close()


def test_the_answers_are_those_of_the_session(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    here = make(owner.given)
    whole = owner.process.closed_bars("EURUSD", "H1", SINCE)
    assert whole.drop_columns(["received_at"]).equals(
        here.closed_bars("EURUSD", "H1", SINCE).drop_columns(["received_at"])
    )
    assert owner.process.prices(["EURUSD", "USDJPY"]) == here.prices(["EURUSD", "USDJPY"])
    assert owner.process.ticks("EURUSD", SINCE, limit=5).equals(here.ticks("EURUSD", SINCE, limit=5))
    health = owner.process.health()
    pid = health.pop("session_process")["pid"]
    assert health == here.health()
    assert pid != os.getpid()
    monkeypatch.setattr(session_process, "PIECE_BARS", 7)
    in_pieces = owner.process.closed_bars("EURUSD", "H1", SINCE)
    assert in_pieces.drop_columns(["received_at"]).equals(whole.drop_columns(["received_at"]))
    with pytest.raises(UnknownSymbol, match="does not offer GBPUSD"):
        owner.process.closed_bars("GBPUSD", "H1", SINCE)
    owner.process.close()
    assert not psutil.pid_exists(pid)


def test_a_wedged_terminal_is_killed_and_started_again(owner: Owner) -> None:
    """The child's interpreter stands still in the call, as in MetaTrader5's: nothing inside it could end the wait."""
    impatient = owner.with_deadline(1.0)
    owner.wedge.touch()
    assert impatient.health()["connected"] is True
    pid = impatient.health()["session_process"]["pid"]
    started = time.monotonic()
    with pytest.raises(NotConnected, match=r"did not answer within 1 s; its process was killed"):
        impatient.closed_bars("EURUSD", "H1", SINCE)
    assert time.monotonic() - started < 10
    assert not psutil.pid_exists(pid)
    with pytest.raises(NotConnected, match="tried again by itself"):
        impatient.prices(["EURUSD"])
    owner.wedge.unlink()
    owner.seconds += 1.1
    assert impatient.closed_bars("EURUSD", "H1", SINCE).num_rows == 38
    assert impatient.health()["session_process"]["starts"] == 2
    impatient.close()


def test_a_process_that_died_is_started_again(owner: Owner) -> None:
    os.kill(owner.process.health()["session_process"]["pid"], signal.SIGKILL)
    with pytest.raises(NotConnected, match="process ended"):
        owner.process.prices(["EURUSD"])
    health = owner.process.health()
    assert (health["connected"], health["session_process"]["pid"]) == (False, None)
    owner.seconds += 1.1
    assert owner.process.prices(["EURUSD"])[0]["bid"] is not None


def test_a_session_that_cannot_be_made_is_no_connection(tmp_path: Path) -> None:
    broken = SessionProcess("tests.mt5_actor_windows.child_sessions:nothing_here", "{}")
    with pytest.raises(NotConnected, match="no attribute 'nothing_here'"):
        broken.prices(["EURUSD"])
    with pytest.raises(NotConnected, match="process ended"):
        broken.prices(["EURUSD"])


class Scripted:
    """A session of which each method raises what it is told to."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def prices(self, symbols: list[str]) -> Any:
        raise self.error


@pytest.mark.parametrize(
    ("raised", "kind", "text"),
    [
        (TerminalError(-1, "Terminal: Call failed", hint="h"), TerminalError, "-1"),
        (UnknownSymbol("none such", hint="h"), UnknownSymbol, "none such"),
        (AttributeError("bid"), NotConnected, "AttributeError: bid"),
    ],
)
def test_errors_cross_the_pipe(raised: Exception, kind: type, text: str) -> None:
    questions, answers = io.BytesIO(), io.BytesIO()
    write_frame(questions, Frame({"method": "prices", "asked": {"symbols": []}}))
    serve(Scripted(raised), io.BytesIO(questions.getvalue()), answers)
    answer = read_frame(io.BytesIO(answers.getvalue()))
    assert answer is not None
    error = error_from(answer.value["error"])
    assert type(error) is kind
    assert text in str(error)
    assert error_to(error) == answer.value["error"]


@pytest.mark.parametrize("kept", [0, 3, 8, 12])
def test_a_frame_that_was_cut_off_is_the_end(kept: int) -> None:
    stream = io.BytesIO()
    write_frame(stream, Frame({"n": 1}, b"payload"))
    assert read_frame(io.BytesIO(stream.getvalue())) == Frame({"n": 1}, b"payload")
    assert read_frame(io.BytesIO(stream.getvalue()[:kept])) is None


def test_only_plain_values_cross(owner: Owner) -> None:
    refused: Callable[[], None] = lambda: write_frame(io.BytesIO(), Frame({"x": timedelta(1)}))  # noqa: E731
    with pytest.raises(TypeError, match="timedelta does not cross"):
        refused()
