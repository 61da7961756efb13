"""`lstmc token`: tokens for the HTTP API, the keys that sign them, and which are refused before they expire."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from cluster.console import Json, comma_list, example, moment, new_app, rows, settings, show

app, keys_app = new_app(), new_app()
app.add_typer(keys_app, name="keys", help="The Ed25519 keys that sign tokens: list, rotate, retire.")
Kid = Annotated[str, typer.Argument(metavar="KID", help="As `lstmc token keys list` shows it.")]


@app.callback()
def _token() -> None:
    """Tokens for the HTTP API, and the keys that sign them. A running cluster follows every change within a second."""


@app.command(epilog=example("lstmc token issue --subject desk-7 --days 7 --json"))
def issue(
    subject: Annotated[str, typer.Option(help="Who it is for; rate limits count per subject.")] = "trader",
    days: Annotated[float, typer.Option(help="Days it is valid.")] = 30,
    scopes: Annotated[str | None, typer.Option(help="Of read, signals, admin. Default: read,signals.")] = None,
    as_json: Json = False,
) -> None:
    """A signed token for the HTTP API, on stdout. `--json` also says its id (`jti`), which revokes it."""
    from datetime import UTC, datetime

    from market.forecasts import iso_utc
    from serve_app.auth import USUAL_SCOPES, make_token

    made = make_token(settings(), subject, days=days, scopes=comma_list(scopes) or USUAL_SCOPES)
    said = {"token": made.token, "subject": subject, "days": days, "jti": made.token_id, "exp": made.expires_at}
    said["expires_at"] = iso_utc(datetime.fromtimestamp(made.expires_at, UTC))
    show(said, as_json, lambda _: made.token)


@app.command(epilog=example("lstmc token revoke 3f1c0d7e5b6a4c2f9e8d7c6b5a493827 --until 2026-12-24"))
def revoke(
    jti: Annotated[str, typer.Argument(metavar="JTI", help="The token's id, as `token issue --json` says it.")],
    until: Annotated[str | None, typer.Option(help="When it expires, UTC. Default: as late as any token can.")] = None,
    as_json: Json = False,
) -> None:
    """Refuse a token from now on. The entry goes by itself once the token would have expired."""
    from datetime import UTC, datetime, timedelta

    from serve_app import revocations
    from serve_app.auth import MAX_DAYS

    last = moment(until, "--until") or datetime.now(UTC) + timedelta(days=MAX_DAYS)
    entry = revocations.revoke(settings().home_path, jti, last)
    show(asdict(entry), as_json, lambda _: f"{entry.jti} is refused until {entry.until}")


@app.command("list-revoked", epilog=example("lstmc token list-revoked --json"))
def list_revoked(as_json: Json = False) -> None:
    """The tokens that are refused before they expire."""
    from serve_app.revocations import read_revocations

    found = [asdict(entry) for entry in read_revocations(settings().home_path)]
    show(found, as_json, lambda _: rows(list(found[0]), [list(e.values()) for e in found]) if found else "none")


@keys_app.callback()
def _keys() -> None:
    """The Ed25519 keys that sign tokens. The newest signs; older ones verify until they are retired."""


@keys_app.command("list", epilog=example("lstmc token keys list"))
def list_keys(as_json: Json = False) -> None:
    """All keys, newest first."""
    from serve_app.token_keys import listed

    here = settings()
    found = listed(here.home_path)
    alone = "none: tokens are signed with the local secret" if here.profile == "local" else "none: make one with rotate"
    show(found, as_json, lambda _: rows(list(found[0]), [list(k.values()) for k in found]) if found else alone)


@keys_app.command(epilog=example("lstmc token keys rotate"))
def rotate(as_json: Json = False) -> None:
    """Make a new key, which signs from now on. Tokens of the older ones stay good."""
    from serve_app import token_keys

    home = settings().home_path
    kid = token_keys.rotate(home).kid
    show(next(key for key in token_keys.listed(home) if key["kid"] == kid), as_json, lambda _: kid)


@keys_app.command(epilog=example("lstmc token keys retire 20261124T193557Z-1f0c7a2b"))
def retire(kid: Kid, as_json: Json = False) -> None:
    """Delete an older key: every token that it signed is refused from then on."""
    from serve_app import token_keys

    token_keys.retire(settings().home_path, kid)
    show({"kid": kid, "retired": True}, as_json, lambda _: f"{kid} is retired")
