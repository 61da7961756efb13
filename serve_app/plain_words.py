"""Skill in plain words, for people who do not read t-statistics. The same sentence stands in the API and on the page."""

from __future__ import annotations

import re
from typing import Any

_METRIC_WORDS = {"qlike": "QLIKE", "pinball": "pinball loss", "log_loss": "log-loss", "auc": "AUC"}
_BASELINE_WORDS = {
    "har": "HAR",
    "har_how": "HAR + hour-of-week",
    "ewma": "EWMA",
    "unconditional": "unconditional history",
    "base_rate": "the base rate",
    "coin": "a coin",
    "naive": "the last value",
}
_TARGET = re.compile(r"^(rv|r|sign)(\d+)$")
_TARGET_WORDS = {"rv": "Volatility", "r": "Return range", "sign": "Direction"}


def target_words(target: str) -> str:
    """ "rv24" -> "Volatility, next 24 bars"."""
    match = _TARGET.match(target)
    if match is None:
        return target
    bars = int(match.group(2))
    return f"{_TARGET_WORDS[match.group(1)]}, next {'bar' if bars == 1 else f'{bars} bars'}"


def skill_sentence(card: dict[str, Any]) -> str:
    """One SkillCard as a dict -> one sentence: how much better than what, how sure, or why there is no figure."""
    head = target_words(str(card["target"]))
    if card.get("value") is None:
        return f"{head}: not measured. {card.get('reason') or ''}".strip()
    if card["metric"] == "auc":
        said = f"AUC {card['value']:.3f} (a coin is 0.500)"
    else:
        said = _compared(card)
    tail = [f"t {_signed(card['t_statistic'], 1)}"] if card.get("t_statistic") is not None else []
    tail += [f"n = {card['n']:,}"] if card.get("n") else []
    return f"{head}: {said}{' (' + ', '.join(tail) + ')' if tail else ''}."


def _compared(card: dict[str, Any]) -> str:
    value, metric = float(card["value"]), _METRIC_WORDS.get(card["metric"], card["metric"])
    versus = f"{baseline_words(card['baseline'])} by {metric}"
    by_how_much = f"{abs(value):.1%} {'better' if value > 0 else 'worse'} than {versus}"
    said = f"the same as {versus}" if abs(value) < 0.0005 else by_how_much
    no_edge = str(card["target"]).startswith("sign") and not card.get("passed_gate")
    return f"no edge found; {said}" if no_edge else said


def baseline_words(name: str) -> str:
    return _BASELINE_WORDS.get(name, name)


def _signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")
