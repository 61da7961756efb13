"""Where the API may listen, and TLS over a real socket with the certificate that the command makes."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster.certificate import write_certificate
from market.errors import ConfigError, NodeDown, PortInUse
from mt5_actor_windows.admission import Admission
from mt5_actor_windows.api_keys import PLAIN_VARIABLE, KeyRing, issue
from mt5_actor_windows.client import HttpBarSource
from mt5_actor_windows.data_api import create_app
from mt5_actor_windows.listening import DataApi, Tls, check_address, find_tls, serve_in_thread, url_of

TLS = Tls(Path("cert"), Path("key"))


class Terminal:
    def prices(self, symbols: list[str]) -> list[dict[str, Any]]:
        return [{"symbol": symbol, "bid": 1.0, "time": None, "reason": "No tick yet."} for symbol in symbols]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[DataApi, str]]]:
    """`serve(tls)` -> the running API and a key for it."""
    monkeypatch.delenv(PLAIN_VARIABLE, raising=False)
    running = []

    def start(tls: Tls | None = None, host: str = "127.0.0.1") -> tuple[DataApi, str]:
        home = tmp_path / f"home {len(running)}"
        app = create_app(Terminal(), Admission(KeyRing(home), 1200))  # type: ignore[arg-type]
        running.append(serve_in_thread(app, host, 0, tls))
        return running[-1], issue(home)[0]

    yield start
    for api in running:
        api.stop()


def certificate(folder: Path, *addresses: str, now: datetime | None = None, days: int = 730) -> Tls:
    made = write_certificate(addresses, folder, days, now)
    return Tls(Path(made["certificate"]), Path(made["key"]))


def ask(url: str, key: str, ca: Path | None) -> list[dict[str, Any]]:
    source = HttpBarSource(url, key, ca=ca)
    try:
        return source.prices(["EURUSD"])
    finally:
        source.close()


def test_bars_come_over_tls(tmp_path: Path, serve: Callable[..., tuple[DataApi, str]]) -> None:
    tls = certificate(tmp_path, "127.0.0.1", "localhost")
    api, key = serve(tls)
    assert api.url == f"https://127.0.0.1:{api.port}"
    for url in (api.url, f"https://localhost:{api.port}"):
        assert ask(url, key, tls.certificate)[0]["symbol"] == "EURUSD"


@pytest.mark.parametrize(
    ("addresses", "made", "trusted", "host", "says"),
    [
        (("127.0.0.1",), 0, False, "127.0.0.1", "not one that is trusted here. Let data_api_ca name"),
        (("127.0.0.1",), 0, None, "127.0.0.1", "not one that is trusted here. Let data_api_ca name"),
        (("10.8.0.2",), 0, True, "127.0.0.1", "is for another address"),
        (("terminal.lan",), 0, True, "localhost", "is for another host name"),
        (("127.0.0.1",), -800, True, "127.0.0.1", "has expired. Make a new one"),
        (("127.0.0.1",), 2, True, "127.0.0.1", "is not valid yet"),
    ],
)
def test_a_certificate_that_is_refused_is_explained(
    tmp_path: Path,
    serve: Callable[..., tuple[DataApi, str]],
    addresses: tuple[str, ...],
    made: int,
    trusted: bool | None,
    host: str,
    says: str,
) -> None:
    """`made`: how many days from now. `trusted`: its own file, another host's (False), or what the system has (None)."""
    tls = certificate(tmp_path / "own", *addresses, now=datetime.now(UTC) + timedelta(days=made))
    other = certificate(tmp_path / "other", *addresses)
    api, key = serve(tls)
    ca = {True: tls.certificate, False: other.certificate, None: None}[trusted]
    with pytest.raises(NodeDown, match=says):
        ask(f"https://{host}:{api.port}", key, ca)


def test_one_side_with_and_the_other_without_tls(tmp_path: Path, serve: Callable[..., tuple[DataApi, str]]) -> None:
    tls = certificate(tmp_path, "127.0.0.1")
    (plain, key), (secure, _) = serve(), serve(tls)
    with pytest.raises(NodeDown, match=r"does not speak TLS.*http://"):
        ask(plain.url.replace("http", "https"), key, tls.certificate)
    with pytest.raises(NodeDown, match=r"https://\."):
        ask(secure.url.replace("https", "http"), key, tls.certificate)


