"""Forecasts that wait for the ledger's database: lines of a file on this machine's disk, in the order they were made.

A line says when it was written, by the wall clock and by the market's, and is signed over the line before it, so that it
proves later what it proves now: that the forecast was there before its outcome. Knows nothing about databases.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from actors.signed_chain import GENESIS, canonical, same, signature
from market.errors import LedgerError
from market.forecasts import Forecast, iso_utc

SPOOL_LIMIT = 20_000  # lines: 28 symbols of H1 for a month, of M15 for a week; some 80 MB


class SpoolFull(LedgerError): ...


@dataclass(frozen=True)
class SpooledForecast:
    """`body`: Forecast.record(). `spooled_at`: wall time, `market_time`: the market's, both as ISO text in UTC."""

    body: dict[str, Any]
    spooled_at: str
    market_time: str


class ForecastSpool:
    """One file with one owner. What `add` returned from is on the disk; a new life finds it there.

    A crash inside `add` leaves a last line without its end: it was never published and is cut off. From the first line
    that is not as it was written on, nothing is believed: those lines go into `<name>.refused`, and `refused` counts them.
    """

    def __init__(self, path: Path, key: str, limit: int = SPOOL_LIMIT) -> None:
        self._path, self._key, self.limit = path, key.encode(), limit
        self._waiting: deque[SpooledForecast] = deque()
        self._lines, self._last = 0, GENESIS  # in the file; written ones stay in it until all are
        self.refused = 0
        if path.exists():
            self._read()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, forecasts: Sequence[Forecast], wall: datetime, market_now: datetime) -> None:
        """All or none, on the disk when it returns. SpoolFull when there is no room, OSError as the disk says it."""
        if len(self._waiting) + len(forecasts) > self.limit:
            raise SpoolFull(
                f"The spool holds {len(self._waiting)} of at most {self.limit} forecasts.",
                hint="Bring the ledger's database back; they are written then, and forecasting goes on.",
            )
        spooled_at, market_time = str(iso_utc(wall)), str(iso_utc(market_now))
        number, last, lines = self._lines, self._last, []
        for forecast in forecasts:
            number += 1
            fields = {"n": number, "spooled_at": spooled_at, "market_time": market_time, "forecast": forecast.record()}
            link = self._link(last, fields)
            lines.append(canonical(fields | {"previous": last, "hash": link}) + "\n")
            last = link
        self._write("".join(lines).encode())
        self._waiting += (SpooledForecast(f.record(), spooled_at, market_time) for f in forecasts)
        self._lines, self._last = number, last

    def first(self, n: int) -> list[SpooledForecast]:
        """The oldest `n` that wait."""
        return [self._waiting[i] for i in range(min(n, len(self._waiting)))]

    def drop(self, n: int) -> None:
        """The oldest `n` are in the ledger. The file is emptied with the last of them; until then a crash repeats some."""
        for _ in range(n):
            self._waiting.popleft()
        if not self._waiting and self._lines:
            self._rewrite(b"")
            self._lines, self._last = 0, GENESIS

    def _link(self, previous: str, fields: dict[str, Any]) -> str:
        return signature(self._key, f"spool\n{previous}\n{canonical(fields)}")

    def _write(self, lines: bytes) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not self._path.exists()
        with self._path.open("ab") as file:
            start = file.tell()
            try:
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                os.ftruncate(file.fileno(), start)  # half a line would break the chain of the next ones
                raise
        if is_new:
            _sync_folder(self._path.parent)

    def _rewrite(self, content: bytes) -> None:
        temporary = self._path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)
        _sync_folder(self._path.parent)

    def _read(self) -> None:
        content = self._path.read_bytes()
        lines = content.split(b"\n")[:-1]  # what follows the last end of a line was never finished
        for line in lines:
            found = self._checked(line)
            if found is None:
                break
            self._waiting.append(found)
        good, bad = lines[: self._lines], lines[self._lines :]
        if bad:
            self.refused = len(bad)
            with self._path.with_suffix(".refused").open("ab") as file:
                file.write(b"\n".join(bad) + b"\n")
                file.flush()
                os.fsync(file.fileno())
        kept = b"".join(line + b"\n" for line in good)
        if kept != content:
            self._rewrite(kept)

    def _checked(self, line: bytes) -> SpooledForecast | None:
        """The next line if it is as it was written; moves the end of the chain."""
        try:
            said = json.loads(line)
            link, previous = said.pop("hash"), said.pop("previous")
            expected = self._link(self._last, said)
            if said["n"] != self._lines + 1 or previous != self._last or not same(link, expected):
                return None
            found = SpooledForecast(said["forecast"], said["spooled_at"], said["market_time"])
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        self._lines, self._last = self._lines + 1, expected
        return found


def _sync_folder(folder: Path) -> None:
    """A new name is on the disk only with its folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
