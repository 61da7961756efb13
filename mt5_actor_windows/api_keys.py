"""The MT5 data API's keys, kept where the API runs: digests only, two at most, changed while it serves.

`python -m mt5_actor_windows.api_keys issue|accept|revoke|list`. Does not know HTTP, rate limits or terminals.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import os
import re
import secrets
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from configs.settings import Settings
from market.errors import ConfigError, InputError
from market.forecasts import iso_utc
from mt5_actor_windows.command_line import add_home, new_parser, run

KEY_FILE = "data_api_keys.json"
PLAIN_FILE = "data_api_key"  # the head's own key in the clear: what its client sends
PLAIN_VARIABLE = "LSTMC_SECRET_DATA_API_KEY"
MOST_KEYS = 2  # the one in use and the one that takes its place
ID_LETTERS = 8
COMMAND = "python -m mt5_actor_windows.api_keys"
_DIGEST, _NAME = re.compile(r"^[0-9a-f]{64}$"), re.compile(r"^[\w.@ -]{1,64}$")


@dataclass(frozen=True)
class ApiKey:
    """What is kept of a key. `id`: the first letters of its digest, the same wherever the key is held."""

    id: str
    name: str
    sha256: str  # hex, 64 letters
    created_at: str  # ISO 8601, UTC


def digest_of(key: bytes) -> str:
    """Hex SHA-256. A plain hash is right here: a key is 256 random bits, which no list of guesses contains."""
    return hashlib.sha256(key).hexdigest()


def node_home(settings: Settings) -> Path:
    """LSTMC_HOME, else the settings' home: on a Windows node the settings name the head's folder, not its own."""
    given = os.environ.get("LSTMC_HOME")
    return Path(given).expanduser().resolve() if given else settings.home_path


# The file


def read_keys(home: Path) -> list[ApiKey]:
    """The keys of `<home>/secrets/data_api_keys.json`; [] without one. ConfigError when it is broken."""
    path = _path(home)
    try:
        return _parse(path.read_bytes())
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, KeyError):
        raise ConfigError(
            f"The key file {path} is broken.", hint=f"Remove it and issue new keys: {COMMAND} issue."
        ) from None


def issue(home: Path, name: str = "client", now: datetime | None = None) -> tuple[str, ApiKey]:
    """Make a key: (the key itself, which is kept nowhere; what is kept). InputError when two live already."""
    key = "lstmc_" + secrets.token_urlsafe(32)
    return key, accept(home, digest_of(key.encode()), name, now)


def accept(home: Path, sha256: str, name: str = "client", now: datetime | None = None) -> ApiKey:
    """Let in a key made elsewhere, of which only the digest came here. The same digest again changes nothing."""
    sha256, keys = sha256.strip().lower(), read_keys(home)
    if not _DIGEST.match(sha256):
        raise InputError(f"{sha256!r} is no SHA-256 digest.", hint="It has 64 hexadecimal digits: see `list`.")
    if not _NAME.match(name):
        raise InputError(f"The name {name!r} cannot be used.", hint="Use up to 64 letters, digits, spaces and .@_-.")
    known = next((key for key in keys if key.sha256 == sha256), None)
    if known is not None:
        return known
    if len(keys) >= MOST_KEYS:
        live = " and ".join(f"{key.id} ({key.name})" for key in keys)
        raise InputError(f"{len(keys)} keys are live, {live}; there is room for no third.", hint="Revoke one first.")
    key = ApiKey(sha256[:ID_LETTERS], name, sha256, _text(now or datetime.now(UTC)))
    _write(home, [*keys, key])
    return key


def revoke(home: Path, key_id: str) -> ApiKey:
    """Shut out a key at once. InputError when no key of the file has that id."""
    keys = read_keys(home)
    found = next((key for key in keys if key.id == key_id), None)
    if found is None:
        plain = plain_key(home)
        if plain is not None and plain.id == key_id:
            hint = (
                f"Replace the content of {home / 'secrets' / PLAIN_FILE} (or {PLAIN_VARIABLE}); that ends the old one."
            )
            raise InputError(f"{key_id} is this installation's own key, which stands in the clear.", hint=hint)
        raise InputError(f"No key {key_id!r}.", hint=f"There is {', '.join(key.id for key in keys) or 'none'}.")
    _write(home, [key for key in keys if key is not found])
    return found


def plain_key(home: Path) -> ApiKey | None:
    """The installation's own key from LSTMC_SECRET_DATA_API_KEY or `<home>/secrets/data_api_key`; None without one."""
    given, path = os.environ.get(PLAIN_VARIABLE, "").strip(), home / "secrets" / PLAIN_FILE
    name, made = PLAIN_VARIABLE, ""
    if not given:
        try:
            given, name = path.read_text().strip(), f"secrets/{PLAIN_FILE}"
            made = _text(datetime.fromtimestamp(path.stat().st_mtime, UTC))
        except FileNotFoundError:
            return None
    digest = digest_of(given.encode())
    return ApiKey(digest[:ID_LETTERS], name, digest, made) if given else None


