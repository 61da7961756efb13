"""Strangers are counted by where they come from, and nobody can say he comes from elsewhere; good tokens pass."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from serve_app.admission import FailureBuckets
from serve_app.auth import issue_token
from serve_app.client_address import ClientAddress
from serve_app.problems import Problem

NGINX, OFFICE, EVIL = "127.0.0.1", "203.0.113.7", "198.51.100.66"


def scope(peer: str | None, *forwarded: str) -> dict[str, Any]:
    headers = [(b"x-forwarded-for", line.encode("latin-1")) for line in forwarded]
    return {"type": "http", "client": (peer, 50_000) if peer else None, "headers": headers}


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "client"),
    [
        ((), EVIL, [], EVIL),
        ((), EVIL, [OFFICE], EVIL),
        ((), NGINX, [OFFICE], NGINX),  # nobody is trusted unless named, loopback neither
        ((NGINX,), NGINX, [OFFICE], OFFICE),
        ((NGINX,), EVIL, [OFFICE], EVIL),  # past nginx, straight to us
        ((NGINX,), NGINX, [f"{OFFICE}, {EVIL}"], EVIL),  # the left part is the client's own invention
        ((NGINX,), NGINX, [OFFICE, EVIL], EVIL),  # in two lines
        ((NGINX,), NGINX, [f"{EVIL}, {NGINX}"], EVIL),
        ((NGINX, "10.8.0.0/24"), NGINX, [f"{OFFICE}, {EVIL}, 10.8.0.9"], EVIL),
        ((NGINX, "10.8.0.0/24"), NGINX, ["10.8.0.1, 10.8.0.9"], "10.8.0.1"),
        ((NGINX,), NGINX, [], NGINX),
        ((NGINX,), NGINX, [""], NGINX),
        ((NGINX,), NGINX, ["unknown"], NGINX),
        ((NGINX,), NGINX, [f"{OFFICE}, <script>"], NGINX),
        ((NGINX,), NGINX, [f"{OFFICE}, {EVIL}:443"], NGINX),
        ((NGINX,), NGINX, [f"{OFFICE},é"], NGINX),
        ((NGINX,), NGINX, [", ".join([OFFICE, *[NGINX] * 5000])], NGINX),
        ((NGINX,), "::ffff:127.0.0.1", [OFFICE], OFFICE),
        (("::1",), "::1", ["2001:db8::7"], "2001:db8::7"),
        ((NGINX,), None, [OFFICE], "unknown"),
    ],
)
def test_the_client_is_the_rightmost_untrusted_address(
    trusted: tuple[str, ...], peer: str | None, forwarded: list[str], client: str
) -> None:
    assert ClientAddress(trusted).of(scope(peer, *forwarded)) == client


def test_serves_own_server_leaves_the_peer_alone() -> None:
    """The word in FORWARDED_ALLOW_IPS matches nobody, so that only `trusted_proxies` decides."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["client"])

    asyncio.run(ProxyHeadersMiddleware(app, "none")(scope(NGINX, OFFICE), None, None))  # type: ignore[arg-type]
    assert seen == [(NGINX, 50_000)]


def test_a_bucket_empties_and_fills_evenly() -> None:
    now = [0.0]
    buckets = FailureBuckets(6, now=lambda: now[0])
    for _ in range(6):
        buckets.check("a")
        buckets.count("a")
    with pytest.raises(Problem) as full:
        buckets.check("a")
    assert (full.value.status, full.value.headers["Retry-After"]) == (429, "10")
    buckets.check("b")
    now[0] = 9.9
    with pytest.raises(Problem):
        buckets.check("a")
    now[0] = 10.0
    buckets.check("a")
    now[0] = 10_000.0
    assert buckets._left_now("a") == 6


def test_the_memory_of_networks_is_bounded() -> None:
    buckets = FailureBuckets(6, now=lambda: 0.0, most_networks=100)
    for n in range(1000):
        buckets.count(f"network {n}")
    assert len(buckets._left) == 100


