"""The report's tables as HTML: verdicts, losses, what was tried, leak tests, conditions, bars. Reads report.json only."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from tuning.report_words import FAMILY_NAMES, KIND_NAMES, condition_words, horizon_words, kind_of, share

Report = Mapping[str, Any]


def table(head: Iterable[str], rows: str) -> str:
    heads = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'


def section(title: str, words: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{f'<p>{escape(words)}</p>' if words else ''}{content}</section>"


def targets(report: Report) -> str:
    rows = "".join(_target_row(name, v) for name, v in report["targets"].items())
    head = ("Forecast", "Loss", "Baseline", "Its loss", "Skill", "t", "Also", "Passed")
    return section("Verdicts", "", table(head, rows))


def _target_row(name: str, v: Mapping[str, Any]) -> str:
    badge = '<b class="yes">yes</b>' if v["promoted"] else '<b class="no">no</b>'
    cells = [
        f"<td><b>{escape(name)}</b><br><small>{escape(KIND_NAMES[kind_of(name)])}, {escape(horizon_words(name))}</small></td>",
        f"<td class=n>{number(v['loss'])}<br><small>{escape(v['metric'])}</small></td>",
        f"<td>{escape(FAMILY_NAMES.get(v['baseline'], v['baseline']))}</td>",
        f"<td class=n>{number(v['baseline_loss'])}</td>",
        f"<td class=n>{percent(v['skill'])}</td>",
        f"<td class=n>{number(v['t'], 2)}</td>",
        f"<td><small>{escape(_also(v))}</small></td>",
        f"<td>{badge}</td>",
    ]
    why = f'<tr class="why"><td colspan=8>{escape(v["why"])}</td></tr>'
    return f"<tr>{''.join(cells)}</tr>{why}"


def _also(v: Mapping[str, Any]) -> str:
    """The figures that only this kind of forecast has."""
    said = []
    if v.get("cov80") is not None:
        said.append(f"coverage {v['cov80']:.1%} of 80 %, {v['cov90']:.1%} of 90 %")
        said.append(f"pinball skill over all earlier history {percent(v['pinball_skill'])}")
        said.append(f"over the training window's history {percent(v['pinball_skill_window'])}")
    if v.get("qlike_har_how") is not None:
        said.append(f"HAR + hour-of-week {v['qlike_har_how']:.4f}, t against it {number(v.get('t_har_how'), 2)}")
    if v.get("auc") is not None:
        said.append(f"AUC {v['auc']:.3f}, without rollover hours {number(v.get('auc_ex_rollover'), 3)}")
        net = f"{v['net_bp']:+.2f} bp" if v.get("net_bp") is not None else f"unknown: {v.get('net_bp_reason', '')}"
        said.append(f"gross {number(v.get('gross_bp'), 2)} bp, net of spread {net}")
    return "; ".join(said)


def suspicious(report: Report) -> str:
    """Figures too good to be true, each with the leak battery's word on it."""
    names = {"qlike_gain": "QLIKE below HAR + hour-of-week by", "pinball_skill": "pinball skill", "auc": "AUC",
             "auc_ex_rollover": "AUC without rollover", "accuracy": "accuracy"}  # fmt: skip
    rows = "".join(
        f"<tr><td>{escape(s['target'])}</td><td>{_family(s['family'])}</td><td>{escape(names[s['figure']])}</td>"
        f"<td class=n><b class=no>{number(s['value'], 3)}</b></td><td class=n>{number(s['limit'], 3)}</td>"
        f"<td>{escape(s['explanation'])}</td></tr>"
        for s in report["suspicious"]
    )
    if not rows:
        return section("Too good to be true?", "No figure lies beyond the limits at which a leak is suspected.", "")
    words = "These figures lie beyond the limits at which a leak is suspected, with what the leak battery says to it."
    return section(
        "Too good to be true?", words, table(("Forecast", "Family", "Figure", "Value", "Limit", "Explanation"), rows)
    )


def losses(report: Report) -> str:
    """Families by target: mean loss, and t against the named baseline."""
    of = report["targets"]
    names = list(dict.fromkeys(name for v in of.values() for name in v["family_losses"]))
    rows = "".join(
        f"<tr><td>{_family(name)}</td>{''.join(_loss_cell(v, name) for v in of.values())}</tr>" for name in names
    )
    words = (
        "Lower is better; below each loss its t against the target's named baseline (marked). Negative is better than the "
        "baseline; -2 or less is beyond luck."
    )
    return section("Every family's loss", words, table(("Family", *of), rows))


def _loss_cell(v: Mapping[str, Any], name: str) -> str:
    if v["family_losses"].get(name) is None:
        return "<td class=n>–</td>"
    marked = " class='n base'" if name == v["baseline"] else " class=n"
    t = "baseline" if name == v["baseline"] else f"t {number(v['family_t'].get(name), 2)}"
    return f"<td{marked}>{number(v['family_losses'][name])}<br><small>{t}</small></td>"


def symbol_losses(report: Report) -> str:
    """The stack's skill over the named baseline by symbol and target, with its t."""
    of = report["targets"]
    rows = "".join(
        f"<tr><td>{escape(symbol)}</td>{''.join(_symbol_cell(v['per_symbol'].get(symbol)) for v in of.values())}</tr>"
        for symbol in report["protocol"]["symbols"]
    )
    words = "The stack's skill over the named baseline, by symbol, with its loss and t."
    return section("Losses by symbol", words, table(("Symbol", *of), rows))


