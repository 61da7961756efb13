"""The report's equity curves of the direction bets, with drawdown. Drawn from report.json, also where there are no bets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuning.report_figures import PALETTE, Figure, layout, trace


def bet_figures(report: Mapping[str, Any]) -> list[Figure]:
    return [equity(target, bets) for target, bets in report["bets"].items()]


def equity(target: str, bets: Mapping[str, Any]) -> Figure:
    """Running sum in bp of capital: leaning at every bar before costs, the bets taken net of spread, and the drawdown."""
    curve = bets["curve"]
    time = [moment.removesuffix("Z") for moment in curve["time"]]
    net = "bets taken, net of spread" if bets["bets"] else f"no bets: {bets['reason']}"
    data = [
        trace(
            "scatter",
            "leaning at every bar, no costs",
            time,
            curve["gross"],
            mode="lines",
            line={"color": PALETTE[6], "width": 1.4},
        ),
        trace("scatter", net, time, curve["net"], mode="lines", line={"color": PALETTE[0], "width": 2.6}),
        trace(
            "scatter",
            f"drawdown ({bets['basis']})",
            time,
            [-x for x in curve["drawdown"]],
            mode="lines",
            yaxis="y2",
            fill="tozeroy",
            line={"color": PALETTE[4], "width": 1},
            fillcolor="rgba(213,94,0,.25)",
        ),
    ]
    note = {
        "text": f"No bets: {bets['reason']}.<br>{break_even(bets).replace(' if ', '<br>if ')}",
        "xref": "paper",
        "yref": "paper",
        "x": 0.5,
        "y": 0.95,
        "showarrow": False,
    }
    return Figure(
        f"equity_{target}",
        f"{target}: what the direction would have earned",
        "Size-free, in bp of capital (each symbol an equal part, overlapping bets sharing it); no slippage, no financing. "
        + bet_words(bets),
        bet_words(bets),
        data,
        layout(
            yaxis={"title": {"text": "bp, summed"}, "domain": [0.34, 1.0], "zeroline": True},
            yaxis2={"title": {"text": "drawdown"}, "domain": [0.0, 0.26], "automargin": True},
            annotations=[] if bets["bets"] else [note],
        ),
        420,
    )


def break_even(bets: Mapping[str, Any]) -> str:
    """What a round trip may cost before leaning at every bar stops paying."""
    if not (bets["break_even_bp"] or 0) > 0:
        return "Leaning at every bar does not pay at any cost."
    return f"Leaning at every bar pays only if a round trip costs less than {bets['break_even_bp']:.2f} bp."


def bet_words(bets: Mapping[str, Any]) -> str:
    """Bets, Sharpe ratio and deflated Sharpe ratio in a sentence or two."""
    none = f"No bets: {bets['reason']}. {break_even(bets)} Before costs"
    count = f"{bets['bets']:,} bets, net of spread" if bets["bets"] else none
    if bets["sharpe_year"] is None or bets["deflated_sharpe"] is None:
        return f"{count}: nothing was earned or lost, so there is no Sharpe ratio."
    return (
        f"{count}: {bets['mean_bp']:+.3f} bp a bar, Sharpe ratio {bets['sharpe_year']:.2f} a year, largest drawdown "
        f"{bets['max_drawdown_bp']:.0f} bp. Of {bets['trials']} trials (families x direction targets x settings tried) the best "
        f"worthless one is expected to show {bets['expected_best_sharpe_year']:.2f}; deflated Sharpe ratio, the "
        f"probability that this one is truly better than that: {bets['deflated_sharpe']:.2f}."
    )