def live_keys(home: Path) -> list[dict[str, str]]:
    """All keys that are let in: id, name, sha256, created_at ("" where unknown) and `kept`, digest or plain."""
    plain = plain_key(home)
    kept = [asdict(key) | {"kept": "digest"} for key in read_keys(home)]
    return kept + ([asdict(plain) | {"kept": "plain"}] if plain else [])


def _text(moment: datetime) -> str:
    return iso_utc(moment.replace(microsecond=0)) or ""


def _path(home: Path) -> Path:
    return home / "secrets" / KEY_FILE


def _parse(content: bytes) -> list[ApiKey]:
    keys = [ApiKey(**entry) for entry in json.loads(content)["keys"]]
    for key in keys:
        if not _DIGEST.match(key.sha256) or key.id != key.sha256[:ID_LETTERS] or not isinstance(key.name, str):
            raise ValueError
    if len(keys) > MOST_KEYS:
        raise ValueError
    return keys


def _write(home: Path, keys: Sequence[ApiKey]) -> None:
    path = _path(home)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f"{KEY_FILE}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump({"keys": [asdict(key) for key in keys]}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


# Asking


class KeyRing:
    """Which keys are let in now. Looks at its two files with one `stat` each per question and rereads them when they changed."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._files = (_path(home), home / "secrets" / PLAIN_FILE)
        self._seen: tuple[Any, ...] | None = None
        self._live: list[ApiKey] = []
        self._broken = False

    def verify(self, presented: bytes) -> str | None:
        """The id of the key, None when it is none of ours. Takes the same time whichever key is asked about."""
        self._look()
        digest, found = digest_of(presented), None
        for key in self._live:
            if hmac.compare_digest(key.sha256, digest):
                found = key.id
        return found

    def trouble(self) -> tuple[str, str]:
        """Why somebody was not let in, and what to do about it."""
        if self._broken:
            hint = f"On its host remove secrets/{KEY_FILE} and make a new key: {COMMAND} issue."
            return "The API's key file is broken; its keys are let in no more.", hint
        if not self._live:
            return "This API has no key yet, so nobody is let in.", f"On its host make one: {COMMAND} issue."
        hint = f"Send the header X-API-Key. On the API's host `{COMMAND} list` shows which keys are live."
        return "The API key is missing or wrong.", hint

    def _look(self) -> None:
        now: tuple[Any, ...] | None = tuple(_stamp(path) for path in self._files)
        if now == self._seen:
            return
        self._broken, live = False, []
        try:
            live = read_keys(self._home)
        except ConfigError:
            self._broken = True
        except OSError:  # on Windows a file that is being replaced: read it again with the next question
            self._broken, now = True, None
        try:
            plain = plain_key(self._home)
        except (OSError, ValueError):
            plain, now = None, None
        self._live, self._seen = live + ([plain] if plain else []), now


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino  # a renamed file is another inode within the same clock tick


# The command line of a host that has neither typer nor `lstmc`


def main(arguments: Sequence[str] | None = None) -> int:
    parser = new_parser(COMMAND, "Keys of the MT5 data API on this host.", f"{COMMAND} issue --name head")
    commands = parser.add_subparsers(dest="command", required=True, metavar="issue|accept|revoke|list")
    texts = {
        "issue": "Make a key. It is shown once and kept nowhere.",
        "accept": "Let in a key that was made elsewhere, by its digest.",
        "revoke": "Shut out a key at once.",
        "list": "The keys that are let in.",
    }
    made = {}
    examples = {"issue": "issue --name head", "accept": "accept DIGEST --name head", "revoke": "revoke 1f0c7a2b"}
    for name, text in texts.items():
        made[name] = new_parser(f"{COMMAND} {name}", text, f"{COMMAND} {examples.get(name, name)}", commands, name)
        add_home(made[name])
        made[name].add_argument("--json", action="store_true", help="print data as JSON")
    made["accept"].add_argument("digest", help="SHA-256 of the key, 64 hexadecimal digits")
    made["revoke"].add_argument("id", help="as `list` shows it")
    for name in ("issue", "accept"):
        made[name].add_argument("--name", default="client", help="who holds it (default: client)")
    given = parser.parse_args(arguments)
    return run("api_keys", lambda: _command(given))


def _command(given: argparse.Namespace) -> int:
    home, plain = Path(given.home), None
    if given.command == "list":
        found = live_keys(home)
        print(json.dumps(found, indent=1) if given.json else list_words(found))
        return 0
    if given.command == "issue":
        plain, entry = issue(home, given.name)
    elif given.command == "accept":
        entry = accept(home, given.digest, given.name)
    else:
        entry = revoke(home, given.id)
    if given.json:
        print(json.dumps(asdict(entry) | ({"key": plain} if plain else {}), indent=1))
    else:
        print(plain or f"{entry.id} {entry.name}: {'revoked' if given.command == 'revoke' else 'accepted'}")
    return 0


def list_words(found: Sequence[dict[str, str]]) -> str:
    """`live_keys` as lines: id, when made, digest, name."""
    lines = [f"{key['id']}  {key['created_at'] or '-':20}  {key['sha256']}  {key['name']}" for key in found]
    return "\n".join(lines) or "no keys: nobody is let in"


if __name__ == "__main__":
    sys.exit(main())
