"""`lstmc key`: the data API's keys and certificate from the head's side."""

from __future__ import annotations

import ipaddress
import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from cluster.bootstrap import _check_data_api, _data_api
from cluster.certificate import write_certificate
from cluster.cli import app
from cluster.console import run
from configs.settings import make_settings
from market.errors import ConfigError, InputError
from mt5_actor_windows.api_keys import PLAIN_VARIABLE, KeyRing, digest_of

NOW = datetime(2026, 3, 2, 14, tzinfo=UTC)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(PLAIN_VARIABLE, raising=False)
    monkeypatch.setenv("LSTMC_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_keys_from_issue_to_revoke(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*words: str, code: int = 0) -> Any:
        assert run(app, ["key", *words]) == code
        seen = capsys.readouterr()
        return seen.err if code else seen.out

    key = said("issue").strip()
    made = json.loads(said("issue", "--name", "desk-7", "--json"))
    assert digest_of(made["key"].encode()) == made["sha256"]
    assert KeyRing(home).verify(key.encode())
    assert "Revoke one first" in said("issue", code=2)
    assert [line.split()[-1] for line in said("list").splitlines()] == ["client", "desk-7"]
    assert said("revoke", made["id"]) == f"{made['id']} desk-7: revoked\n"
    assert json.loads(said("accept", made["sha256"], "--name", "desk 7", "--json"))["id"] == made["id"]
    assert len(json.loads(said("list", "--json"))) == 2
    assert "no SHA-256 digest" in said("accept", "x", code=2)


def test_a_certificate_says_which_file_goes_where(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "certificate"
    assert run(app, ["key", "certificate", "--address", "10.8.0.2,terminal.lan", "--out", str(out)]) == 0
    words = capsys.readouterr().out
    assert f"LSTMC_DATA_API_CA={out / 'data_api_cert.pem'} LSTMC_DATA_API_URL=https://10.8.0.2:8001" in words
    assert "<home>/secrets" in words
    assert stat.S_IMODE((out / "data_api_cert_key.pem").stat().st_mode) == 0o600
    made = x509.load_pem_x509_certificate((out / "data_api_cert.pem").read_bytes())
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("10.8.0.2")]
    assert names.get_values_for_type(x509.DNSName) == ["terminal.lan"]
    public = made.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert public.curve.name == "secp256r1"
    assert run(app, ["key", "certificate", "--address", "10.8.0.2", "--out", str(out)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert run(app, ["key", "certificate", "--address", "::1", "--out", str(tmp_path / "more"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["addresses"], Path(told["key"]).parent) == (["::1"], tmp_path / "more")


def test_how_long_a_certificate_is_valid(tmp_path: Path) -> None:
    made = write_certificate(["10.8.0.2"], tmp_path, 730, NOW)
    assert made["until"] == "2028-03-01T14:00:00Z"
    found = x509.load_pem_x509_certificate(Path(made["certificate"]).read_bytes())
    assert found.not_valid_before_utc == NOW - timedelta(hours=1), "the other clock may be behind"


@pytest.mark.parametrize(
    ("addresses", "days", "says"),
    [
        ([], 730, "needs an address"),
        (["not a name"], 730, "neither an IP address nor a host name"),
        (["300.1.1.1"], 730, "neither"),
        (["https://10.8.0.2"], 730, "neither"),
        (["10.8.0.2"], 0, "1 to 3650"),
        (["10.8.0.2"], 4000, "1 to 3650"),
    ],
)
def test_what_cannot_be_certified(tmp_path: Path, addresses: list[str], days: int, says: str) -> None:
    with pytest.raises(InputError, match=says):
        write_certificate(addresses, tmp_path, days)
    assert list(tmp_path.iterdir()) == []


def test_up_says_where_the_data_api_is_and_refuses_a_public_one_in_the_clear(tmp_path: Path) -> None:
    public = make_settings(home=tmp_path, data_api_host="8.8.8.8")
    assert _data_api(public) == "http://8.8.8.8:8001/mt5/health"
    with pytest.raises(ConfigError, match="without TLS"):
        _check_data_api(public)
    _check_data_api(make_settings(home=tmp_path, data_api_host="8.8.8.8", market="mt5", speed=1))
    write_certificate(["8.8.8.8"], tmp_path / "secrets")
    _check_data_api(public)
    assert _data_api(public) == "https://8.8.8.8:8001/mt5/health"
    elsewhere = make_settings(home=tmp_path, market="http", data_api_url="https://10.8.0.2:8001", speed=1)
    assert _data_api(elsewhere) == "https://10.8.0.2:8001"
