"""A session in a process of its own: MetaTrader5 keeps the GIL while it waits, so only from outside can a wedged call end.

The parent asks over pipes, kills the child when a deadline passes, and starts another after a pause. Dictionaries and
Arrow cross the pipes, never pickles. Does not know which terminal the child reads.
"""

from __future__ import annotations

import importlib
import os
import queue
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from market.bars import BAR_SCHEMA, empty_bars
from market.errors import MarketUnavailable, NotConnected
from market.timeframes import Timeframe
from mt5_actor_windows.connection import BACKOFF_SECONDS
from mt5_actor_windows.session_wire import Frame, error_from, error_to, from_arrow, read_frame, to_arrow, write_frame

PIECE_BARS = 20_000  # asked for under one deadline
START_SECONDS = 60.0  # more, for the first answer: imports and the terminal's own start
ROOT = Path(__file__).resolve().parent.parent


class SessionProcess:
    """`closed_bars`, `prices`, `ticks`, `health` of the session that `factory` makes in a child process.

    `factory`: "module:function", called there with `given`. Raises what the session raises, and NotConnected when the
    child was killed, has ended, or is not to be started again yet. May be used from several threads; asks one at a time.
    """

    def __init__(
        self,
        factory: str,
        given: str,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        deadline_seconds: float = 75.0,
        start_seconds: float = START_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._factory, self._given, self._now = factory, given, now
        self._deadline, self._start_seconds = deadline_seconds, start_seconds
        self._monotonic, self._jitter = monotonic, jitter
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._starts, self._failures, self._retry_at, self._reason = 0, 0, float("-inf"), ""

    def closed_bars(
        self, symbol: str, timeframe: str | Timeframe, since: datetime | None, until: datetime | None = None
    ) -> pa.Table:
        """As Mt5Session's. A long range is asked for in pieces, each under its own deadline."""
        frame = timeframe if isinstance(timeframe, Timeframe) else Timeframe.parse(timeframe)
        asked, start, pieces = {"symbol": symbol, "timeframe": frame.value}, since, [empty_bars()]
        end, step = until or self._now(), frame.delta * PIECE_BARS
        while start is not None and end - start > step:
            pieces.append(self._table("closed_bars", asked | _range(start, start + step)))
            start += step
        pieces.append(self._table("closed_bars", asked | _range(start, until)))
        return pa.concat_tables([piece.cast(BAR_SCHEMA) for piece in pieces]).combine_chunks()

    def prices(self, symbols: Sequence[str]) -> list[dict[str, Any]]:
        found = self._ask("prices", {"symbols": list(symbols)}).value
        return [price | {"time": _moment(price["time"])} for price in found]

    def ticks(self, symbol: str, since: datetime, until: datetime | None = None, limit: int = 10_000) -> pa.Table:
        return self._table("ticks", {"symbol": symbol, "limit": limit} | _range(since, until))

    def health(self) -> dict[str, Any]:
        """As the session says it, and `session_process`: its pid and how often it was started. Never raises."""
        try:
            found: dict[str, Any] = self._ask("health", {}).value
            found["now"] = _moment(found["now"])
        except MarketUnavailable as error:
            found = {"connected": False, "reason": str(error), "now": self._now()}
        child = self._child
        return found | {"session_process": {"pid": child.pid if child else None, "starts": self._starts}}

    def close(self) -> None:
        with self._lock:
            if self._child is not None:
                self._child.end()
                self._child = None

    # -- inside

    def _table(self, method: str, asked: dict[str, Any]) -> pa.Table:
        return from_arrow(self._ask(method, asked).payload)

    def _ask(self, method: str, asked: dict[str, Any]) -> Frame:
        if not self._lock.acquire(timeout=self._deadline):
            raise NotConnected("Earlier questions still wait for the terminal.", hint="Restart it if this lasts.")
        try:
            answer = self._answer(Frame({"method": method, "asked": asked}))
        finally:
            self._lock.release()
        if "error" in answer.value:
            raise error_from(answer.value["error"])
        return Frame(answer.value.get("value"), answer.payload)

    def _answer(self, question: Frame) -> Frame:
        seconds = self._deadline
        if self._child is None:
            self._child = self._start()
            seconds += self._start_seconds
        try:
            answer = self._child.answer(question, seconds)
        except TimeoutError:
            self._lose(f"The terminal did not answer within {seconds:g} s; its process was killed.")
        except (OSError, EOFError):
            self._lose("The session's process ended.")
        self._failures = 0
        return answer

    def _start(self) -> _Child:
        if self._monotonic() < self._retry_at:
            raise NotConnected(f"No connection to the terminal: {self._reason}", hint="It is tried again by itself.")
        self._starts += 1
        return _Child(self._factory, self._given)

    def _lose(self, reason: str) -> None:
        if self._child is not None:
            self._child.kill()
        step = BACKOFF_SECONDS[min(self._failures, len(BACKOFF_SECONDS) - 1)]
        self._child, self._reason = None, reason
        self._retry_at = self._monotonic() + step * (0.8 + 0.4 * self._jitter())
        self._failures += 1
        raise NotConnected(reason, hint="It is started again by itself; restart the terminal if this lasts.")


class _Child:
    """The process and its pipes. A thread reads, since pipes have no deadline on Windows."""

    def __init__(self, factory: str, given: str) -> None:
        paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mt5_actor_windows.session_process", factory],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": paths},
        )
        self.pid = self._process.pid
        self._answers: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, name="mt5-session-answers", daemon=True).start()
        self._write(Frame({"given": given}))

    def answer(self, question: Frame, seconds: float) -> Frame:
        self._write(question)
        try:
            answer = self._answers.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError from None
        if answer is None:
            raise EOFError
        return answer

    def end(self) -> None:
        """Let it log off; a child that does not is killed."""
        self._hang_up()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        self.kill()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._hang_up()

    def _hang_up(self) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):  # what it has not read is lost with it
            self._process.stdin.close()

    def _write(self, frame: Frame) -> None:
        assert self._process.stdin is not None
        write_frame(self._process.stdin, frame)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            while True:
                try:
                    frame = read_frame(stream)
                except (OSError, ValueError):  # closed, or not ours
                    frame = None
                self._answers.put(frame)
                if frame is None:
                    return


