"""A started program with everything it starts in turn: its lines, whether it lives, and its end, with nothing left behind.

A process is known by pid and start time together, since pids are used again. Works on Windows and Linux alike.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path

import psutil

LOG_BYTES, LOG_FILES = 5_000_000, 3
PATIENCE_SECONDS = 3.0  # between asking and killing

Mark = tuple[int, float]  # pid, start time in epoch seconds


class ProgramTree:
    """Starts `command`. Its output goes to `log`, which is cut by size, and line by line through `is_up_line`: the first that
    it takes means that the program works. `record`: a file that keeps who is alive, so that a later life of ours can end
    what this one leaves behind when it is killed. `vital`: a part of a child's file name; when such a child has ended, so has the
    program, however long it takes to notice."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        is_up_line: Callable[[str], bool],
        record: Path,
        vital: str = "",
    ) -> None:
        end_left_behind(record)
        self._record, self._is_up_line, self._vital = record, is_up_line, vital
        self._lines: deque[str] = deque(maxlen=20)
        self.up = False
        self._process = subprocess.Popen(  # a pipe: under Wine Python cannot start on a file as its standard output
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(environment),
        )
        self._known: set[Mark] = set()
        self._vital_mark: Mark | None = None
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = RotatingFileHandler(log, maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8")
        self._reader = threading.Thread(target=self._read, name=f"lines of {log.stem}", daemon=True)
        self._reader.start()
        self._look()

    @property
    def last_line(self) -> str:
        return self._lines[-1] if self._lines else ""

    def ended(self) -> str | None:
        code = self._process.poll()
        if code is not None:
            return f"code {code}"
        self._look()
        lost = self._vital_mark is not None and _alive(self._vital_mark) is None
        return f"its {self._vital}" if lost else None

    def end(self) -> None:
        self._look()
        _end(self._known)
        self._process.kill()  # also where it could not be looked at
        self._process.wait()
        self._reader.join(timeout=5)
        self._log.close()
        self._record.unlink(missing_ok=True)

    def _look(self) -> None:
        """Who has been started meanwhile: once a parent is dead nobody can tell whose its children were."""
        before = len(self._known)
        with suppress(psutil.Error, OSError):
            root = psutil.Process(self._process.pid)
            for one in (root, *root.children(recursive=True)):
                with suppress(psutil.Error, OSError):
                    self._meet(one)
        if len(self._known) != before:
            self._record.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._record.with_suffix(".tmp")
            temporary.write_text(json.dumps(sorted(self._known)))
            temporary.replace(self._record)

    def _meet(self, process: psutil.Process) -> None:
        mark = (process.pid, process.create_time())
        self._known.add(mark)
        if self._vital and self._vital_mark is None:
            program = process.cmdline()[:1]  # the process's name would do, but cannot be read under Wine
            if program and self._vital in Path(program[0]).stem:
                self._vital_mark = mark

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for raw in stream:
                line = raw.decode(errors="replace").rstrip()
                if line:
                    self._lines.append(line)
                    self._log.emit(logging.makeLogRecord({"msg": line}))
                    self.up = self.up or self._is_up_line(line)


def end_left_behind(record: Path) -> int:
    """End what a killed life of ours has left running, by its record; returns how many it were."""
    try:
        marks = {(int(pid), float(started)) for pid, started in json.loads(record.read_text())}
    except (OSError, ValueError, TypeError):
        return 0
    ended = _end(marks)
    record.unlink(missing_ok=True)
    return ended


def _end(marks: Iterable[Mark]) -> int:
    alive = [process for mark in marks if (process := _alive(mark)) is not None and process.pid != os.getpid()]
    for process in alive:
        with suppress(psutil.Error, OSError):
            process.terminate()
    _, left = psutil.wait_procs(alive, timeout=PATIENCE_SECONDS)
    for process in left:
        with suppress(psutil.Error, OSError):
            process.kill()
    psutil.wait_procs(left, timeout=PATIENCE_SECONDS)
    return len(alive)


def _alive(mark: Mark) -> psutil.Process | None:
    with suppress(psutil.Error, OSError):
        process = psutil.Process(mark[0])
        if abs(process.create_time() - mark[1]) < 0.05 and process.status() != psutil.STATUS_ZOMBIE:
            return process
    return None
