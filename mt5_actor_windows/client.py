"""The MT5 data API as a BarSource: the second way to the same bars when Ray's connection to the Windows host is down.

Speaks HTTP and Arrow; turns answers back into the errors they were. Does not know Ray.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import httpx
import pyarrow as pa

from market.bars import BAR_SCHEMA, empty_bars
from market.errors import BadTime, ConfigError, InputError, NodeDown, NotConnected, UnknownSymbol
from market.forecasts import parse_utc
from market.timeframes import Timeframe

ARROW = "application/vnd.apache.arrow.stream"
PIECE_BARS = 40_000  # below the API's limit for one answer


class HttpBarSource:
    """`closed_bars`, `prices`, `ticks`, `health` over HTTP. Raises NodeDown when the host cannot be reached.

    `transport` stands in for the network in tests. Long ranges are asked for in pieces.
    """

    def __init__(
        self,
        url: str,
        api_key: str,
        *,
        timeout_seconds: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise ConfigError(f"The data API's address {url!r} is not a URL.", hint="For example http://10.8.0.2:8001.")
        self._url = url.rstrip("/")
        timeout = httpx.Timeout(timeout_seconds, connect=5.0)
        self._client = httpx.Client(
            base_url=self._url, headers={"X-API-Key": api_key}, timeout=timeout, transport=transport, trust_env=False
        )

    def closed_bars(
        self, symbol: str, timeframe: str, since: datetime | None, until: datetime | None = None
    ) -> pa.Table:
        """Bars with `since < close_time <= until` in BAR_SCHEMA; `since` None: what one answer holds."""
        frame = Timeframe.parse(timeframe)
        path = f"/mt5/history/{symbol}/{frame.value}"
        start, pieces = since, [empty_bars()]
        end = self._end(since, until, frame)
        while start is not None and end is not None and end - start > frame.delta * PIECE_BARS:
            middle = start + frame.delta * PIECE_BARS
            pieces.append(self._bars(path, start, middle))
            start = middle
        pieces.append(self._bars(path, start, until))
        return pa.concat_tables(pieces).combine_chunks()

    def prices(self, symbols: Sequence[str]) -> list[dict[str, Any]]:
        if not symbols:
            return []
        prices = self._json("/mt5/prices", {"symbols": ",".join(symbols)})["prices"]
        return [price | {"time": parse_utc(price["time"]) if price["time"] else None} for price in prices]

    def ticks(self, symbol: str, since: datetime, until: datetime | None = None, limit: int = 10_000) -> pa.Table:
        given = {"from": _text(since), "to": _text(until), "limit": str(limit)}
        return _arrow(self._get(f"/mt5/ticks/{symbol}", given, accept=ARROW).content)

    def health(self) -> dict[str, Any]:
        """As the actor says it; a host that cannot be reached is `connected: False` with the reason."""
        try:
            found = self._json("/mt5/health", {})
        except (NodeDown, NotConnected) as error:
            return {"connected": False, "reason": str(error)}
        return found | {"now": parse_utc(found["now"])}

    def close(self) -> None:
        self._client.close()

    def _end(self, since: datetime | None, until: datetime | None, frame: Timeframe) -> datetime | None:
        """Where a range ends: the market's own now, which in a replay is years from ours, is asked only for long ones."""
        if until is not None or since is None or abs(datetime.now(UTC) - since) < frame.delta * PIECE_BARS:
            return until
        now: datetime = parse_utc(self._json("/mt5/health", {})["now"])
        return now

    def _bars(self, path: str, since: datetime | None, until: datetime | None) -> pa.Table:
        return _arrow(self._get(path, {"from": _text(since), "to": _text(until)}, accept=ARROW).content).cast(
            BAR_SCHEMA
        )

    def _json(self, path: str, given: dict[str, str | None]) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self._get(path, given).json()
        except ValueError:
            raise NotConnected("The data API's answer is not JSON.", hint="Is another service on its port?") from None
        return found

    def _get(self, path: str, given: dict[str, str | None], accept: str = "application/json") -> httpx.Response:
        parameters = {name: value for name, value in given.items() if value is not None}
        try:
            response = self._client.get(path, params=parameters, headers={"Accept": accept})
        except httpx.HTTPError as error:
            raise NodeDown(
                f"The MT5 data API at {self._url} cannot be reached: {type(error).__name__}.",
                hint="Is the Windows host up, and the tunnel to it?",
            ) from None
        if response.status_code != 200:
            raise _error(response)
        return response


def _arrow(content: bytes) -> pa.Table:
    try:
        with pa.ipc.open_stream(content) as reader:
            return reader.read_all()
    except pa.ArrowInvalid as error:
        raise NotConnected(
            f"The data API's answer is not Arrow: {error}.", hint="Is another service on its port?"
        ) from None


def _text(moment: datetime | None) -> str | None:
    if moment is not None and moment.tzinfo is None:
        raise BadTime(f"The time {moment.isoformat()} has no zone.", hint="Give aware times.")
    return None if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _error(response: httpx.Response) -> Exception:
    """The API's problem -> the error it was."""
    try:
        problem = response.json()
    except ValueError:
        problem = {}
    detail = str(problem.get("detail") or f"The data API answered {response.status_code}.")
    hint = str(problem.get("hint") or "")
    if (response.status_code == 404 and "symbol" in detail.lower()) or "does not offer" in detail:
        return UnknownSymbol(detail, hint=hint)
    if response.status_code == 400:
        return InputError(detail, hint=hint)
    return NotConnected(detail, hint=hint)