def _range(since: datetime | None, until: datetime | None) -> dict[str, str | None]:
    texts = (None if moment is None else moment.isoformat() for moment in (since, until))
    return dict(zip(("since", "until"), texts, strict=True))


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


# -- the child


def serve(session: Any, questions: Any, answers: Any) -> None:
    """Answer until the questions end. `questions`, `answers`: binary streams."""
    while (question := read_frame(questions)) is not None:
        asked = question.value["asked"]
        for name in ("since", "until"):
            if name in asked:
                asked[name] = _moment(asked[name])
        try:
            found = getattr(session, question.value["method"])(**asked)
        except Exception as error:
            write_frame(answers, Frame({"error": error_to(error)}))
            continue
        is_table = isinstance(found, pa.Table)
        write_frame(answers, Frame({} if is_table else {"value": found}, to_arrow(found) if is_table else b""))


def main(factory: str) -> None:
    """`python -m mt5_actor_windows.session_process module:function`: questions on stdin, answers on stdout."""
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not look like an answer
    if sys.platform == "win32":
        import msvcrt

        msvcrt.setmode(questions.fileno(), os.O_BINARY)
        msvcrt.setmode(answers.fileno(), os.O_BINARY)
    first = read_frame(questions)
    if first is None:
        return
    module, _, function = factory.partition(":")
    try:
        session = getattr(importlib.import_module(module), function)(first.value["given"])
    except Exception as error:  # whoever asks is told why
        if read_frame(questions) is not None:
            write_frame(answers, Frame({"error": error_to(error)}))
        return
    try:
        serve(session, questions, answers)
    finally:
        session.close()


if __name__ == "__main__":
    main(sys.argv[1])
