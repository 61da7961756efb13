"""Spans of time as people write them."""

from __future__ import annotations

import re
from datetime import timedelta

from market.errors import InputError


def parse_budget(text: str) -> timedelta:
    """ "90s", "30m", "2h" -> timedelta; InputError on anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip().lower())
    if not match or float(match.group(1)) == 0:
        raise InputError(f"The budget {text!r} is not a time.", hint="Write 90s, 30m or 2h.")
    return timedelta(seconds=float(match.group(1)) * {"s": 1, "m": 60, "h": 3600}[match.group(2)])