class From:
    """Requests of one peer."""

    def __init__(self, app: Any, peer: str) -> None:
        self._app, self._peer = app, peer

    def get(self, token: str | None = None, **headers: str) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self._app, client=(self._peer, 50_000))
            async with httpx.AsyncClient(transport=transport, base_url="http://lstmc") as client:
                bearer = {"Authorization": f"Bearer {token}"} if token else {}
                return await client.get("/api/v1/skill", headers=bearer | headers)

        return asyncio.run(ask())


def test_strangers_are_held_up_and_their_neighbours_are_not(make_desk: Any) -> None:
    desk = make_desk(requests_per_minute_per_address=5).fill()
    evil, office = From(desk.app, EVIL), From(desk.app, OFFICE)
    used, fresh = (issue_token(desk.settings, subject) for subject in ("used", "fresh"))
    assert evil.get(used).status_code == 200
    assert [evil.get("a.b.c").status_code for _ in range(6)] == [401] * 5 + [429]
    refused = evil.get()
    assert (refused.status_code, refused.headers["content-type"]) == (429, "application/problem+json")
    assert 1 <= int(refused.headers["retry-after"]) <= 12
    assert "trusted_proxies" in refused.json()["hint"]
    assert evil.get(used).status_code == 200, "a token that was good before passes, whatever its neighbours do"
    assert evil.get(fresh).status_code == 429, "anything else is refused unread"
    assert office.get(fresh).status_code == 200
    assert evil.get(fresh).status_code == 200, "known by now"


def test_a_team_behind_one_address_is_never_too_many(make_desk: Any) -> None:
    desk = make_desk(requests_per_minute_per_address=5).fill()
    office = From(desk.app, OFFICE)
    for n in range(20):
        token = issue_token(desk.settings, f"desk-{n}")
        assert [office.get(token).status_code for _ in range(2)] == [200, 200]


def test_a_missing_scope_is_no_failure_of_the_address(make_desk: Any) -> None:
    desk = make_desk(requests_per_minute_per_address=2).fill()
    office, token = From(desk.app, OFFICE), issue_token(desk.settings, scopes=("signals",))
    assert [office.get(token).status_code for _ in range(5)] == [403] * 5


def test_an_invented_origin_gives_no_new_bucket(make_desk: Any) -> None:
    desk = make_desk(requests_per_minute_per_address=3).fill()
    evil = From(desk.app, EVIL)
    answers = [evil.get("a.b.c", **{"X-Forwarded-For": f"10.0.0.{n}"}).status_code for n in range(5)]
    assert answers == [401] * 3 + [429] * 2


def test_behind_nginx_each_client_has_its_own_bucket(make_desk: Any) -> None:
    desk = make_desk(requests_per_minute_per_address=3, trusted_proxies="127.0.0.1").fill()
    nginx = From(desk.app, NGINX)
    answers = [nginx.get("a.b.c", **{"X-Forwarded-For": f"10.0.0.{n}, {EVIL}"}).status_code for n in range(5)]
    assert answers == [401] * 3 + [429] * 2
    assert nginx.get("a.b.c", **{"X-Forwarded-For": OFFICE}).status_code == 401


@pytest.mark.parametrize(
    ("addresses", "last"),
    [
        (["2001:db8::1", "2001:db8::2", "2001:db8::ffff:1", "2001:db8:0:0:9::"], 429),
        (["2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:0:1::1"], 401),
        (["::ffff:203.0.113.7"] * 3 + ["203.0.113.7"], 429),
        (["::ffff:203.0.113.7"] * 3 + ["::ffff:203.0.113.8"], 401),
    ],
)
def test_ipv6_counts_by_its_64(make_desk: Any, addresses: list[str], last: int) -> None:
    desk = make_desk(requests_per_minute_per_address=3).fill()
    answers = [From(desk.app, address).get("a.b.c").status_code for address in addresses]
    assert answers == [401, 401, 401, last]


def test_health_and_the_page_are_not_counted(make_desk: Any) -> None:
    desk = make_desk(requests_per_minute_per_address=1).fill()
    for path in ("/healthz", "/readyz", "/", "/.well-known/jwks.json"):
        assert [desk.client.get(path).status_code for _ in range(5)] == [200] * 5