def _symbol_cell(figures: Mapping[str, Any] | None) -> str:
    if not figures:
        return "<td class=n>–</td>"
    t = number(figures.get("t"), 2)
    return f"<td class=n>{percent(figures['skill'])}<br><small>{number(figures['loss'])}, t {t}</small></td>"


def tried(report: Report) -> str:
    """Families with settings and CPU time; how many settings a search tried."""
    of, spent = report["tried"], report["family_cpu_seconds"]
    rows = "".join(
        f"<tr><td>{_family(name)}</td><td><small>{escape(_settings(name, of))}</small></td>"
        f"<td class=n>{number(spent.get(name), 1)}</td></tr>"
        for name in of["families"]
    )
    bets = next(iter(report["bets"].values()), None)
    trials = f" For the deflated Sharpe ratio that makes {bets['trials']} trials." if bets else ""
    words = f"{len(of['families'])} families on {len(of['targets'])} targets, seed {of['seed']}. {search_words(report)}{trials}"
    return section("What was tried", words, table(("Family", "Settings", "CPU-s"), rows))


def search_words(report: Report) -> str:
    """What a search went through, by kind of family, and what it chose."""
    found = report.get("search") or {}
    if "skipped" in found:
        return f"No search: {found['skipped']}."
    said = [
        f"{kind}: no search, {of['skipped']}."
        if "skipped" in of
        else f"{kind}: {of['trials']} settings tried, {of['pruned']} of them pruned, {of['failed']} failed; number "
        f"{of['chosen']} chosen (0 is the preset's own), loss lower by {number(of['gain'])} ± {number(of['standard_error'])}."
        for kind, of in found.items()
    ]
    return " ".join(said) or "No search: one setting per family."


def _settings(name: str, of: Mapping[str, Any]) -> str:
    if name in ("lightgbm", "xgboost"):
        return _pairs(of["boosting"])
    if name in ("lstm", "gru", "attention"):
        return _pairs(of["nets"])
    return "econometric, nothing to choose"


def _pairs(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in settings.items())


def leak_tests(report: Report) -> str:
    rows = "".join(
        f"<tr><td>{mark(test['passed'])}</td><td>{escape(name.replace('_', ' ').capitalize())}</td>"
        f"<td class=n>{number(test['value'])}</td><td class=n>{number(test['limit'])}</td>"
        f"<td><small>{escape(test.get('detail') or '')}</small></td></tr>"
        for name, test in report["leak_tests"].items()
    )
    words = "Run on these bars with the code that trained. docs/honesty.md says what each does."
    return section("Leak battery", words, table(("", "Test", "Figure", "Limit", "Seen"), rows))


def conditions(report: Report) -> str:
    parts = []
    for name, v in report["targets"].items():
        rows = "".join(
            f"<tr><td>{mark(c['passed'])}</td><td>{escape(condition_words(c['name']))}</td>"
            f"<td class=n>{number(c['value'])}</td><td class=n>{number(c['limit'])}</td><td>{escape(c['detail'])}</td></tr>"
            for c in v["conditions"]
        )
        met = sum(c["passed"] for c in v["conditions"])
        inside = table(("", "Condition", "Figure", "Limit", ""), rows)
        parts.append(
            f"<details><summary>{escape(name)}: {met} of {len(v['conditions'])} conditions met</summary>{inside}</details>"
        )
    return section("The gate, condition by condition", "", "".join(parts))


def bars(report: Report) -> str:
    rows = "".join(
        f"<tr><td>{escape(symbol)}</td><td class=n>{b['rows']:,}</td><td>{b['from'][:10]}</td><td>{b['to'][:10]}</td>"
        f"<td>{escape(str((b.get('clock') or {}).get('rule', '')))}</td><td>{escape(_quarantined(b))}</td></tr>"
        for symbol, b in report["bars"].items()
    )
    out = "".join(f"<li>{escape(s)} left out: {escape(why)}</li>" for s, why in report.get("excluded", {}).items())
    cost = f"{report.get('cpu_seconds') or '?'} CPU-seconds, at most {report.get('peak_rss_mb') or '?'} MB."
    inside = table(("Symbol", "Bars", "From", "To", "Clock", "Rows refused"), rows)
    protocol = escape(json.dumps(report["protocol"], indent=1))
    more = f"<details><summary>Protocol</summary><pre>{protocol}</pre></details>"
    return section("Bars and protocol", cost, f"{inside}<ul>{out}</ul>{more}")


def _quarantined(of: Mapping[str, Any]) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in (of.get("quarantined") or {}).items()) or "none"


def _family(name: str) -> str:
    return escape(FAMILY_NAMES.get(name, name))


def mark(passed: bool) -> str:
    return '<b class="yes" title="passed">✓</b>' if passed else '<b class="no" title="not passed">✗</b>'


def number(value: float | None, digits: int = 4) -> str:
    if value is None:
        return "–"
    if value == 0:
        return "0"
    return f"{value:.{digits}f}" if abs(value) >= 0.01 else f"{value:.{digits}g}"


def percent(value: float | None) -> str:
    return "–" if value is None else share(value) if abs(value) >= 0.1 else f"{value:+.2%}"
