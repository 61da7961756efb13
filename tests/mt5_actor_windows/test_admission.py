"""In front of the routes: the minute of each key, strangers who guess, and what every answer carries."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from mt5_actor_windows.admission import Admission, network_of
from mt5_actor_windows.api_keys import PLAIN_VARIABLE, KeyRing, issue, revoke
from mt5_actor_windows.data_api import create_app
from mt5_actor_windows.problem import Problem


class Terminal:
    """A source that says of itself what it is asked."""

    def health(self) -> dict[str, Any]:
        return {"connected": True, "reason": ""}

    def prices(self, symbols: list[str]) -> list[dict[str, Any]]:
        if symbols == ["XAUUSD"]:
            raise RuntimeError("a fault nobody foresaw: with a secret in its text")
        return [{"symbol": symbol, "bid": 1.0, "reason": ""} for symbol in symbols]


class Minute:
    """Wall time by hand, as `limits` reads it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000_000.0
        monkeypatch.setattr(time, "time", lambda: self.now)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(PLAIN_VARIABLE, raising=False)
    return tmp_path


@pytest.fixture
def minute(monkeypatch: pytest.MonkeyPatch) -> Minute:
    return Minute(monkeypatch)


def app_of(home: Path, per_minute: int = 1200, failures: int = 30) -> FastAPI:
    return create_app(Terminal(), Admission(KeyRing(home), per_minute, failures))  # type: ignore[arg-type]


def ask(
    app: FastAPI,
    key: str | bytes,
    path: str = "/mt5/health",
    *,
    method: str = "GET",
    address: str = "10.8.0.9",
    **headers: str,
) -> httpx.Response:
    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app, client=(address, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
            given: Any = {"X-API-Key": key} | {name.replace("_", "-"): text for name, text in headers.items()}
            return await client.request(method, path, headers=given)

    return asyncio.run(asked())


def test_keys_are_changed_while_the_api_serves(home: Path) -> None:
    app = app_of(home)
    nobody = ask(app, "anything")
    assert nobody.status_code == 401
    assert "no key yet" in nobody.json()["detail"]
    assert "api_keys issue" in nobody.json()["hint"]
    old, one = issue(home, "old")
    assert ask(app, old).status_code == 200
    new, _ = issue(home, "new")
    assert [ask(app, key).status_code for key in (old, new)] == [200, 200]
    revoke(home, one.id)
    assert [ask(app, key).status_code for key in (old, new)] == [401, 200]
    (home / "secrets" / "data_api_keys.json").write_text("{")
    refused = ask(app, new)
    assert refused.status_code == 401
    assert "broken" in refused.json()["detail"]


def test_each_key_has_a_minute_of_its_own(home: Path, minute: Minute) -> None:
    (busy, _), (calm, _) = issue(home), issue(home)
    app = app_of(home, per_minute=3)
    answers = []
    for _ in range(4):
        answers.append(ask(app, busy))
        minute.now += 10
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["ratelimit-remaining"] for answer in answers] == ["2", "1", "0", "0"]
    refused = answers[-1]
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.headers["retry-after"] == refused.headers["ratelimit-reset"] == "30"
    assert refused.headers["ratelimit-limit"] == "3"
    assert refused.headers["ratelimit-policy"] == "3;w=60"
    assert "Retry-After" in refused.json()["hint"]
    assert ask(app, calm).status_code == 200
    minute.now += 21  # 61 s after the first
    assert [ask(app, busy).status_code for _ in range(2)] == [200, 429]


def test_who_guesses_is_stopped_and_a_good_key_from_there_still_passes(home: Path, minute: Minute) -> None:
    good, _ = issue(home)
    app = app_of(home)
    guesses = [ask(app, f"guess {n}") for n in range(40)]
    assert [guess.status_code for guess in guesses] == [401] * 30 + [429] * 10
    assert guesses[0].headers["www-authenticate"].startswith("X-API-Key")
    assert guesses[-1].headers["retry-after"] == "60"
    assert "ratelimit-remaining" not in guesses[0].headers
    assert [ask(app, good).status_code for _ in range(50)] == [200] * 50
    assert ask(app, "guess", address="10.8.0.10").status_code == 401, "another address has its own count"
    minute.now += 61
    assert ask(app, "guess").status_code == 401