def test_old_protocols_are_not_spoken(tmp_path: Path, serve: Callable[..., tuple[DataApi, str]]) -> None:
    tls = certificate(tmp_path, "127.0.0.1")
    api, _ = serve(tls)
    config = api.server.config.ssl
    assert config is not None
    assert config.minimum_version == ssl.TLSVersion.TLSv1_2
    client = ssl.create_default_context(cafile=tls.certificate)
    client.verify_flags |= ssl.VERIFY_X509_STRICT  # what Python asks for from 3.13 on
    with (
        socket.create_connection(("127.0.0.1", api.port), timeout=5) as raw,
        client.wrap_socket(raw, server_hostname="127.0.0.1") as wrapped,
    ):
        assert wrapped.version() == "TLSv1.3"


def test_what_is_no_pem_file_is_named(tmp_path: Path, serve: Callable[..., tuple[DataApi, str]]) -> None:
    (tmp_path / "empty.pem").write_text("")
    for path in (tmp_path / "empty.pem", tmp_path / "absent.pem"):
        with pytest.raises(ConfigError, match=f"data_api_ca='{path}'"):
            HttpBarSource("https://10.8.0.2:8001", "key", ca=path)
    one, two = (certificate(tmp_path / name, "127.0.0.1") for name in "ab")
    with pytest.raises(ConfigError, match=r"cannot be used for TLS.*key certificate"):
        serve(Tls(one.certificate, two.key))
    with pytest.raises(ConfigError, match="cannot be used for TLS"):
        serve(Tls(tmp_path / "empty.pem", two.key))


def test_half_a_pair_is_no_reason_to_serve_in_the_clear(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    assert find_tls(tmp_path) is None
    certificate(secrets, "127.0.0.1")
    assert find_tls(tmp_path) == Tls(secrets / "data_api_cert.pem", secrets / "data_api_cert_key.pem")
    (secrets / "data_api_cert_key.pem").unlink()
    with pytest.raises(ConfigError, match=r"data_api_cert_key\.pem is missing"):
        find_tls(tmp_path)


@pytest.mark.parametrize(
    ("host", "plain", "url"),
    [
        ("127.0.0.1", True, "http://127.0.0.1:8001"),
        ("localhost", True, "http://127.0.0.1:8001"),
        ("::1", True, "http://[::1]:8001"),
        ("10.8.0.2", True, "http://10.8.0.2:8001"),
        ("172.31.255.1", True, "http://172.31.255.1:8001"),
        ("192.168.1.5", True, "http://192.168.1.5:8001"),
        ("100.64.3.2", True, "http://100.64.3.2:8001"),
        ("fd00::2", True, "http://[fd00::2]:8001"),
        ("0.0.0.0", False, "http://127.0.0.1:8001"),
        ("::", False, "http://[::1]:8001"),
        ("172.32.0.1", False, "http://172.32.0.1:8001"),
        ("8.8.8.8", False, "http://8.8.8.8:8001"),
        ("169.254.1.1", False, "http://169.254.1.1:8001"),
        ("2001:db8::1", False, "http://[2001:db8::1]:8001"),
        ("::ffff:808:808", False, "http://[::ffff:808:808]:8001"),
    ],
)
def test_in_the_clear_only_where_nobody_else_reads(host: str, plain: bool, url: str) -> None:
    assert url_of(host, 8001, None) == url
    assert check_address(host, TLS) == ("127.0.0.1" if host == "localhost" else host)
    if plain:
        assert check_address(host, None) == ("127.0.0.1" if host == "localhost" else host)
    else:
        with pytest.raises(ConfigError, match=r"without TLS.*key certificate"):
            check_address(host, None)


def test_addresses_that_cannot_be_listened_on(serve: Callable[..., tuple[DataApi, str]]) -> None:
    with pytest.raises(ConfigError, match="no IP address"):
        check_address("terminal.lan", TLS)
    with pytest.raises(ConfigError, match="own address; is the tunnel up"):
        serve(host="10.254.253.252")
    api, _ = serve()
    with pytest.raises(PortInUse, match=str(api.port)):
        serve_in_thread(api.server.config.app, "127.0.0.1", api.port)  # type: ignore[arg-type]


def test_a_real_server_answers_head_and_endless_addresses(serve: Callable[..., tuple[DataApi, str]]) -> None:
    api, key = serve()
    with httpx.Client(base_url=api.url, headers={"X-API-Key": key}, trust_env=False) as client:
        head = client.head("/mt5/prices/EURUSD")
        assert (head.status_code, head.headers["content-type"]) == (405, "application/problem+json")
        assert client.get("/mt5/prices/" + "A" * 3000).status_code == 414
        assert "server" not in client.get("/mt5/prices/EURUSD").headers
