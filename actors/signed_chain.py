"""What a hash chain is signed with: each link is an HMAC over the link before it and its own content."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

from market.forecasts import jsonable

GENESIS = "0" * 64  # what the first link follows


def canonical(value: Any) -> str:
    """One text per value: sorted keys, no spaces, NaN as null."""
    return json.dumps(jsonable(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def signature(key: bytes, text: str) -> str:
    """HMAC-SHA256 in hex."""
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def same(one: Any, other: str) -> bool:
    """Compared in constant time; anything but a text, as an edit may leave it, is not the same."""
    return isinstance(one, str) and hmac.compare_digest(one.encode(errors="replace"), other.encode())
