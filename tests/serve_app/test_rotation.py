"""Keys come and go, tokens are revoked, and a serving replica follows within a second of its clock, cache or not."""

from __future__ import annotations

import asyncio
import json
import stat
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest

from configs.settings import Settings
from market.errors import ConfigError, InputError
from serve_app import revocations, token_keys
from serve_app.api import make_api
from serve_app.auth import LOOK_SECONDS, SOONER_SECONDS, TokenVerifier, Trust, issue_token, make_token
from serve_app.lookups import Lookups
from serve_app.problems import Problem
from serve_app.rate_limit import RateLimiter
from serve_app.routes_stream import events
from tests.serve_app.made_board import make_test_settings

MOMENT = datetime(2026, 11, 24, 19, 35, 57, tzinfo=UTC)


class Wall:
    """Wall seconds that pass only when told."""

    def __init__(self) -> None:
        self.seconds = float(int(time.time()))

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return make_test_settings(tmp_path)


@pytest.fixture
def wall() -> Wall:
    return Wall()


def refused(verifier: TokenVerifier, token: str, why: str, status: int = 401) -> None:
    with pytest.raises(Problem, match=why) as problem:
        verifier.verify(token)
    assert problem.value.status == status


def test_the_local_profile_signs_with_its_secret_until_it_has_a_key(settings: Settings) -> None:
    assert jwt.get_unverified_header(issue_token(settings)) == {"alg": "HS256", "typ": "JWT"}
    kid = token_keys.rotate(settings.home_path).kid
    assert jwt.get_unverified_header(issue_token(settings)) == {"alg": "EdDSA", "typ": "JWT", "kid": kid}


def test_production_signs_with_a_key_or_not_at_all(tmp_path: Path) -> None:
    settings = make_test_settings(tmp_path, profile="production", market="simulated")
    with pytest.raises(ConfigError, match="no key to sign") as missing:
        issue_token(settings)
    assert "lstmc token keys rotate" in missing.value.hint
    with pytest.raises(ConfigError, match="no key to sign"):
        Trust(settings)
    token_keys.ensure_signing_key(tmp_path)
    token_keys.ensure_signing_key(tmp_path)
    assert len(token_keys.read_keys(tmp_path)) == 1
    assert TokenVerifier(Trust(settings)).verify(issue_token(settings, "desk-7")).subject == "desk-7"


def test_keys_are_the_owners_alone_and_named_by_age(tmp_path: Path) -> None:
    kids = [token_keys.rotate(tmp_path, MOMENT - timedelta(hours=n)).kid for n in range(3)]  # a clock set back
    assert kids == sorted(kids)
    assert [kid.split("-")[0] for kid in kids] == ["20261124T193557Z", "20261124T193558Z", "20261124T193559Z"]
    for path in token_keys.key_folder(tmp_path).iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(token_keys.key_folder(tmp_path).stat().st_mode) == 0o700
    assert [key["active"] for key in token_keys.listed(tmp_path)] == [True, False, False]
    assert token_keys.listed(tmp_path)[0] == {"kid": kids[-1], "made_at": "2026-11-24T19:35:59Z", "active": True}


def test_rotation_while_serving(settings: Settings, wall: Wall) -> None:
    home, verifier = settings.home_path, TokenVerifier(Trust(settings), now=wall)
    first = token_keys.rotate(home, MOMENT)
    before = issue_token(settings, "before", now=wall())
    wall.seconds += 0.125  # at least SOONER_SECONDS, exact in binary
    assert verifier.verify(before).subject == "before", "an unknown kid is looked for at once"
    token_keys.rotate(home, MOMENT + timedelta(hours=1))
    after = issue_token(settings, "after", now=wall())
    wall.seconds += 0.125  # at least SOONER_SECONDS, exact in binary
    assert [verifier.verify(token).subject for token in (before, after)] == ["before", "after"]
    token_keys.retire(home, first.kid)
    wall.seconds += LOOK_SECONDS
    refused(verifier, before, "known here, or no longer")
    assert verifier.verify(after).subject == "after"


