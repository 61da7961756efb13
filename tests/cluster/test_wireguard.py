"""`lstmc node wireguard`: keys that WireGuard's own program agrees with, files for their owner only, nothing private printed."""

from __future__ import annotations

import base64
import json
import stat
import subprocess
from pathlib import Path

import pytest

from cluster.cli import app
from cluster.console import run
from cluster.wireguard import KEY_FILE, Peer, write_tunnel
from market.errors import InputError

OTHER = base64.b64encode(bytes(range(32))).decode()


def test_the_tunnel_as_wireguard_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LSTMC_HOME", str(tmp_path))
    words = ["node", "wireguard", "--address", "10.8.0.1", "--peer", f"{OTHER},10.8.0.2"]
    words += ["--peer", f"{OTHER},10.8.0.3,w.example:51820"]
    assert run(app, words) == 0
    printed = capsys.readouterr()
    private = (tmp_path / "secrets" / KEY_FILE).read_text().strip()
    assert private not in printed.out + printed.err
    public = subprocess.run(["wg", "pubkey"], input=private, capture_output=True, text=True, check=True).stdout.strip()
    assert public in printed.out
    config = tmp_path / "wireguard" / "lstmc.conf"
    for path in (config, tmp_path / "secrets" / KEY_FILE):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    stripped = subprocess.run(["wg-quick", "strip", str(config)], capture_output=True, text=True, check=True).stdout
    assert stripped.split("\n\n")[0] == f"[Interface]\nPrivateKey = {private}\nListenPort = 51820"
    assert f"PublicKey = {OTHER}\nAllowedIPs = 10.8.0.2/32" in stripped
    assert "Endpoint = w.example:51820\nPersistentKeepalive = 25" in stripped
    assert run(app, [*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["public_key"] == public, "the pair is kept"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("short,10.8.0.2", "no WireGuard key"),
        (f"{OTHER},10.8.0", "no IP address"),
        (f"{OTHER}", "1 parts"),
        (f"{OTHER},10.8.0.2,a host:1", "no HOST:PORT"),
        (f"{OTHER},10.8.0.2,host:1\nPostUp = id", "no HOST:PORT"),
    ],
)
def test_a_peer_that_cannot_be(text: str, what: str) -> None:
    with pytest.raises(InputError, match=what):
        Peer.parse(text)


def test_an_address_twice(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one address"):
        write_tunnel(tmp_path, "10.8.0.2", [Peer.parse(f"{OTHER},10.8.0.2")])
