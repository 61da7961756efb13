"""Tokens that are refused before they expire, by `jti`, in `<home>/secrets/revoked_tokens.json`.

An entry is dropped once its token would have expired anyway. Does not know keys or HTTP.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from configs.secret_files import changing, write_owner_only
from market.errors import ConfigError, InputError
from market.forecasts import iso_utc, parse_utc

MARGIN = timedelta(minutes=2)  # a token is let in for its leeway after it has expired
_JTI = re.compile(r"^[A-Za-z0-9_-]{1,64}$")


@dataclass(frozen=True)
class Revocation:
    """Times are ISO 8601, UTC. `until`: when the token expires and the entry goes."""

    jti: str
    until: str
    revoked_at: str


def revocations_path(home: Path) -> Path:
    return home / "secrets" / "revoked_tokens.json"


def read_revocations(home: Path, now: datetime | None = None) -> list[Revocation]:
    """Those that still matter at `now`. ConfigError when the file is broken: nobody knows then who is shut out."""
    path = revocations_path(home)
    try:
        found = [Revocation(**entry) for entry in json.loads(path.read_bytes())["revoked"]]
        gone = (now or datetime.now(UTC)) - MARGIN
        live = [entry for entry in found if parse_utc(entry.until) > gone]
        if not all(isinstance(entry.jti, str) for entry in live):
            raise ValueError
        return live
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ConfigError(
            f"The list of revoked tokens {path} is broken.",
            hint="Restore it; if that cannot be, rotate the signing key, retire the old one and remove the file.",
        ) from None


def revoke(home: Path, jti: str, until: datetime, now: datetime | None = None) -> Revocation:
    """Refuse the token `jti` from now on. A second revocation of it keeps the later `until`."""
    if not _JTI.match(jti):
        raise InputError("That is no token id.", hint="`lstmc token issue --json` prints it as `jti`; it is no token.")
    now = (now or datetime.now(UTC)).replace(microsecond=0)
    if until <= now - MARGIN:
        raise InputError("That token has expired already.", hint="Nothing needs to be revoked.")
    with changing(home / "secrets"):
        live = {entry.jti: entry for entry in read_revocations(home, now)}
        entry = Revocation(jti, iso_utc(until.replace(microsecond=0)) or "", iso_utc(now) or "")
        if jti in live and parse_utc(live[jti].until) >= until:
            return live[jti]
        live[jti] = entry
        content = json.dumps({"revoked": [asdict(one) for one in live.values()]}, indent=1)
        write_owner_only(revocations_path(home), content.encode())
    return entry