def test_random_kids_cause_no_reading(
    settings: Settings, wall: Wall, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = make_test_settings(tmp_path / "other")
    trust = Trust(settings)
    verifier, looks, reads = TokenVerifier(trust, now=wall), [], []
    look, read = trust.refresh, trust._read
    monkeypatch.setattr(trust, "refresh", lambda: (looks.append(wall()), look())[1])
    monkeypatch.setattr(trust, "_read", lambda: (reads.append(wall()), read())[1])
    token_keys.rotate(other.home_path)
    for _ in range(1000):  # over two seconds
        wall.seconds += 0.002
        refused(verifier, issue_token(other, now=wall()), "not known here")
    assert len(looks) <= 2 / SOONER_SECONDS
    assert reads == []


def test_a_verified_token_costs_one_look_a_second(
    settings: Settings, wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust = Trust(settings)
    verifier, looks = TokenVerifier(trust, now=wall), []
    monkeypatch.setattr(trust, "refresh", lambda: bool(looks.append(1)))
    token = issue_token(settings, now=wall())
    for _ in range(1000):
        wall.seconds += 0.003
        verifier.verify(token)
    assert len(looks) == 2


def test_a_clock_that_is_set_back_stops_no_look(settings: Settings, wall: Wall) -> None:
    verifier = TokenVerifier(Trust(settings), now=wall)
    made = make_token(settings, now=wall() - 7200)
    verifier.verify(made.token)
    revocations.revoke(settings.home_path, made.token_id, datetime.now(UTC) + timedelta(days=1))
    wall.seconds -= 3600
    refused(verifier, made.token, "revoked")


def test_revocation_is_noticed_within_a_second(settings: Settings, wall: Wall) -> None:
    verifier = TokenVerifier(Trust(settings), now=wall)
    made, other = make_token(settings, "gone", now=wall()), issue_token(settings, "stays", now=wall())
    for token in (made.token, other):
        verifier.verify(token)
    revocations.revoke(settings.home_path, made.token_id, datetime.fromtimestamp(made.expires_at, UTC))
    wall.seconds += LOOK_SECONDS
    refused(verifier, made.token, "revoked")
    assert verifier.verify(other).subject == "stays"
    wall.seconds += 0.01
    refused(verifier, made.token, "revoked")


def test_over_http_too(make_desk: Any, wall: Wall) -> None:
    desk = make_desk().fill()
    verifier = TokenVerifier(Trust(desk.settings), now=wall)

    async def history(*_: Any) -> list[dict[str, Any]]:
        return []

    app = make_api(desk.settings, desk.board, RateLimiter(60), desk.clock, Lookups(history), verifier=verifier)
    client = type(desk.client)(app)
    made = make_token(desk.settings, now=wall())
    bearer = {"Authorization": f"Bearer {made.token}"}
    assert client.get("/api/v1/skill", headers=bearer).status_code == 200
    revocations.revoke(desk.settings.home_path, made.token_id, datetime.now(UTC) + timedelta(days=30))
    wall.seconds += LOOK_SECONDS
    answer = client.get("/api/v1/skill", headers=bearer)
    assert (answer.status_code, answer.json()["detail"]) == (401, "The token has been revoked.")


def test_a_listener_is_sent_away_when_its_token_is_revoked(make_desk: Any, wall: Wall) -> None:
    desk = make_desk().fill()
    verifier = TokenVerifier(Trust(desk.settings), now=wall)
    made = make_token(desk.settings, now=wall())
    caller = verifier.verify(made.token)

    async def listen() -> list[bytes]:
        body = events(desk.board, caller, "", 3600, lambda: verifier.admits(f"Bearer {made.token}"))
        seen = [await anext(body), await anext(body)]
        waiting = asyncio.ensure_future(anext(body, b"the end"))
        await asyncio.sleep(0)  # it listens now, for an hour if need be
        revocations.revoke(desk.settings.home_path, made.token_id, datetime.now(UTC) + timedelta(days=30))
        wall.seconds += LOOK_SECONDS
        verifier.look()
        assert verifier.generation == 1
        desk.board.wake_subscribers()
        return [*seen, await asyncio.wait_for(waiting, 5)]

    assert asyncio.run(listen())[-1] == b"the end"
    assert desk.board.subscriber_count == 0


def test_revocations_vanish_once_their_tokens_have_expired(tmp_path: Path) -> None:
    for n in range(3):
        revocations.revoke(tmp_path, f"t{n}", MOMENT + timedelta(hours=n + 1), MOMENT)
    path = revocations.revocations_path(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    later = MOMENT + timedelta(hours=2, minutes=30)
    assert [entry.jti for entry in revocations.read_revocations(tmp_path, later)] == ["t2"]
    revocations.revoke(tmp_path, "t3", later + timedelta(hours=1), later)
    assert [entry["jti"] for entry in json.loads(path.read_text())["revoked"]] == ["t2", "t3"]
    assert [entry.name for entry in path.parent.iterdir()] == [path.name], "no temporary file is left"


def test_an_entry_outlives_the_leeway_of_its_token(settings: Settings, wall: Wall) -> None:
    made = make_token(settings, days=0.001, now=wall())
    end = datetime.fromtimestamp(made.expires_at, UTC)
    revocations.revoke(settings.home_path, made.token_id, end)
    wall.seconds = made.expires_at + 59.0  # still within the leeway
    assert len(revocations.read_revocations(settings.home_path, end + timedelta(seconds=59))) == 1
    refused(TokenVerifier(Trust(settings), now=wall), made.token, "revoked")


def test_a_second_revocation_keeps_the_later_end(tmp_path: Path) -> None:
    late = revocations.revoke(tmp_path, "t", MOMENT + timedelta(days=9), MOMENT)
    assert revocations.revoke(tmp_path, "t", MOMENT + timedelta(days=1), MOMENT) == late


@pytest.mark.parametrize(
    ("jti", "until", "says"),
    [
        ("", MOMENT + timedelta(1), "no token id"),
        ("../x", MOMENT + timedelta(1), "no token id"),
        ("a.b.c", MOMENT + timedelta(1), "no token id"),
        ("t", MOMENT - timedelta(hours=1), "expired already"),
    ],
)
def test_what_cannot_be_revoked(tmp_path: Path, jti: str, until: datetime, says: str) -> None:
    with pytest.raises(InputError, match=says):
        revocations.revoke(tmp_path, jti, until, MOMENT)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"revoked": 7}', '{"revoked": [{"jti": "a"}]}', '{"revoked": [7]}']
)
def test_a_broken_list_lets_nobody_in_until_it_is_mended(settings: Settings, wall: Wall, content: str) -> None:
    verifier, token = TokenVerifier(Trust(settings), now=wall), issue_token(settings, now=wall())
    verifier.verify(token)
    path = revocations.revocations_path(settings.home_path)
    path.write_text(content)
    wall.seconds += LOOK_SECONDS
    refused(verifier, token, "revoked tokens cannot be read", 503)
    with pytest.raises(ConfigError, match="is broken"):
        revocations.revoke(settings.home_path, "t", datetime.now(UTC) + timedelta(1))
    path.unlink()
    wall.seconds += LOOK_SECONDS
    assert verifier.verify(token).subject == "trader"


def test_the_key_that_signs_cannot_be_retired(tmp_path: Path) -> None:
    old, new = (token_keys.rotate(tmp_path, MOMENT).kid for _ in range(2))
    with pytest.raises(InputError, match="key that signs") as still:
        token_keys.retire(tmp_path, new)
    assert "rotate" in still.value.hint
    for kid in ("nonsense", "../jwt_keys/" + old, old + ".pem", ""):
        with pytest.raises(InputError, match="No signing key"):
            token_keys.retire(tmp_path, kid)
    token_keys.retire(tmp_path, old)
    assert [key.kid for key in token_keys.read_keys(tmp_path)] == [new]


def test_a_key_file_that_is_none_harms_no_other(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    home = settings.home_path
    good = token_keys.rotate(home, MOMENT)
    folder = token_keys.key_folder(home)
    (folder / "20261124T193557Z-00000000.pem").write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n")
    for name in ("notes.txt", "old.pem", "20261324T999999Z-00000000.pem"):
        (folder / name).write_text("x")
    token = issue_token(settings)
    assert jwt.get_unverified_header(token)["kid"] == good.kid
    assert TokenVerifier(Trust(settings)).verify(token)
    assert "20261124T193557Z-00000000" in capsys.readouterr().out


def test_a_lost_local_secret_is_trusted_no_more(settings: Settings, wall: Wall) -> None:
    verifier, token = TokenVerifier(Trust(settings), now=wall), issue_token(settings, now=wall())
    verifier.verify(token)
    (settings.home_path / "secrets" / "jwt_secret").unlink()
    wall.seconds += LOOK_SECONDS
    refused(verifier, token, "not signed by this installation")


def test_the_key_set_holds_public_halves_only(make_desk: Any) -> None:
    desk = make_desk()
    assert desk.client.get("/.well-known/jwks.json").json() == {"keys": []}
    kids = [token_keys.rotate(desk.settings.home_path).kid for _ in range(2)]
    desk = make_desk()
    answer = desk.client.get("/.well-known/jwks.json")
    assert answer.headers["cache-control"] == "public, max-age=300"
    assert [key["kid"] for key in answer.json()["keys"]] == kids[::-1]
    assert {name for key in answer.json()["keys"] for name in key} == {"kty", "crv", "x", "kid", "alg", "use"}
    again = desk.client.get("/.well-known/jwks.json", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304
    keys = jwt.PyJWKSet.from_dict(answer.json())
    token = issue_token(desk.settings, "desk-7")
    assert jwt.decode(token, keys[kids[1]], algorithms=["EdDSA"], audience="lstmc-api")["sub"] == "desk-7"


def test_admin_is_a_scope_that_is_asked_for(settings: Settings) -> None:
    verifier = TokenVerifier(Trust(settings))
    assert verifier.verify(issue_token(settings)).scopes == {"read", "signals"}
    assert verifier.verify(issue_token(settings, scopes=("read", "admin"))).scopes == {"read", "admin"}
