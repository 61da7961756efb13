"""What `status` and `up` print for people."""

from __future__ import annotations

from typing import Any

import pytest

from cluster import health
from cluster.attach import age_words, source_words, watch_words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "-"),
        (0.4, "0 s"),
        (59, "59 s"),
        (754, "12 min"),
        (12_000, "3 h 20 min"),
        (175_892.4, "2 d 51 min"),
        (86_400, "1 d"),
    ],
)
def test_ages_are_said_in_two_units(seconds: float | None, words: str) -> None:
    assert age_words(seconds) == words


@pytest.mark.parametrize(
    ("report", "words"),
    [
        ({}, ""),
        ({"api": {"error": "The HTTP API does not answer."}, "clock": {"error": "unreadable"}}, ""),
        (
            {"api": {"source": {"source": {"connected": True, "reason": ""}, "transport": "http"}}},
            "source  http, connected",
        ),
        (
            {"api": {"source": {"source": {"connected": False, "reason": "No terminal."}, "transport": "ray"}}},
            "source  ray, not connected: No terminal.",
        ),
        (
            {"clock": {"clock_rule": "new_york", "server": "Demo", "clock": "52 of 52 weekly opens follow new_york."}},
            "clock   new_york on Demo: 52 of 52 weekly opens follow new_york.",
        ),
    ],
)
def test_status_says_by_which_way_and_in_whose_time_bars_come(report: dict[str, Any], words: str) -> None:
    assert source_words(report) == words


def test_status_says_where_to_look_and_who_has_ended() -> None:
    words = watch_words({"prometheus": "http://127.0.0.1:9090", "grafana-server": None})
    assert words.startswith("watch   prometheus http://127.0.0.1:9090, grafana-server has ended: `lstmc up --watch`")


def test_status_says_what_the_source_cannot_write() -> None:
    alive = {
        "running": True,
        "market": "http",
        "nodes": [],
        "actors": [],
        "serve": {"status": "RUNNING"},
        "champions": {},
        "jobs": [],
        "api": {"source": {"source": {"connected": True, "problems": {"evidence": "No space left."}}}},
    }
    assert health.root_cause(alive) == "No space left."
    assert health.root_cause(alive | {"api": {"source": {"source": {"connected": True, "problems": {}}}}}) == ""
