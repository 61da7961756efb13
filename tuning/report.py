"""report.html: what was tried, what it was worth and why it was or was not promoted, as one file that needs no internet.

Draws what report.json and the out-of-fold forecasts say; computes no verdict. Plotly's JS comes from its wheel.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from tuning.out_of_fold import OutOfFold
from tuning.report_figures import Figure, figures
from tuning.report_words import FAMILY_NAMES, KIND_NAMES, condition_words, horizon_words, kind_of, verdict

_STYLE = (Path(__file__).parent / "report.css").read_text


def write_report(path: Path, report: Mapping[str, Any], oof: OutOfFold) -> None:
    """Write the page (about 5 MB, most of it Plotly) under a temporary name, then rename."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(render(report, oof), encoding="utf-8")
    temporary.replace(path)


def render(report: Mapping[str, Any], oof: OutOfFold) -> str:
    from plotly.offline import get_plotlyjs

    drawn = figures(report, oof)
    title = f"Forecast report, {report['protocol']['timeframe']}"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title><style>{_STYLE()}</style><script>{get_plotlyjs()}</script></head>
<body><main>
<header><h1>{escape(title)}</h1>{_verdict(report)}{_period(report)}</header>
{_targets(report)}
{"".join(_section(figure) for figure in drawn)}
{_losses(report)}
{_conditions(report)}
{_bars(report)}
</main><script>{_script(drawn)}</script></body></html>
"""


def _verdict(report: Mapping[str, Any]) -> str:
    lines = verdict(report)
    rest = "".join(f"<li>{escape(line)}</li>" for line in lines[1:])
    return f'<p class="verdict">{escape(lines[0])}</p><ul>{rest}</ul>'


def _period(report: Mapping[str, Any]) -> str:
    protocol = report["protocol"]
    facts = (
        f"{len(protocol['symbols'])} symbols, tested on {protocol['test_timestamps']:,} bars from "
        f"{protocol['test_from'][:10]} to {protocol['test_to'][:10]}, {protocol['folds']} purged walk-forward folds, "
        f"{protocol['lockbox_rows']:,} lockbox rows. A t of -2 or less means better than the baseline beyond luck."
    )
    return f'<p class="facts">{escape(facts)}</p>'


def _targets(report: Mapping[str, Any]) -> str:
    rows = "".join(_target_row(name, v) for name, v in report["targets"].items())
    head = "".join(
        f"<th>{name}</th>" for name in ("Forecast", "Loss", "Baseline", "Its loss", "Skill", "t", "Also", "Promoted")
    )
    return f"<section><h2>Verdicts</h2><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></section>"


def _target_row(name: str, v: Mapping[str, Any]) -> str:
    badge = '<b class="yes">yes</b>' if v["promoted"] else '<b class="no">no</b>'
    cells = [
        f"<td><b>{escape(name)}</b><br><small>{escape(KIND_NAMES[kind_of(name)])}, {escape(horizon_words(name))}</small></td>",
        f"<td class=n>{_number(v['loss'])}<br><small>{escape(v['metric'])}</small></td>",
        f"<td>{escape(FAMILY_NAMES.get(v['baseline'], v['baseline']))}</td>",
        f"<td class=n>{_number(v['baseline_loss'])}</td>",
        f"<td class=n>{_percent(v['skill'])}</td>",
        f"<td class=n>{_number(v['t'], 2)}</td>",
        f"<td><small>{escape(_also(v))}</small></td>",
        f"<td>{badge}</td>",
    ]
    why = f'<tr class="why"><td colspan=8>{escape(v["why"])}{_warnings(v)}</td></tr>'
    return f"<tr>{''.join(cells)}</tr>{why}"


def _also(v: Mapping[str, Any]) -> str:
    """The figures that only this kind of forecast has."""
    said = []
    if v.get("cov80") is not None:
        said.append(f"coverage {v['cov80']:.1%} of 80 %, {v['cov90']:.1%} of 90 %")
        said.append(f"pinball skill over unconditional {_percent(v['pinball_skill'])}")
    if v.get("qlike_har_how") is not None:
        said.append(f"HAR + hour-of-week {v['qlike_har_how']:.4f}, t against it {_number(v.get('t_har_how'), 2)}")
    if v.get("auc") is not None:
        said.append(f"AUC {v['auc']:.3f}, without rollover hours {_number(v.get('auc_ex_rollover'), 3)}")
        net = f"{v['net_bp']:+.2f} bp" if v.get("net_bp") is not None else f"unknown: {v.get('net_bp_reason', '')}"
        said.append(f"gross {_number(v.get('gross_bp'), 2)} bp, net of spread {net}")
    return "; ".join(said)


def _warnings(v: Mapping[str, Any]) -> str:
    return "".join(f'<br><b class="no">{escape(text)}</b>' for text in v.get("warnings", ()))


def _section(figure: Figure) -> str:
    return (
        f"<section><h2>{escape(figure.title)}</h2><p>{escape(figure.caption)}</p>"
        f'<div class="plot" id="{figure.key}" style="height:{figure.height}px"></div></section>'
    )


def _losses(report: Mapping[str, Any]) -> str:
    """Families by target: mean loss, and t against the named baseline."""
    targets = report["targets"]
    names = list(dict.fromkeys(name for v in targets.values() for name in v["family_losses"]))
    head = "".join(f"<th>{escape(t)}</th>" for t in targets)
    rows = "".join(
        f"<tr><td>{escape(FAMILY_NAMES.get(name, name))}</td>{''.join(_loss_cell(v, name) for v in targets.values())}</tr>"
        for name in names
    )
    return (
        "<section><h2>Every family's loss</h2><p>Lower is better; below each loss its t against the target's named "
        "baseline (marked). Negative is better than the baseline.</p>"
        f"<table><thead><tr><th>Family</th>{head}</tr></thead><tbody>{rows}</tbody></table></section>"
    )


def _loss_cell(v: Mapping[str, Any], name: str) -> str:
    if v["family_losses"].get(name) is None:
        return "<td class=n>–</td>"
    marked = " class='n base'" if name == v["baseline"] else " class=n"
    t = "baseline" if name == v["baseline"] else f"t {_number(v['family_t'].get(name), 2)}"
    return f"<td{marked}>{_number(v['family_losses'][name])}<br><small>{t}</small></td>"


def _conditions(report: Mapping[str, Any]) -> str:
    parts = []
    for name, v in report["targets"].items():
        rows = "".join(
            f"<tr><td>{'✓' if c['passed'] else '✗'}</td><td>{escape(condition_words(c['name']))}</td>"
            f"<td class=n>{_number(c['value'])}</td><td class=n>{_number(c['limit'])}</td><td>{escape(c['detail'])}</td></tr>"
            for c in v["conditions"]
        )
        head = "<tr><th></th><th>Condition</th><th>Figure</th><th>Limit</th><th></th></tr>"
        parts.append(
            f"<details><summary>{escape(name)}: {sum(c['passed'] for c in v['conditions'])} of {len(v['conditions'])} conditions met</summary><table>{head}{rows}</table></details>"
        )
    return f"<section><h2>The gate, condition by condition</h2>{''.join(parts)}</section>"


def _bars(report: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{escape(symbol)}</td><td class=n>{b['rows']:,}</td><td>{b['from'][:10]}</td><td>{b['to'][:10]}</td>"
        f"<td>{escape(str((b.get('clock') or {}).get('rule', '')))}</td><td>{escape(_quarantined(b))}</td></tr>"
        for symbol, b in report["bars"].items()
    )
    out = "".join(f"<li>{escape(s)} left out: {escape(why)}</li>" for s, why in report.get("excluded", {}).items())
    head = "<tr><th>Symbol</th><th>Bars</th><th>From</th><th>To</th><th>Clock</th><th>Rows refused</th></tr>"
    cost = f"{report.get('cpu_seconds') or '?'} CPU-seconds, at most {report.get('peak_rss_mb') or '?'} MB."
    protocol = escape(json.dumps(report["protocol"], indent=1))
    return (
        f"<section><h2>Bars and protocol</h2><table>{head}{rows}</table><ul>{out}</ul><p>{escape(cost)}</p>"
        f"<details><summary>Protocol</summary><pre>{protocol}</pre></details></section>"
    )


def _quarantined(bars: Mapping[str, Any]) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in (bars.get("quarantined") or {}).items()) or "none"


def _script(drawn: list[Figure]) -> str:
    """Draw everything in the colours of the page, again when the reader switches between dark and light."""
    plots = [{"id": f.key, "data": f.data, "layout": f.layout} for f in drawn]
    content = json.dumps(plots, allow_nan=False).replace("</", "<\\/")
    return (
        f"const plots={content};const dark=matchMedia('(prefers-color-scheme: dark)');"
        "function draw(){const ink=dark.matches?'#c9d1d9':'#24292f',grid=dark.matches?'#30363d':'#e3e6ea';"
        "for(const p of plots){const l=structuredClone(p.layout);l.paper_bgcolor=l.plot_bgcolor='rgba(0,0,0,0)';"
        "l.font={color:ink,family:'system-ui,sans-serif',size:12};for(const k in l)if(/^[xy]axis/.test(k))"
        "{l[k].gridcolor=grid;l[k].zerolinecolor=grid;}Plotly.react(p.id,p.data,l,{displayModeBar:false,responsive:true});}}"
        "draw();dark.addEventListener('change',draw);"
    )


def _number(value: float | None, digits: int = 4) -> str:
    if value is None:
        return "–"
    return f"{value:.{digits}f}" if abs(value) >= 0.01 or value == 0 else f"{value:.4g}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2%}"
