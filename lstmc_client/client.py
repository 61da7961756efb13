"""The HTTP API as a Python object: Client("http://127.0.0.1:8000", token).prediction("EURUSD").

Needs httpx, pandas and pyarrow, and nothing else of LSTMC.
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from functools import partial
from typing import Any, Self
from urllib.parse import quote as quote_url

import httpx
import pandas as pd  # type: ignore[import-untyped]
import pyarrow as pa

from lstmc_client.answers import Model, Prediction, Predictions, Signal, Status, skill_cards
from lstmc_client.errors import ApiError, LstmcClientError, Unreachable, error_of
from lstmc_client.events import Event, EventReader

JSON, ARROW = "application/json", "application/vnd.apache.arrow.stream"
quote = partial(quote_url, safe="")
KEPT = 128  # answers
PAGE = 1000  # forecasts
SILENCE_SECONDS = 45.0  # a heartbeat is due every 15


class Client:
    """One connection pool and a memory of answers: what has not changed costs a 304. Not for several threads at once.

    `patience`: seconds that one call may wait in all where the API says 429 or 503, as long as each Retry-After tells.
    Every call raises an `lstmc_client.errors.LstmcClientError`.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        patience: float = 60.0,
        timeout: float = 10.0,
        sleep: Callable[[float], None] = time.sleep,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout, transport=transport)
        self._patience, self._sleep = patience, sleep
        self._kept: OrderedDict[tuple[str, str], httpx.Response] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def prediction(self, symbol: str, timeframe: str | None = None, *, model: str | None = None) -> Prediction:
        """The newest forecast; of any `model` of the registry by its id, made on demand: see `on_demand`, `recorded`."""
        asked = {"timeframe": timeframe, "model": model}
        return Prediction.of(self._json(f"/api/v1/predictions/{quote(symbol)}", **asked))

    def predictions(self, timeframe: str | None = None) -> Predictions:
        said = self._json("/api/v1/forex/all", timeframe=timeframe)
        return Predictions({f["symbol"]: Prediction.of(f) for f in said["forecasts"]}, said["missing"])

    def signals(self, timeframe: str | None = None) -> dict[str, Signal]:
        said = self._json("/api/v1/signals", timeframe=timeframe)
        return {signal["symbol"]: Signal.of(signal) for signal in said["signals"]}

    def model(self, symbol: str, timeframe: str | None = None) -> Model:
        return Model.of(self._json(f"/api/v1/models/{quote(symbol)}", timeframe=timeframe)["model"])

    def status(self) -> Status:
        return Status.of(self._json("/api/v1/status"))

    def skill(self, timeframe: str | None = None) -> pd.DataFrame:
        """One row per target and metric, with aware times."""
        cards = skill_cards(self._json("/api/v1/skill", timeframe=timeframe)["skill"])
        return pd.DataFrame([asdict(card) for card in cards])

    def bars(self, symbol: str, timeframe: str | None = None, *, limit: int = 240) -> pd.DataFrame:
        """The newest closed bars, oldest first, by `close_time`."""
        answer = self._get(f"/api/v1/bars/{quote(symbol)}", ARROW, timeframe=timeframe, limit=limit)
        return _table(answer).to_pandas().set_index("close_time")

    def history(
        self,
        symbol: str,
        timeframe: str | None = None,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> pd.DataFrame:
        """Past forecasts as of [since, until), newest first, one row per horizon, beside what happened (null: not known yet).

        Reads page after page until `limit` forecasts; all of them without one."""
        if limit is not None and limit < 1:
            raise ValueError(f"limit={limit}: ask for at least one forecast.")
        page, left, tables = min(limit or PAGE, PAGE), limit, list[pa.Table]()
        asked = {"timeframe": timeframe, "from": _iso(since), "to": _iso(until), "limit": page}
        answer = self._get(f"/api/v1/predictions/{quote(symbol)}/history", ARROW, **asked)
        while True:
            tables.append(_table(answer))
            left = None if left is None else left - len(tables[-1]["seq"].unique())
            if "next" not in answer.links or left == 0:
                return pa.concat_tables(tables).to_pandas()
            following = httpx.URL(answer.links["next"]["url"])
            answer = self._get(str(following.copy_set_param("limit", min(page, left or page))), ARROW)

    def stream(self, *, heartbeats: bool = False) -> Iterator[Event]:
        """First a snapshot, then what changes, for as long as the token is good. A break is mended without a gap: the API
        is told the last event that was seen. Raises after `patience` seconds of waiting between breaks in a row."""
        reader, waited = EventReader(), 0.0
        while True:
            trouble: LstmcClientError
            try:
                with self._listen(reader.last_id) as answer:
                    for event in reader.read(answer.iter_lines()):
                        waited = 0.0
                        if heartbeats or event.kind != "heartbeat":
                            yield event
                trouble = Unreachable("The stream ends again and again.", hint="See the log of the API.")
            except httpx.HTTPError as error:
                trouble = self._unreachable(error)
            except ApiError as error:
                trouble = error
            wait = trouble.retry_after if isinstance(trouble, ApiError) else reader.retry_seconds
            waited += self._wait(wait, waited, trouble)

    @contextmanager
    def _listen(self, last_id: str) -> Iterator[httpx.Response]:
        timeout = httpx.Timeout(self._http.timeout.connect, read=SILENCE_SECONDS)
        headers = {"Last-Event-ID": last_id} if last_id else {}
        with self._http.stream("GET", "/api/v1/stream", headers=headers, timeout=timeout) as answer:
            if answer.status_code != 200:
                answer.read()
                raise error_of(answer)
            yield answer

    def _json(self, path: str, **asked: Any) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(self._get(path, JSON, **asked).content)
        return said

    def _get(self, path: str, accept: str, **asked: Any) -> httpx.Response:
        """The answer, from memory when the API says 304; waits where it is told to."""
        params = {name: value for name, value in asked.items() if value is not None}
        request = self._http.build_request("GET", path, params=params or None, headers={"Accept": accept})
        known = self._kept.get(key := (str(request.url), accept))
        if known is not None:
            request.headers["If-None-Match"] = known.headers["etag"]
        waited = 0.0
        while True:
            try:
                answer = self._send(request)
            except httpx.HTTPError as error:
                raise self._unreachable(error) from error
            if answer.status_code == 304 and known is not None:
                self._kept.move_to_end(key)
                return known
            if answer.status_code == 200:
                self._keep(key, answer)
                return answer
            trouble = error_of(answer)
            waited += self._wait(trouble.retry_after, waited, trouble)

    def _send(self, request: httpx.Request) -> httpx.Response:
        try:
            return self._http.send(request)
        except httpx.RemoteProtocolError:  # a kept connection was closed meanwhile, as a reloaded nginx does
            return self._http.send(request)

    def _wait(self, seconds: float | None, waited: float, trouble: LstmcClientError) -> float:
        """Sleep and return how long; `trouble` when that does not help or would be too long in all."""
        if seconds is None or waited + seconds > self._patience:
            raise trouble
        self._sleep(seconds)
        return seconds

    def _keep(self, key: tuple[str, str], answer: httpx.Response) -> None:
        if "etag" in answer.headers:
            self._kept[key] = answer
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)

    def _unreachable(self, error: httpx.HTTPError) -> Unreachable:
        cause = str(error) or type(error).__name__
        return Unreachable(
            f"{self._http.base_url} does not answer: {cause}.", hint="Is it running, and the address right?"
        )


def _table(answer: httpx.Response) -> pa.Table:
    return pa.ipc.open_stream(answer.content).read_all()


def _iso(moment: datetime | None) -> str | None:
    """ValueError for a time without a zone: nobody could tell which moment it is."""
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise ValueError(f"{moment} has no zone; write datetime(..., tzinfo=UTC).")
    return moment.isoformat()
