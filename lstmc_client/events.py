"""Server-sent events out of lines of text, as the HTML standard has them. Knows no HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from lstmc_client.answers import Prediction, Signal, utc


@dataclass(frozen=True)
class Event:
    """`kind` is snapshot, update or heartbeat. Keys are like "EURUSD/H1"; an update holds only what changed."""

    kind: str
    id: str
    data: dict[str, Any]

    @property
    def market_time(self) -> datetime:
        return utc(self.data["market_time"])

    @cached_property
    def predictions(self) -> dict[str, Prediction]:
        pooled = self.data.get("skill", {})  # once an event, not once a symbol
        found = self.data.get("forecasts", {})
        return {key: Prediction.of({"skill": pooled.get(said["timeframe"], ()), **said}) for key, said in found.items()}

    @cached_property
    def signals(self) -> dict[str, Signal]:
        """Empty when the token lacks the scope `signals`."""
        return {key: Signal.of(said) for key, said in self.data.get("signals", {}).items()}


@dataclass
class EventReader:
    """`last_id` and `retry_seconds` are what a listener needs to go on after a break."""

    last_id: str = ""
    retry_seconds: float = 2.0

    def read(self, lines: Iterable[str]) -> Iterator[Event]:
        """The events of one connection; one that was cut off in the middle is dropped."""
        kind, identity, data = "", self.last_id, list[str]()
        for line in lines:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if not line:
                self.last_id = identity  # not before the event is whole, or a break would lose it
                if data:
                    yield Event(kind or "message", self.last_id, json.loads("\n".join(data)))
                kind, data = "", []
            elif name == "event":
                kind = value
            elif name == "data":
                data.append(value)
            elif name == "id":
                identity = value
            elif name == "retry" and value.isdecimal():
                self.retry_seconds = int(value) / 1000
