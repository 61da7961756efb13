"""report.html: what was tried, what it was worth and why it was or was not promoted, as one file that needs no internet.

Draws what report.json and the out-of-fold forecasts say; computes no verdict. Plotly's JS comes from its wheel.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from tuning import report_tables as tables
from tuning.out_of_fold import OutOfFold
from tuning.report_bets import bet_figures
from tuning.report_calibration import calibration_figures
from tuning.report_figures import Figure, loss_figures
from tuning.report_protocol import experiment_figures, experiments_section, protocol_figures
from tuning.report_words import verdict

ROOM = Path(__file__).parent


def write_report(
    path: Path, report: Mapping[str, Any], oof: OutOfFold, experiments: Mapping[str, Any] | None = None
) -> None:
    """Write the page (about 5 MB, most of it Plotly) under a temporary name, then rename."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(render(report, oof, experiments), encoding="utf-8")
    temporary.replace(path)


def render(report: Mapping[str, Any], oof: OutOfFold, experiments: Mapping[str, Any] | None = None) -> str:
    """`experiments`: the content of the file that tuning.experiments writes, if there is one."""
    from plotly.offline import get_plotlyjs

    losses, checks, bets = loss_figures(report, oof), calibration_figures(report, oof), bet_figures(report)
    cut, known = protocol_figures(report), experiment_figures(experiments)
    title = f"Forecast report, {report['protocol']['timeframe']}"
    body = [
        tables.targets(report),
        tables.suspicious(report),
        _part("Losses", losses),
        tables.losses(report),
        tables.symbol_losses(report),
        _part("Calibration", checks),
        _part("Direction as bets", bets),
        _part("Protocol", cut),
        experiments_section(experiments),
        _part("", known),
        tables.tried(report),
        tables.leak_tests(report),
        tables.conditions(report),
        tables.bars(report),
    ]
    drawn = [*losses, *checks, *bets, *cut, *known]
    style = (ROOM / "report.css").read_text(encoding="utf-8")
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title><style>{style}</style><script>{get_plotlyjs()}</script></head>
<body><main>
<header><h1>{escape(title)}</h1>{_verdict(report)}{_period(report)}</header>
{"".join(body)}
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


def _part(title: str, figures: list[Figure]) -> str:
    head = f"<h2 class=part>{escape(title)}</h2>" if title and figures else ""
    return head + "".join(_section(figure) for figure in figures)


def _section(figure: Figure) -> str:
    return (
        f'<section id="section-{figure.key}"><h3>{escape(figure.title)}</h3><p>{escape(figure.caption)}</p>'
        f'<div class="plot" id="{figure.key}" role="img" aria-label="{escape(figure.alt)}" '
        f'style="height:{figure.height}px"></div>'
        f"<details><summary>In words</summary><p>{escape(figure.alt)}</p></details></section>"
    )


def _script(drawn: list[Figure]) -> str:
    """The plots, and the code that draws them in the page's colours and width."""
    plots = [{"id": f.key, "data": f.data, "layout": f.layout} for f in drawn]
    content = json.dumps(plots, allow_nan=False).replace("</", "<\\/")
    return f"const plots={content};{(ROOM / 'report.js').read_text(encoding='utf-8')}"
