"""`lstmc ledger ...`: is the record of forecasts as it was written, and what does it say. Works with or without a running cluster."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cluster.console import Json, example, new_app, rows, settings, show

app = new_app()
NAMED = 20  # broken places that are printed in words; --json has all


@app.callback()
def _ledger() -> None:
    """The record of all forecasts: verify, show."""


@app.command(epilog=example("lstmc ledger verify --json"))
def verify(as_json: Json = False) -> None:
    """Compare every row with its signature. Ends with 0 when all are as they were written, with 5 when not."""
    from actors.prediction_ledger import PredictionLedger

    ledger = PredictionLedger.of(settings())
    try:
        verdict = ledger.verify()
    finally:
        ledger.close()
    broken = [{"chain": b.chain, "row": b.row, "rows": b.rows, "what": b.what} for b in verdict.broken]
    report = {
        "intact": verdict.intact,
        "rows": verdict.rows,
        "heads": verdict.heads,
        "broken_rows": sum(b.rows for b in verdict.broken),
        "first_broken": broken[0] if broken else None,
        "broken": broken,
    }
    show(report, as_json, _verdict_words)
    if not verdict.intact:
        raise typer.Exit(5)


def _verdict_words(report: dict[str, Any]) -> str:
    counted = ", ".join(f"{n} {chain}" for chain, n in report["rows"].items())
    heads = [f"{chain} end with {head}" for chain, head in report["heads"].items()]
    if report["intact"]:
        return "\n".join([f"intact: {counted}", *heads])
    broken = report["broken"]
    lines = [f"NOT INTACT: {report['broken_rows']} rows of {counted}", f"first: {_place(broken[0])}"]
    lines += [f"       {_place(place)}" for place in broken[1:NAMED]]
    return "\n".join(lines + (["       ... and more: see --json"] if len(broken) > NAMED else []))


def _place(place: dict[str, Any]) -> str:
    return f"{place['chain']}: {place['what']}"


@app.command("show", epilog=example("lstmc ledger show --symbol EURUSD --limit 5"))
def show_(
    symbol: Annotated[str, typer.Option(help="For example EURUSD.")],
    timeframe: Annotated[str | None, typer.Option(help="Default: the installation's first.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Newest forecasts.")] = 10,
    as_json: Json = False,
) -> None:
    """Past forecasts of one symbol, newest first, beside what happened; one line per horizon."""
    from actors.prediction_ledger import PredictionLedger
    from market.symbols import symbols
    from market.timeframes import Timeframe

    here = settings()
    frame = Timeframe.parse(timeframe).value if timeframe else here.timeframes[0]
    ledger = PredictionLedger.of(here)
    try:
        found = ledger.history(symbols([symbol])[0].code, frame, limit)
    finally:
        ledger.close()
    show(found, as_json, _history_words)


def _history_words(found: list[dict[str, Any]]) -> str:
    titles = ["as of", "bars", "model", "low 80 %", "high 80 %", "happened", "inside", "recorded", ""]
    return rows(titles, [_horizon_line(row, horizon) for row in found for horizon in row["horizons"]])


def _horizon_line(row: dict[str, Any], horizon: dict[str, Any]) -> list[Any]:
    levels = {float(level): value for level, value in (horizon["quantiles"] or {}).items()}
    outcome = row["outcomes"].get(str(horizon["bars"]), {})
    inside = {True: "yes", False: "no"}.get(outcome.get("inside80"), "-")
    returns = [_percent(value) for value in (levels.get(0.1), levels.get(0.9), outcome.get("return"))]
    late = "late" if row.get("recorded_late") else ""
    return [row["as_of"], horizon["bars"], row["model_id"][:12], *returns, inside, row.get("recorded_at"), late]


def _percent(log_return: float | None) -> str | None:
    return None if log_return is None else f"{log_return * 100:+.3f} %"
