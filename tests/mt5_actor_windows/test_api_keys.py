"""Keys of the data API: digests only, two at most, changed while the API serves, and a command line without typer."""

from __future__ import annotations

import hmac
import json
import os
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from configs.settings import ensure_secrets, make_settings
from market.errors import ConfigError, InputError
from mt5_actor_windows import api_keys
from mt5_actor_windows.api_keys import KeyRing, accept, digest_of, issue, live_keys, node_home, read_keys, revoke

MADE = datetime(2026, 3, 2, 14, tzinfo=UTC)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(api_keys.PLAIN_VARIABLE, raising=False)
    return tmp_path


def key_file(home: Path) -> Path:
    return home / "secrets" / "data_api_keys.json"


def test_the_file_holds_digests_and_is_the_owners_alone(home: Path) -> None:
    key, kept = issue(home, "head", MADE)
    assert key.startswith("lstmc_")
    assert len(key) >= 6 + 43, "256 bits in base 64"
    text = key_file(home).read_text()
    assert key not in text
    digest = digest_of(key.encode())
    written = {"id": digest[:8], "name": "head", "sha256": digest, "created_at": "2026-03-02T14:00:00Z"}
    assert json.loads(text) == {"keys": [written]}
    assert kept.id == digest[:8]
    assert stat.S_IMODE(key_file(home).stat().st_mode) == 0o600
    assert stat.S_IMODE(key_file(home).parent.stat().st_mode) == 0o700
    assert os.listdir(key_file(home).parent) == ["data_api_keys.json"], "no temporary file is left"


def test_two_keys_live_and_a_third_is_refused(home: Path) -> None:
    first, one = issue(home, "old")
    second, two = issue(home, "new")
    ring = KeyRing(home)
    assert (ring.verify(first.encode()), ring.verify(second.encode())) == (one.id, two.id)
    with pytest.raises(InputError, match=r"2 keys are live, .*old.*new.*Revoke one first"):
        issue(home, "third")
    revoke(home, one.id)
    third, three = issue(home, "third")
    assert ring.verify(first.encode()) is None
    assert (ring.verify(second.encode()), ring.verify(third.encode())) == (two.id, three.id)


def test_a_ring_reads_its_file_only_when_it_changed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, kept = issue(home)
    reads: list[Path] = []
    read = api_keys.read_keys

    def counted(folder: Path) -> list[api_keys.ApiKey]:
        reads.append(folder)
        return read(folder)

    monkeypatch.setattr(api_keys, "read_keys", counted)
    ring = KeyRing(home)
    assert {ring.verify(key.encode()) for _ in range(5)} == {kept.id}
    assert len(reads) == 1
    issue(home)
    reads.clear()
    assert {ring.verify(key.encode()) for _ in range(5)} == {kept.id}
    assert len(reads) == 1


def test_keys_are_compared_in_constant_time_and_all_of_them(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, _ = issue(home)
    issue(home)
    compared: list[tuple[Any, Any]] = []
    real = hmac.compare_digest

    def spy(a: Any, b: Any) -> bool:
        compared.append((a, b))
        return real(a, b)

    ring = KeyRing(home)
    monkeypatch.setattr(api_keys.hmac, "compare_digest", spy)
    for presented in (key.encode(), b"wrong", b"", "ключ".encode()):
        compared.clear()
        ring.verify(presented)
        assert [b for _, b in compared] == [digest_of(presented)] * 2


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"keys": 5}',
        '{"keys": [{"id": "x"}]}',
        '{"keys": [{"id": "00000000", "name": "a", "sha256": "00", "created_at": ""}]}',
        json.dumps({"keys": [{"id": "0" * 8, "name": "a", "sha256": "0" * 64, "created_at": ""}] * 3}),
        b"\xff\xfe",
    ],
)
def test_a_broken_file_lets_nobody_in_and_says_so(home: Path, content: str | bytes) -> None:
    key, _ = issue(home)
    ring = KeyRing(home)
    assert ring.verify(key.encode())
    key_file(home).write_bytes(content.encode() if isinstance(content, str) else content)
    assert ring.verify(key.encode()) is None
    assert ring.verify(b"") is None
    detail, hint = ring.trouble()
    assert "broken" in detail
    assert "api_keys issue" in hint
    with pytest.raises(ConfigError, match=r"broken.*issue"):
        issue(home)
    key_file(home).unlink()
    assert ring.verify(key.encode()) is None
    assert "no key yet" in ring.trouble()[0]
    again, kept = issue(home)
    assert ring.verify(again.encode()) == kept.id


