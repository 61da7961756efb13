"""Plain words for targets, families and conditions, and the verdict of a report. For people; decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KIND_NAMES = {"rv": "volatility", "r": "return intervals", "sign": "direction"}
FAMILY_NAMES = {
    "stack": "Stack",
    "econometric_stack": "Econometric stack",
    "econometric_mean": "Econometric mean",
    "har": "HAR",
    "har_how": "HAR + hour-of-week",
    "har_range": "HAR on ranges + hour-of-week",
    "ewma": "EWMA",
    "ewma_how": "EWMA + hour-of-week",
    "unconditional": "Unconditional",
    "unconditional_how": "Hour-of-week only",
    "lightgbm": "LightGBM",
    "xgboost": "XGBoost",
    "lstm": "LSTM",
    "gru": "GRU",
    "attention": "Attention",
    "base_rate": "Base rate",
    "coin": "Coin (1/2)",
}
_CONDITIONS = {
    "better_on_most_symbols": "Better on most symbols",
    "better_than_champion": "Better than the serving champion (t)",
    "better_outside_rollover": "Better outside the rollover hours (t)",
    "net_of_spread": "Earns more than the spread (bp)",
    "lockbox": "Not worse in the lockbox (loss)",
    "no_nan": "No missing forecast (share)",
    "not_constant": "Not a constant (range)",
    "monotone_quantiles": "Quantiles in order (share crossing)",
}


def kind_of(target: str) -> str:
    """ "rv24" -> "rv"."""
    return target.rstrip("0123456789")


def horizon_words(target: str) -> str:
    bars = int(target[len(kind_of(target)) :])
    return "next bar" if bars == 1 else f"next {bars} bars"


def condition_words(name: str) -> str:
    if name in _CONDITIONS:
        return _CONDITIONS[name]
    if name.startswith("better_than_"):
        baseline = name.removeprefix("better_than_")
        return f"Better than {FAMILY_NAMES.get(baseline, baseline)} (t)"
    return name.replace("_", " ").capitalize()


def verdict(report: Mapping[str, Any]) -> list[str]:
    """What was found, in plain words: first the whole, then one sentence a kind of forecast."""
    targets = report["targets"]
    lines = []
    for kind, name in KIND_NAMES.items():
        found = {target: v for target, v in targets.items() if kind_of(target) == kind}
        if found:
            lines.append(_sentence(kind, name, found))
    improved = [t for t, family in report.get("serves", {}).items() if family == "econometric_stack"]
    if improved:
        lines.append(
            f"The stack of econometric forecasts serves {', '.join(improved)}: it beats HAR + hour-of-week there."
        )
    return [_headline(report), *lines]


def _headline(report: Mapping[str, Any]) -> str:
    passed = [target for target, v in report["targets"].items() if v["promoted"]]
    if not passed:
        return "Nothing was promoted."
    if not report["promoted"]:
        return f"Nothing was promoted: {', '.join(passed)} passed, but a shorter horizon alone carries no model."
    return f"Promoted: {', '.join(passed)}."


def _sentence(kind: str, name: str, found: Mapping[str, Mapping[str, Any]]) -> str:
    passed = [target for target, v in found.items() if v["promoted"]]
    if passed:
        skills = (f"{t} {share(found[t]['skill'])} over {_family(found[t]['baseline'])}" for t in passed)
        return f"Skill in {name}: {', '.join(skills)}."
    if kind == "sign":
        return "No edge found in direction: the odds shown are the base rate."
    return f"No skill in {name} beyond the econometric forecasts, which keep serving."


def _family(name: str) -> str:
    return FAMILY_NAMES.get(name, name)


def share(value: float | None) -> str:
    return "?" if value is None else f"{value:+.1%}"


def summary_lines(report: Mapping[str, Any]) -> list[str]:
    """The verdict and one table row per target, for a terminal or a job's log."""
    head = f"{'target':8} {'metric':9} {'loss':>11} {'baseline':>18} {'its loss':>11} {'skill':>8} {'t':>7}  promoted"
    rows = [_row(name, v) for name, v in report["targets"].items()]
    return [*verdict(report), "", head, *rows, "", *(v["why"] for v in report["targets"].values())]


def _row(name: str, v: Mapping[str, Any]) -> str:
    loss, limit = (_number(v[key], "11.5g") for key in ("loss", "baseline_loss"))
    promoted = "yes" if v["promoted"] else "no"
    return (
        f"{name:8} {v['metric']:9} {loss} {v['baseline']:>18} {limit} {share(v['skill']):>8} "
        f"{_number(v['t'], '7.2f')}  {promoted}"
    )


def _number(value: float | None, form: str) -> str:
    return f"{'?':>{form.split('.')[0]}}" if value is None else f"{value:{form}}"
