"""What was asked of the sources and answered, per symbol and timeframe: the evidence behind every hole's classification.

Kept as one small JSON file beside the bars. Knows ranges of bar opens; does not know bars, sources or calendars.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

SETTLED = 2  # answers, apart in time, without a bar: it is not going to come
ENOUGH = 4  # after so many a backfill no longer asks for old holes
APART = timedelta(seconds=60)  # two answers closer together than this are one

Key = tuple[str, str]


@dataclass(frozen=True)
class Asked:
    """Opens in [start, end), epoch seconds, were asked for and answered `times` times, the last counted one at `at`."""

    start: int
    end: int
    times: int
    at: int


class Coverage:
    """Answered ranges and, where ticks were looked at, ranges proven to have none. `path` None keeps it in memory.

    A file that cannot be read counts as no evidence: everything is asked again, nothing is lost.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self._path = Path(path) if path is not None else None
        self._asked: dict[Key, list[Asked]] = {}
        self._silent: dict[Key, list[tuple[int, int]]] = {}
        self._reread: dict[Key, int] = {}  # how far back the walk through old bars has come, epoch seconds
        self.clock: dict[str, Any] = {}  # the source's clock when it last answered: rule, offset, what was found
        self.problem = ""  # why the file could not be written; what it lacks is in memory, and in the next try
        self._changed = False
        self._load()

    @classmethod
    def beside(cls, bars: Path) -> Coverage:
        """The coverage of the store at `bars`."""
        return cls(bars.with_name(bars.name + "_coverage.json"))

    def answered(self, key: Key, start: datetime, end: datetime, at: datetime, *, grew: bool) -> None:
        """A source answered for the opens in [start, end) at `at`. `grew`: with bars that an earlier answer for some of
        them lacked, so that the earlier answers were incomplete and count no more."""
        first, last, now = int(start.timestamp()), int(end.timestamp()), int(at.timestamp())
        if first < last:
            self._asked[key] = _joined(_counted(self._asked.get(key, []), first, last, now, grew))
            self._changed = True

    def silent(self, key: Key, opens: Sequence[int], seconds: int) -> None:
        """The source showed its ticks around these bars (opens, epoch seconds; their length) and there were none inside."""
        if len(opens):
            self._silent[key] = _merged([*self._silent.get(key, []), *((one, one + seconds) for one in opens)])
            self._changed = True

    def times(self, key: Key, opens: np.ndarray) -> np.ndarray:
        """How often each open (datetime64[s], [n]) was asked for and answered; 0 is never. [n] int"""
        pieces = self._asked.get(key, [])
        return _at(opens, [(p.start, p.end) for p in pieces], [p.times for p in pieces])

    def is_silent(self, key: Key, opens: np.ndarray) -> np.ndarray:
        """Whether each open lies in a range proven to be without ticks. [n] bool"""
        ranges = self._silent.get(key, [])
        return _at(opens, ranges, [1] * len(ranges)) > 0

    def asked(self, key: Key) -> list[Asked]:
        return list(self._asked.get(key, []))

    def save(self) -> None:
        """Write the file if anything changed: a temporary name, then renamed. Never raises; see `problem`."""
        if self._path is None or not self._changed:
            return
        content = {
            "asked": {"/".join(k): [[p.start, p.end, p.times, p.at] for p in v] for k, v in self._asked.items()},
            "silent": {"/".join(k): [list(pair) for pair in v] for k, v in self._silent.items()},
            "reread": {"/".join(k): second for k, second in self._reread.items()},
            "clock": self.clock,
        }
        temporary = self._path.with_name(f"{self._path.name}.{os.getpid()}.tmp")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(content))
            temporary.replace(self._path)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()
            self.problem = (
                f"What the source was asked cannot be written down ({error.strerror or error}): make room on the file "
                f"system of {self._path.parent}, or make it writable. It is written then; meanwhile a restart asks again."
            )
            return
        self.problem, self._changed = "", False

    def note_clock(self, found: dict[str, Any]) -> None:
        if found != self.clock:
            self.clock, self._changed = found, True

    def reread_down_to(self, key: Key) -> datetime | None:
        """Where the walk back through stored bars has come: those that open from here on have been asked for again."""
        second = self._reread.get(key)
        return None if second is None else datetime.fromtimestamp(second, UTC)

    def note_reread(self, key: Key, down_to: datetime) -> None:
        self._reread[key], self._changed = int(down_to.timestamp()), True

    def _load(self) -> None:
        if self._path is None or not self._path.exists():
            return
        try:
            content = json.loads(self._path.read_text())
            asked = {_key(name): [Asked(*map(int, p)) for p in v] for name, v in content["asked"].items()}
            silent = {_key(name): [(int(a), int(b)) for a, b in v] for name, v in content["silent"].items()}
            reread = {_key(name): int(second) for name, second in content.get("reread", {}).items()}
            clock = dict(content.get("clock") or {})
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return
        self._asked, self._silent, self._reread, self.clock = asked, silent, reread, clock


def _key(name: str) -> Key:
    symbol, frame = name.split("/")
    return symbol, frame


def _counted(pieces: list[Asked], start: int, end: int, now: int, grew: bool) -> list[Asked]:
    """Pieces after one more answer for [start, end): cut at its edges, counted inside, new where there was none."""
    found, reached = [], start
    for piece in pieces:
        a, b = max(piece.start, start), min(piece.end, end)
        if a >= b:
            found.append(piece)
            continue
        found += [Asked(piece.start, a, piece.times, piece.at), Asked(b, piece.end, piece.times, piece.at)]
        found += [Asked(reached, a, 1, now), _again(Asked(a, b, piece.times, piece.at), now, grew)]
        reached = b
    found.append(Asked(reached, end, 1, now))
    return sorted((piece for piece in found if piece.start < piece.end), key=lambda piece: piece.start)


def _again(piece: Asked, now: int, grew: bool) -> Asked:
    if grew:
        return Asked(piece.start, piece.end, 1, now)
    if now - piece.at < APART.total_seconds():
        return piece
    return Asked(piece.start, piece.end, min(piece.times + 1, ENOUGH), now)


def _joined(pieces: list[Asked]) -> list[Asked]:
    """Neighbours of one count become one piece, dated by the later, unless the date still decides what settles."""
    found: list[Asked] = []
    for piece in pieces:
        last = found[-1] if found else None
        same = last is not None and last.end == piece.start and last.times == piece.times
        if last is not None and same and (last.at == piece.at or piece.times >= SETTLED):
            found[-1] = Asked(last.start, piece.end, piece.times, max(last.at, piece.at))
        else:
            found.append(piece)
    return found


def _merged(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def _at(opens: np.ndarray, ranges: Sequence[tuple[int, int]], values: Sequence[int]) -> np.ndarray:
    """The value of the range (disjoint, ascending) that each open lies in, else 0. [n] int64"""
    seconds = np.asarray(opens).astype("datetime64[s]").astype(np.int64)
    if not ranges:
        return np.zeros(len(seconds), np.int64)
    edges = np.array(ranges, np.int64)
    place = np.searchsorted(edges[:, 0], seconds, side="right") - 1
    inside = (place >= 0) & (seconds < edges[np.maximum(place, 0), 1])
    return np.where(inside, np.array(values, np.int64)[np.maximum(place, 0)], 0)
