"""The protocol on any folder of bars: purged walk-forward, every family, the gate; report.json and report.html.

    python -m tuning.evaluate --bars DIR --out DIR [--timeframe H1] [--symbols A,B] [--preset quick] [--workers 2]
                              [--experiments DIR]

Needs no cluster and stores no model. Exit 0 also when nothing is promoted: that is a result.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from market.bar_files import RecordedBars, read_bar_folder
from market.errors import BadBars, InputError, LstmcError
from market.forecasts import iso_utc, jsonable
from market.symbols import symbols as known_symbols
from market.timeframes import Timeframe
from tuning.bundle import write_json
from tuning.cross_validate import cross_validate, in_process
from tuning.distributed import process_pool
from tuning.evidence import evidence
from tuning.leak_battery import leak_battery
from tuning.out_of_fold import OutOfFold
from tuning.presets import Preset, load_preset
from tuning.progress import Progress
from tuning.promotion import GateResult, judge, judge_floor
from tuning.report_words import summary_lines
from tuning.search import search
from tuning.shared_panel import shared_panel
from tuning.significance import bandwidth
from tuning.skill_cards import served_families


def main(argv: list[str] | None = None) -> int:
    given = _parser().parse_args(argv)
    try:
        report = evaluate(
            given.bars,
            given.out,
            timeframe=Timeframe.parse(given.timeframe),
            symbols=[s.code for s in known_symbols(given.symbols.split(","))] if given.symbols else None,
            preset=load_preset(given.preset),
            workers=given.workers,
            progress=Progress(sys.stderr),
            experiments=read_experiments(given.experiments) if given.experiments else None,
        )
    except LstmcError as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return error.exit_code
    if given.json:
        print(json.dumps(report))
    else:
        print("\n".join(summary_lines(report)))
        print(f"\nReport: {given.out / 'report.html'}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tuning.evaluate",
        description="Run the forecasting protocol on a folder of SYMBOL_TF.parquet or CSV bars.",
        epilog="Example: python -m tuning.evaluate --bars ./bars --out ./report --timeframe H1",
    )
    parser.add_argument("--bars", type=Path, required=True, help="folder of SYMBOL_TF.parquet | .csv")
    parser.add_argument("--out", type=Path, required=True, help="folder for report.json and report.html")
    parser.add_argument("--timeframe", default="H1")
    parser.add_argument("--symbols", default="", help="comma-separated; default: all in the folder")
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--workers", type=int, default=2, help="processes; 1 runs everything here")
    parser.add_argument("--experiments", type=Path, help="folder or file of the honesty experiments' JSON, to be shown")
    parser.add_argument("--json", action="store_true", help="print the report on stdout")
    return parser


def evaluate(
    folder: Path,
    out: Path,
    *,
    timeframe: Timeframe,
    preset: Preset,
    progress: Progress,
    symbols: list[str] | None = None,
    workers: int = 2,
    experiments: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Run the protocol, write both reports into `out` -> the content of report.json."""
    from tuning.report import write_report

    started = time.time()
    recorded = _read(folder, timeframe, symbols)
    bars, excluded = shared_panel({r.symbol: r.bars for r in recorded}, preset)
    for symbol, reason in excluded.items():
        progress.line(f"{symbol} is left out: {reason}")
    progress.line(f"{len(bars)} symbols, {sum(t.num_rows for t in bars.values())} bars, preset {preset.name}")
    with process_pool(workers) as run_units:
        run = run_units or in_process
        preset, tried = search(bars, timeframe, preset, run_units=run, on_progress=progress)
        oof = cross_validate(bars, timeframe, preset, run_units=run, on_progress=progress)
    leaks = leak_battery(bars, timeframe, preset)
    passed = {r.name: r.passed for r in leaks}
    gate, floor = judge(oof, leak_tests=passed), judge_floor(oof, passed)
    report = {
        "bars": {r.symbol: _describe(r, bars.get(r.symbol)) for r in recorded if r.symbol in bars},
        "excluded": excluded,
        **judged_report(oof, gate, timeframe, preset),
        "serves": served_families(gate, floor),
        **({"search": tried} if tried else {}),
        "leak_tests": {
            r.name: {"passed": r.passed, "value": r.value, "limit": r.limit, "detail": r.detail} for r in leaks
        },
        "made_at": iso_utc(datetime.now(UTC).replace(microsecond=0)),
        "wall_seconds": round(time.time() - started, 1),
        "cpu_seconds": round(_cpu_seconds(), 1),
        "peak_rss_mb": round(_peak_rss_mb(workers), 1),
    }
    report = finite(jsonable(report | evidence(oof, report, bars, timeframe, preset)))
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "report.json", report)
    progress.line("drawing the report")
    write_report(out / "report.html", report, oof, experiments)
    return report


