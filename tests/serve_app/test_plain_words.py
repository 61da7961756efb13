"""Skill in plain words: figures are never dressed up."""

from __future__ import annotations

from typing import Any

import pytest

from serve_app.plain_words import skill_sentence

CARD = {
    "target": "rv24",
    "metric": "qlike",
    "baseline": "HAR",
    "value": 0.031,
    "t_statistic": -4.2,
    "n": 5712,
    "passed_gate": True,
    "reason": "",
}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({}, "Volatility, next 24 bars: 3.1% better than HAR by QLIKE (t −4.2, n = 5,712)."),
        (
            {"value": -0.012, "t_statistic": 1.0},
            "Volatility, next 24 bars: 1.2% worse than HAR by QLIKE (t +1.0, n = 5,712).",
        ),
        ({"value": 0.0}, "Volatility, next 24 bars: the same as HAR by QLIKE (t −4.2, n = 5,712)."),
        ({"value": None, "reason": "Too few bars."}, "Volatility, next 24 bars: not measured. Too few bars."),
        (
            {"target": "sign24", "metric": "log_loss", "value": -0.004, "passed_gate": False},
            "Direction, next 24 bars: no edge found; 0.4% worse than HAR by log-loss (t −4.2, n = 5,712).",
        ),
        (
            {"target": "sign1", "metric": "auc", "value": 0.521, "t_statistic": None},
            "Direction, next bar: AUC 0.521 (a coin is 0.500) (n = 5,712).",
        ),
        (
            {"target": "r1", "metric": "pinball", "n": 0},
            "Return range, next bar: 3.1% better than HAR by pinball loss (t −4.2).",
        ),
    ],
)
def test_a_sentence_per_card(change: dict[str, Any], sentence: str) -> None:
    assert skill_sentence(CARD | change) == sentence