def test_a_file_that_cannot_be_read_right_now_is_read_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, kept = issue(home)
    ring = KeyRing(home)

    def held(_: Path) -> list[api_keys.ApiKey]:
        raise PermissionError("another process replaces it")

    with monkeypatch.context() as patched:
        patched.setattr(api_keys, "read_keys", held)
        assert ring.verify(key.encode()) is None
    assert ring.verify(key.encode()) == kept.id


def test_only_the_digest_of_a_key_has_to_travel(home: Path, tmp_path: Path) -> None:
    head = tmp_path / "head"
    ensure_secrets(make_settings(home=head))
    (own,) = live_keys(head)
    assert (own["kept"], own["name"]) == ("plain", "secrets/data_api_key")
    assert accept(home, own["sha256"].upper() + "\n", "head").id == own["id"]
    assert accept(home, own["sha256"], "head") == read_keys(home)[0], "twice is once"
    assert len(read_keys(home)) == 1
    assert KeyRing(home).verify((head / "secrets" / "data_api_key").read_bytes()) == own["id"]
    with pytest.raises(InputError, match="no SHA-256 digest"):
        accept(home, "lstmc_the-key-itself")
    with pytest.raises(InputError, match="name"):
        accept(home, "0" * 64, "a\nb")


def test_the_installations_own_key_lives_besides_and_can_be_replaced(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring, plain = KeyRing(home), home / "secrets" / "data_api_key"
    plain.parent.mkdir()
    plain.write_text("the-heads-key\n")
    own = ring.verify(b"the-heads-key")
    assert own == digest_of(b"the-heads-key")[:8]
    keys = [issue(home)[0] for _ in range(2)]
    assert all(ring.verify(key.encode()) for key in [*keys, "the-heads-key"])
    with pytest.raises(InputError, match=r"own key.*Replace the content of .*data_api_key"):
        revoke(home, own)
    plain.write_text("the-next-key\n")
    assert ring.verify(b"the-heads-key") is None
    assert ring.verify(b"the-next-key")
    plain.write_text(" \n")
    assert ring.verify(b"") is None
    monkeypatch.setenv(api_keys.PLAIN_VARIABLE, "from-the-environment")
    assert KeyRing(home).verify(b"from-the-environment")


def test_an_unknown_id_is_not_revoked(home: Path) -> None:
    _, kept = issue(home)
    with pytest.raises(InputError, match=f"No key 'nobody'.*{kept.id}"):
        revoke(home, "nobody")


def test_a_node_has_a_home_of_its_own(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = make_settings(home="/the/heads/folder")
    monkeypatch.delenv("LSTMC_HOME", raising=False)
    assert node_home(settings) == settings.home_path
    monkeypatch.setenv("LSTMC_HOME", str(home))
    assert node_home(settings) == home


def test_the_command_line(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*words: str) -> Any:
        assert api_keys.main([*words, "--home", str(home)]) == 0
        return capsys.readouterr().out

    key = run("issue", "--name", "head").strip()
    made = json.loads(run("issue", "--json"))
    assert made["sha256"] == digest_of(made["key"].encode())
    assert [line.split()[-1] for line in run("list").splitlines()] == ["head", "client"]
    assert KeyRing(home).verify(key.encode())
    assert run("revoke", made["id"]) == f"{made['id']} client: revoked\n"
    assert run("accept", made["sha256"], "--name", "desk 7") == f"{made['id']} desk 7: accepted\n"
    listed = json.loads(run("list", "--json"))
    assert [(entry["name"], entry["kept"]) for entry in listed] == [("head", "digest"), ("desk 7", "digest")]


def test_the_command_line_refuses_in_one_sentence(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert api_keys.main(["list", "--home", str(home)]) == 0
    assert "nobody" in capsys.readouterr().out
    assert api_keys.main(["revoke", "x", "--home", str(home)]) == 2
    assert capsys.readouterr().err.startswith("api_keys: No key 'x'.\n")
    with pytest.raises(SystemExit) as ended:
        api_keys.main(["accept"])
    assert ended.value.code == 2
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        api_keys.main(["revoke", "--help"])
    assert ended.value.code == 0
    assert "Example: python -m mt5_actor_windows.api_keys revoke" in " ".join(capsys.readouterr().out.split())