def _read(folder: Path, timeframe: Timeframe, symbols: list[str] | None) -> list[RecordedBars]:
    recorded = read_bar_folder(folder, timeframe=timeframe.value, symbols=symbols, received_at=datetime.now(UTC))
    found = [r for r in recorded if r.bars.num_rows]
    missing = sorted(set(symbols or ()) - {r.symbol for r in found})
    if missing or not found:
        what = ", ".join(missing) or "any symbol"
        raise BadBars(
            f"{folder} has no usable {timeframe} bars of {what}.",
            hint=f"Put SYMBOL_{timeframe}.parquet or SYMBOL_{timeframe}.csv files there, or choose another --timeframe.",
        )
    return found


def read_experiments(path: Path) -> dict[str, Any]:
    """What tuning.experiments saved, from its file or the folder with it; several files are shown together."""
    found: dict[str, Any] = {"experiments": {}}
    for file in sorted(path.glob("*.json")) if path.is_dir() else [path]:
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise InputError(
                f"{file} cannot be read: {error}.", hint="Give the file of `lstmc bench honesty`."
            ) from None
        if isinstance(content, dict) and isinstance(content.get("experiments"), dict):
            together = found["experiments"] | content["experiments"]
            found = found | content | {"experiments": together}
    if not found["experiments"]:
        raise InputError(f"{path} holds no experiments.", hint="Make them with `lstmc bench honesty --out FILE`.")
    return found


def _describe(recorded: RecordedBars, used: pa.Table | None) -> dict[str, Any]:
    table = recorded.bars if used is None else used
    reasons = recorded.quarantined["reason"].to_pylist() if recorded.quarantined.num_rows else []
    return {
        "rows": table.num_rows,
        "from": table["open_time"][0].as_py(),
        "to": table["close_time"][-1].as_py(),
        "clock": recorded.clock,
        "quarantined": {reason: reasons.count(reason) for reason in sorted(set(reasons))},
    }


def judged_report(oof: OutOfFold, gate: GateResult, timeframe: Timeframe, preset: Preset) -> dict[str, Any]:
    """The part of the report that also travels with a model: protocol, targets, weights, CPU by family."""
    tested = oof.time[oof.fold >= 0]
    longest = max(oof.horizons)
    timestamps = len(np.unique(tested))
    return {
        "protocol": {
            "timeframe": timeframe.value,
            "preset": preset.name,
            "families": [name for name in oof.families if name != "stack"],
            "symbols": list(oof.symbols),
            "horizons": list(oof.horizons),
            "scheme": "purged walk-forward",
            "folds": len(np.unique(oof.fold[oof.fold >= 0])),
            "purge": "training rows whose label ends after the first test row",
            "embargo_bars": preset.scheme(longest).embargo,
            "max_train_bars": preset.max_train_bars,
            "test_from": _iso(tested.min()),
            "test_to": _iso(tested.max()),
            "test_timestamps": timestamps,
            "lockbox_rows": int((oof.fold < 0).sum()),
            "test": "HAC t of the panel's mean loss difference, Bartlett kernel, fixed-b scaled",
            "hac_lag": {str(h): bandwidth(timestamps, h) for h in oof.horizons},
            "gate": "t <= -2 against every baseline, better on most symbols, lockbox not worse, leak tests",
        },
        "promoted": gate.promoted,
        "why": gate.why,
        "targets": gate.to_dict(),
        "stack_weights": oof.stack_weights,
        "family_cpu_seconds": {name: round(spent, 2) for name, spent in oof.cpu_seconds.items()},
    }


def _iso(moment: np.datetime64) -> str:
    return f"{moment.astype('datetime64[s]')}Z"


def finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: both become null."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [finite(one) for one in value]
    if isinstance(value, np.bool | np.integer):
        return value.item()
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value


def _cpu_seconds() -> float:
    """User and system time of this process and its ended children."""
    uses = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in uses)


def _peak_rss_mb(workers: int) -> float:
    """Upper bound: this process's peak plus the largest child's peak for each worker."""
    own, child = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return (own + (workers if workers > 1 else 0) * child) / 1024.0


if __name__ == "__main__":
    sys.exit(main())
