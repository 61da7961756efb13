"""Debian's nginx with our configuration before the real API: every rule seen to work, and what it must not break."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.nginx_process import NAME, Nginx, program
from cluster.edge import Edge, render
from cluster.nodes import free_ports
from market.errors import InputError
from serve_app.headers import SECURITY_HEADERS
from tests.browser.conftest import Site
from tests.serve_app.made_board import make_test_settings

PATH = "/api/v1/predictions/EURUSD"
BURST = 8  # of an nginx with four requests a second


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("home")
    site = Site(
        make_test_settings(folder, timeframes=("H1",), trusted_proxies=("127.0.0.1",), requests_per_minute=100_000)
    ).start()
    site.publish(site.market.update())
    yield site
    site.stop()


@pytest.fixture(scope="module")
def need_nginx() -> None:
    if program() is None:
        pytest.fail("no nginx: run tests/edge/install_nginx.sh")


def upstream_of(site: Site) -> str:
    return site.url.removeprefix("http://")


@pytest.fixture(scope="module")
def nginx(site: Site, need_nginx: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    with Nginx(tmp_path_factory.mktemp("nginx"), [upstream_of(site)], rate=1000) as running:
        yield running


@pytest.fixture(scope="module")
def client(nginx: Nginx, site: Site) -> Iterator[httpx.Client]:
    bearer = {"Authorization": f"Bearer {site.token()}"}
    with httpx.Client(verify=nginx.tls, base_url=nginx.url, headers=bearer, timeout=10) as client:
        yield client


def raw(nginx: Nginx, request: bytes) -> tuple[int, str]:
    """Bytes that no client library would send -> status and whole answer."""
    with (
        socket.create_connection((NAME, nginx.edge.port), 10) as plain,
        nginx.tls.wrap_socket(plain, server_hostname=NAME) as tls,
    ):
        tls.sendall(request)
        answer = b"".join(iter(lambda: tls.recv(65536), b"")).decode("latin-1")
    return int(answer.split()[1]), answer


def test_nginx_accepts_the_configuration(nginx: Nginx) -> None:
    assert "test is successful" in nginx.test()


def test_an_answer_comes_through_with_the_apis_own_headers_once(client: httpx.Client) -> None:
    answer = client.get(PATH)
    assert (answer.status_code, answer.json()["symbol"]) == (200, "EURUSD")
    for name in SECURITY_HEADERS:
        assert answer.headers.get_list(name) == [SECURITY_HEADERS[name]], name
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    assert "nginx/" not in answer.headers["server"]
    assert client.get(PATH, headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    assert client.get("/.well-known/jwks.json").status_code == 200
    assert client.get("/").status_code == 200
    assert client.options(PATH).status_code == 204  # the API's own answer


def test_a_long_answer_is_compressed(client: httpx.Client) -> None:
    assert client.get("/openapi.json").headers["content-encoding"] == "gzip"


def test_plain_http_is_sent_to_https(nginx: Nginx) -> None:
    answer = httpx.get(f"{nginx.http_url}{PATH}?timeframe=H1", headers={"Host": "evil.example"})
    assert (answer.status_code, answer.headers["location"]) == (308, f"{nginx.url}{PATH}?timeframe=H1")


@pytest.mark.parametrize(("version", "works"), [("TLSv1_1", False), ("TLSv1_2", True), ("TLSv1_3", True)])
def test_only_tls_of_today(nginx: Nginx, version: str, works: bool) -> None:
    context = ssl.create_default_context(cafile=str(nginx.edge.certificate))
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # our own side may speak the old version
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python's, about the old version
        context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
    with socket.create_connection((NAME, nginx.edge.port), 10) as plain:
        if works:
            with context.wrap_socket(plain, server_hostname=NAME) as tls:
                assert tls.version() == version.replace("_", ".")
        else:
            with pytest.raises(ssl.SSLError):
                context.wrap_socket(plain, server_hostname=NAME)


HOST = f"Host: {NAME}\r\nConnection: close\r\n"
TOO_LONG = "x" * 2100


@pytest.mark.parametrize(
    ("line", "headers", "status"),
    [
        ("POST /api/v1/forex/all", "Content-Length: 0\r\n", 405),
        ("DELETE /", "", 405),
        ("TRACE /", "", 405),
        ("PROPFIND /", "", 405),
        ("GET /.env", "", 404),
        ("GET /.git/config", "", 404),
        ("GET /static/.htpasswd", "", 404),
        ("GET /.well-known/.secret", "", 404),
        ("GET /api/../.env", "", 400),
        ("GET /api/v1/%2e%2e/%2e%2e/etc/passwd", "", 400),
        ("GET //evil.example/", "", 400),
        ("GET /api/v1/bars/EURUSD;a=1", "", 400),
        ("GET /api/v1/bars/EURUSD%00", "", 400),
        ("GET /api/v1/bars/%252e", "", 400),
        ("GET /api/v1/bars/<script>", "", 400),
        ("GET /?q=%0d%0aSet-Cookie", "", 400),
        ("GET /a\\b", "", 400),
        ("GET /caf\xc3\xa9", "", 400),
        (f"GET /?q={TOO_LONG}", "", 414),
        ("GET /", "Content-Length: 2000\r\n", 413),
        ("GET /", "Transfer-Encoding: chunked\r\n", 411),
        ("GET /", "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", 400),
        ("GET /", "X-Original-URL: /.env\r\n", 400),
        ("GET /", "X-Rewrite-URL: /.env\r\n", 400),
        ("GET /", "X-HTTP-Method-Override: DELETE\r\n", 400),
        ("GET /", "Proxy: http://evil.example\r\n", 400),
        ("GET /", "Authorization: Basic dXNlcjpwYXNz\r\n", 400),
        ("GET /", f"Authorization: Bearer {'x' * 4300}\r\n", 400),
        ("GET /", f"Cookie: {'x' * 9000}\r\n", 400),
        ("GET /", "".join(f"X-{i}: {'y' * 4000}\r\n" for i in range(12)), 400),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_request_that_no_trader_sends_is_refused_before_the_api(
    nginx: Nginx, line: str, headers: str, status: int
) -> None:
    request = f"{line} HTTP/1.1\r\n{HOST}{headers}\r\n".encode("latin-1")
    seen, answer = raw(nginx, request)
    assert seen == status, answer
    head, _, body = answer.partition("\r\n\r\n")
    assert "application/problem+json" in head, answer
    said = json.loads(body)
    assert said["status"] == status
    assert said["hint"]
    assert said["request_id"]
    assert "X-Content-Type-Options: nosniff" in head
    assert ("Allow: GET, HEAD, OPTIONS" in head) == (status == 405)


def test_another_host_is_misdirected(nginx: Nginx) -> None:
    assert raw(nginx, b"GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")[0] == 421


def test_the_clients_forwarded_for_is_not_believed(site: Site, need_nginx: None, tmp_path: Path) -> None:
    """With a wrong token the API counts by address: it must see one client, and so must nginx."""
    with Nginx(tmp_path, [upstream_of(site)], rate=BURST // 2) as nginx, httpx.Client(verify=nginx.tls) as client:
        seen = [
            client.get(
                f"{nginx.url}/healthz", headers={"X-Forwarded-For": f"203.0.113.{i}", "X-Real-IP": f"203.0.113.{i}"}
            )
            for i in range(4 * BURST)
        ]
    refused = [answer for answer in seen if answer.status_code == 429]
    assert {answer.status_code for answer in seen} == {200, 429}
    assert len(refused) > BURST
    assert refused[0].json()["status"] == 429
    assert int(refused[0].headers["retry-after"]) > 0
    logged = [json.loads(line)["address"] for line in (tmp_path / "access.log").read_text().splitlines()]
    assert set(logged) == {"127.0.0.1"}


@pytest.mark.parametrize(
    ("behind", "forwarded", "seen"),
    [
        ((), "198.51.100.7", "127.0.0.1"),
        (("127.0.0.1",), "198.51.100.7", "198.51.100.7"),
        (("127.0.0.1", "10.8.0.0/24"), "6.6.6.6, 198.51.100.7, 10.8.0.9", "198.51.100.7"),  # not what stands left of it
    ],
)
def test_the_api_is_told_one_address(
    need_nginx: None, tmp_path: Path, behind: tuple[str, ...], forwarded: str, seen: str
) -> None:
    with Upstream() as upstream, Nginx(tmp_path, [upstream.address], behind=behind) as nginx:
        claims = {"X-Forwarded-For": forwarded, "X-Real-IP": "6.6.6.6", "X-Forwarded-Host": "evil.example"}
        httpx.get(f"{nginx.url}/x", verify=nginx.tls, headers=claims | {"Forwarded": "for=6.6.6.6"})
    assert upstream.header("x-forwarded-for") == [seen]
    assert upstream.header("x-forwarded-proto") == ["https"]
    for name in ("connection", "x-real-ip", "x-forwarded-host", "forwarded"):
        assert upstream.header(name) == [], name


class Upstream:
    """Answers every request with `status`, keeps the heads, one connection after the other."""

    def __init__(self, status: str = "200 OK") -> None:
        self.heads: list[list[str]] = []
        self._status = status
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Upstream:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)  # ends `accept`
        self._thread.join(10)
        self._socket.close()

    def header(self, name: str) -> list[str]:
        lines = [line.partition(":") for line in self.heads[-1][1:]]
        return [value.strip() for found, _, value in lines if found.lower() == name]

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                self.heads.append(connection.recv(65536).decode("latin-1").split("\r\n"))
                if self._status:
                    connection.sendall(
                        f"HTTP/1.1 {self._status}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok".encode()
                    )


@pytest.mark.parametrize("bad", ["500 Internal Server Error", "502 Bad Gateway", "503 Out", "504 Late", "", "nobody"])
def test_another_upstream_is_asked(need_nginx: None, tmp_path: Path, bad: str) -> None:
    """One that answers with a 5xx, one that hangs up, one that does not listen: a GET is asked again elsewhere."""
    with Upstream(bad) as broken, Upstream() as sound:
        first = f"127.0.0.1:{free_ports(1)[0]}" if bad == "nobody" else broken.address
        with Nginx(tmp_path, [first, sound.address]) as nginx, httpx.Client(verify=nginx.tls) as client:
            seen = {client.get(f"{nginx.url}/").status_code for _ in range(6)}
    assert seen == {200}
    assert bad == "nobody" or broken.heads


def test_without_any_upstream_the_answer_is_a_clean_503(need_nginx: None, tmp_path: Path) -> None:
    with Nginx(tmp_path, [f"127.0.0.1:{free_ports(1)[0]}"]) as nginx:
        answers = [httpx.get(f"{nginx.url}{PATH}", verify=nginx.tls) for _ in range(3)]
    for answer in answers:
        assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
        assert int(answer.headers["retry-after"]) > 0
        assert answer.json()["instance"] == PATH


def test_an_event_of_the_stream_is_there_at_once(client: httpx.Client, site: Site) -> None:
    with client.stream("GET", "/api/v1/stream") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.iter_lines()
        site.publish(site.market.close_a_bar())  # unbuffered: else this waits for kilobytes and times out
        assert any("as_of" in line for line in lines)


def test_a_reload_under_load_loses_nothing(nginx: Nginx, site: Site) -> None:
    asked: list[Any] = []
    done = threading.Event()
    bearer = {"Authorization": f"Bearer {site.token()}"}

    def ask() -> None:
        with httpx.Client(verify=nginx.tls, headers=bearer, timeout=10) as client:
            while not done.is_set():
                try:
                    try:
                        answer = client.get(f"{nginx.url}{PATH}")
                    except httpx.RemoteProtocolError:  # an idle connection of an old worker: RFC 9112, 9.3.1, ask again
                        answer = client.get(f"{nginx.url}{PATH}")
                    asked.append(answer.status_code)
                except httpx.HTTPError as error:
                    asked.append(repr(error))

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    for rate in (2000, 3000, 4000):
        before, n = nginx.workers(), len(asked)
        nginx.reload(rate=rate)
        wait_until(lambda before=before, n=n: len(asked) > n + 50 and not before & nginx.workers())  # type: ignore[misc]
    done.set()
    for asker in askers:
        asker.join(15)
    assert set(asked) == {200}
    assert len(asked) > 150


def wait_until(true: Any, seconds: float = 30.0) -> None:
    waiting = threading.Event()
    for _ in range(int(seconds / 0.05)):
        if true():
            return
        waiting.wait(0.05)
    raise AssertionError("it did not come true")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"names": ["a; return 200"]}, "cannot stand"),
        ({"names": []}, "host name and an upstream"),
        ({"behind": ["0.0.0.0/0"]}, "trusts everybody"),
        ({"behind": ["everyone"]}, "no IP address"),
    ],
)
def test_what_nginx_would_misread_is_refused(tmp_path: Path, wrong: dict[str, Any], said: str) -> None:
    given: dict[str, Any] = {"names": ["fx.example"], "upstreams": ["10.8.0.1:8000"]} | wrong
    with pytest.raises(InputError, match=said):
        render(Edge(tmp_path, certificate=Path("/c.pem"), key=Path("/k.pem"), **given))
