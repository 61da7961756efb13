"""The MT5 data API as a BarSource: the second way to the same bars when Ray's connection to the Windows host is down.

Speaks HTTP and Arrow; turns answers back into the errors they were. Does not know Ray.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
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
TRIES = 2  # after a 429, before the market counts as away
LONGEST_WAIT = 30.0  # seconds before each of them; both together are the window of the API's limit


class HttpBarSource:
    """`closed_bars`, `prices`, `ticks`, `health` over HTTP. Raises NodeDown when the host cannot be reached.

    `api_key`: the key, or where to read it; then a key that is refused is read again, so that it can be changed while we run.
    Long ranges are asked for in pieces. `ca`: a PEM file that is trusted for https instead of what the system trusts.
    `transport` stands in for the network in tests, `pause(seconds)` for the wait that a 429 asks for.
    """

    def __init__(
        self,
        url: str,
        api_key: str | Callable[[], str],
        *,
        ca: Path | None = None,
        timeout_seconds: float = 30.0,
        transport: httpx.BaseTransport | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise ConfigError(f"The data API's address {url!r} is not a URL.", hint="For example http://10.8.0.2:8001.")
        self._url, self._pause = url.rstrip("/"), pause
        self._read_key = api_key if callable(api_key) else lambda: api_key
        self._key = self._read_key()
        self._client = httpx.Client(
            base_url=self._url,
            timeout=httpx.Timeout(timeout_seconds, connect=5.0),
            transport=transport,
            trust_env=False,
            verify=_trust(ca),
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
        response = self._ask(path, parameters, accept)
        if response.status_code == 401 and (key := self._read_key()) != self._key:
            self._key = key
            response = self._ask(path, parameters, accept)
        for _ in range(TRIES):
            if response.status_code != 429:
                break
            self._pause(_wait(response))
            response = self._ask(path, parameters, accept)
        if response.status_code != 200:
            raise _error(response)
        return response

    def _ask(self, path: str, parameters: dict[str, str], accept: str) -> httpx.Response:
        try:
            return self._client.get(path, params=parameters, headers={"Accept": accept, "X-API-Key": self._key})
        except httpx.HTTPError as error:
            raise _unreachable(self._url, error) from None


def _trust(ca: Path | None) -> ssl.SSLContext | bool:
    if ca is None:
        return True
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"data_api_ca={str(ca)!r} holds no certificate that can be trusted: {error}.",
            hint="It is the data_api_cert.pem that `lstmc key certificate` made, or a CA's PEM file.",
        ) from None


def _wait(response: httpx.Response) -> float:
    """Seconds, as Retry-After says, within reason."""
    given = response.headers.get("retry-after", "")
    return min(float(given), LONGEST_WAIT) if given.isdigit() else 1.0


# OpenSSL's verify codes -> what a user can do about them.
_NEW_ONE = "Make a new one with `lstmc key certificate`, copy it to the API's host and start the API again."
_UNTRUSTED = ("is not one that is trusted here", "Let data_api_ca name the data_api_cert.pem of that host.")
_CERTIFICATE_PROBLEMS = {
    9: ("is not valid yet", "Is the clock of this machine, or of the one that made it, wrong?"),
    10: ("has expired", _NEW_ONE),
    18: _UNTRUSTED,
    19: _UNTRUSTED,
    20: _UNTRUSTED,
    21: _UNTRUSTED,
    62: ("is for another host name", "Use the name that it was made for in data_api_url, or make one for this name."),
    64: (
        "is for another address",
        "Use the address that it was made for in data_api_url, or make one for this address.",
    ),
}


def _unreachable(url: str, error: BaseException) -> NodeDown:
    """What failed below HTTP, in words: a certificate by its fault, anything else by its kind."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        what, hint = _CERTIFICATE_PROBLEMS.get(cause.verify_code, (f"is refused: {cause.verify_message}", _NEW_ONE))
        return NodeDown(f"The certificate of the MT5 data API at {url} {what}.", hint=hint)
    if isinstance(cause, ssl.SSLError):
        return NodeDown(
            f"The MT5 data API at {url} does not speak TLS as we do: {cause.reason or cause}.",
            hint="Has that host a certificate? Without one data_api_url begins with http://.",
        )
    hint = "Is the Windows host up, and the tunnel to it?"
    if isinstance(error, httpx.RemoteProtocolError | httpx.ReadError) and url.startswith("http:"):
        hint = "Is it the data API that listens there? One with a certificate is reached by https://."
    return NodeDown(f"The MT5 data API at {url} cannot be reached: {type(error).__name__}.", hint=hint)


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
