"""What `status` and `up` print for people."""

from __future__ import annotations

import pytest

from cluster.attach import age_words


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