def test_good_requests_do_not_excuse_wrong_ones(home: Path, minute: Minute) -> None:
    good, _ = issue(home)
    app = app_of(home, failures=2)
    seen = [ask(app, key).status_code for key in ("a", good, "b", good, "c", good)]
    assert seen == [401, 200, 401, 200, 429, 200]


def test_a_forwarded_address_is_not_believed(home: Path, minute: Minute) -> None:
    app = app_of(home, failures=1)
    assert ask(app, "a", X_Forwarded_For="1.1.1.1").status_code == 401
    assert ask(app, "b", X_Forwarded_For="2.2.2.2").status_code == 429


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.8.0.2", "10.8.0.2"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
    ],
)
def test_an_ipv6_holder_has_one_count(address: str, network: str) -> None:
    assert network_of(address) == network


def test_admission_raises_what_the_gate_answers(home: Path, minute: Minute) -> None:
    key, _ = issue(home)
    admission = Admission(KeyRing(home), 1)
    assert admission.admit(key.encode(), "::1").remaining == 0
    with pytest.raises(Problem, match="1 times a minute") as refused:
        admission.admit(key.encode(), "::1")
    assert refused.value.status == 429


@pytest.mark.parametrize(
    ("method", "path", "status", "says"),
    [
        ("GET", "/mt5/health", 200, ""),
        ("HEAD", "/mt5/health", 405, "GET"),
        ("POST", "/mt5/health", 405, "GET"),
        ("DELETE", "/mt5/prices/EURUSD", 405, "GET"),
        ("OPTIONS", "/mt5/prices", 405, "GET"),
        ("GET", "/mt5/health/", 404, "/mt5/health"),
        ("GET", "/", 404, "/mt5/health"),
        ("GET", "/mt5/prices?symbols=" + ",".join(["EURUSD"] * 50), 200, ""),
        ("GET", "/mt5/prices?symbols=" + ",".join(["EURUSD"] * 51), 400, "at most 50"),
        ("GET", "/mt5/prices", 400, "symbols"),
        ("GET", "/mt5/prices?symbols=", 404, "Unknown symbol"),
        ("GET", "/mt5/prices/" + "A" * 3000, 414, "2048"),
        ("GET", "/mt5/health?" + "x" * 2040, 414, "2048"),
        ("GET", "/mt5/prices/XAUUSD", 500, "request_id"),
    ],
)
def test_every_answer_is_one_of_ours(home: Path, method: str, path: str, status: int, says: str) -> None:
    key, _ = issue(home)
    answer = ask(app_of(home), key, path, method=method)
    assert answer.status_code == status
    assert answer.headers["cache-control"] == "no-store"
    assert len(answer.headers["x-request-id"]) == 32
    assert answer.headers["ratelimit-limit"] == "1200"
    assert answer.headers.get("allow") == ("GET" if status == 405 else None)
    if status != 200:
        assert answer.headers["content-type"] == "application/problem+json"
        if method == "HEAD":
            return  # its body stays away
        problem = answer.json()
        assert (problem["status"], problem["request_id"]) == (status, answer.headers["x-request-id"])
        assert says in problem["detail"] + problem["hint"]
        assert "secret" not in answer.text


def test_a_fault_is_logged_without_the_key(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key, _ = issue(home)
    answer = ask(app_of(home), key, "/mt5/prices/XAUUSD")
    logged = capsys.readouterr().out
    assert "a fault nobody foresaw" in logged
    assert answer.headers["x-request-id"] in logged
    assert key not in logged


def test_the_same_symbol_twice_is_one_price(home: Path) -> None:
    key, _ = issue(home)
    found = ask(app_of(home), key, "/mt5/prices?symbols=eurusd,EURUSD,USDJPY").json()["prices"]
    assert [price["symbol"] for price in found] == ["EURUSD", "USDJPY"]


def test_a_request_id_is_taken_over_when_it_is_harmless(home: Path) -> None:
    key, _ = issue(home)
    assert ask(app_of(home), key, X_Request_Id="job-7").headers["x-request-id"] == "job-7"
    assert ask(app_of(home), key, X_Request_Id="a b;rm").headers["x-request-id"] != "a b;rm"
    refused = ask(app_of(home), "wrong", X_Request_Id="job-8")
    assert refused.json()["request_id"] == refused.headers["x-request-id"] == "job-8"
    assert refused.headers["cache-control"] == "no-store"
