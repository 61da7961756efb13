"""Honesty experiments: does the gate stay shut on noise, and does it see a signal that is really there?

    python -m tuning.experiments all --seeds 40 --out honesty.json [--workers 2] [--preset quick]

Each seed is a simulated panel whose truth is known (tuning/worlds.py), judged as a real run is: leak battery, purged
walk-forward, every family, the gate. Stores no model. The file is written anew as each seed ends and a rerun continues
it, as long as the code is the same. Exit 0: every criterion is met; 1: one is not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from configs.settings import ROOT
from market.errors import InputError, LstmcError
from market.timeframes import Timeframe
from tuning.bundle import write_json
from tuning.cross_validate import cross_validate
from tuning.distributed import process_pool
from tuning.experiment_criteria import summarise
from tuning.leak_battery import leak_battery
from tuning.leak_tests import LeakResult
from tuning.presets import Preset, load_preset
from tuning.promotion import GateResult, judge
from tuning.search import search
from tuning.worlds import IID_NOISE, NULL, PLANTED, WORLDS, World, simulate

__all__ = ["IID_NOISE", "NULL", "PLANTED", "World", "judge_seed", "main", "run", "simulate"]

NAMES = {"all": ("null", "planted"), "null": ("null",), "planted": ("planted",), "iid": ("iid",)}
Row = dict[str, Any]


def judge_seed(world: World, seed: int, preset: Preset) -> Row:
    """One simulated panel through the leak battery, cross-validation and the gate -> what is kept of it."""
    started = time.process_time()
    bars = simulate(world, seed)
    preset, _ = search(bars, Timeframe.H1, preset)
    leaks = leak_battery(bars, Timeframe.H1, preset)
    oof = cross_validate(bars, Timeframe.H1, preset)
    gate = judge(oof, leak_tests={r.name: r.passed for r in leaks})
    return {"seed": seed, "cpu_seconds": round(time.process_time() - started, 1)} | _kept(gate, leaks)


def _kept(gate: GateResult, leaks: list[LeakResult]) -> Row:
    """What would be served, what passed, failed leak tests, and per target skill, t and every family's skill.

    A shorter volatility horizon that passes alone is not served (promotion.GateResult): it is in "passed" only.
    """
    row: Row = {
        "promoted": sorted(gate.serves),
        "passed": sorted(target for target, ok in gate.passed.items() if ok),
        "leaks": sorted(r.name for r in leaks if not r.passed),
        "targets": {},
    }
    for target, result in gate.targets.items():
        families = {
            name: 1.0 - loss / result.baseline_loss
            for name, loss in result.family_losses.items()
            if np.isfinite(loss) and result.baseline_loss > 0
        }
        kept = {
            "skill": result.skill,
            "t": result.t,
            "auc": result.figures.get("auc"),
            "net_bp": result.figures.get("net_bp"),
        }
        row["targets"][target] = {k: _rounded(v) for k, v in kept.items() if v is not None} | {
            "families": {name: _rounded(skill) for name, skill in families.items()}
        }
    return row


def _rounded(value: float) -> float | None:
    return float(f"{value:.6g}") if np.isfinite(value) else None


def run(
    names: tuple[str, ...],
    seeds: range,
    preset: Preset,
    out: Path | None = None,
    *,
    workers: int = 1,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """All seeds of all worlds `names` that `out` does not hold yet -> the whole file's content."""
    content = _resumed(out, preset, tell)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)  # now, not when the first seed is to be kept
    have = {(name, row["seed"]) for name, made in content["experiments"].items() for row in made["runs"]}
    due = [(name, seed) for seed in seeds for name in names if (name, seed) not in have]
    units = [(WORLDS[name], seed, preset) for name, seed in due]
    started = time.monotonic()
    with process_pool(workers) as pooled:
        rows = pooled(judge_seed, units) if pooled else (judge_seed(*unit) for unit in units)
        for done, ((name, _), row) in enumerate(zip(due, rows, strict=True), 1):
            _add(content, name, row)
            if out:
                write_json(out, content)
            left = (time.monotonic() - started) / done * (len(due) - done)
            tell(f"{name} {_row_words(row)}; {done} of {len(due)}, about {left / 60:.0f} min left")
    return content


def _add(content: dict[str, Any], name: str, row: Row) -> None:
    runs = sorted([*content["experiments"].get(name, {"runs": []})["runs"], row], key=lambda one: one["seed"])
    content["experiments"][name] = (
        {"world": _world(name)} | summarise(name, runs, WORLDS[name].accuracy) | {"runs": runs}
    )


def _row_words(row: Row) -> str:
    found = ", ".join(row["promoted"]) or "nothing"
    leaks = f", leak tests failed: {', '.join(row['leaks'])}" if row["leaks"] else ""
    return f"seed {row['seed']}: {found} promoted{leaks}, {row['cpu_seconds']:.0f} CPU-s"


def _world(name: str) -> dict[str, Any]:
    return json.loads(json.dumps(asdict(WORLDS[name])))


def _resumed(out: Path | None, preset: Preset, tell: Callable[[str], None]) -> dict[str, Any]:
    """What `out` holds, or an empty file's content. InputError when it was made by other code or settings."""
    fresh = {
        "command": "python -m tuning.experiments all --seeds 40 --out FILE",
        "commit": code_commit(),
        "code": code_digest(),
        "preset": json.loads(json.dumps(asdict(preset))),
        "experiments": {},
    }
    if out is None or not out.exists():
        return fresh
    try:
        found = json.loads(out.read_text())
        same = all(found[key] == fresh[key] for key in ("code", "preset")) and all(
            made["world"] == _world(name) for name, made in found["experiments"].items()
        )
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise InputError(f"{out} is no file of these experiments.", hint="Choose another --out.") from None
    if not same:
        raise InputError(
            f"{out} was made by other code or settings (commit {found.get('commit')}); its seeds cannot be continued.",
            hint="Choose another --out, or move the file away to begin anew.",
        )
    tell(f"{out} holds {sum(len(made['runs']) for made in found['experiments'].values())} seeds already")
    return found


def code_digest() -> str:
    """sha256 over the sources that can change a result: market, configs and tuning, without the report's drawing."""
    digest = hashlib.sha256()
    for path in sorted(p for room in ("market", "configs", "tuning") for p in (ROOT / room).rglob("*")):
        if path.suffix in (".py", ".yaml") and not path.name.startswith("report"):
            digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def code_commit() -> str:
    """The commit that runs, "-dirty" where tracked files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude", "*"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tuning.experiments",
        description="Judge simulated panels whose truth is known: noise must not pass, a planted signal must be seen.",
        epilog="Example: python -m tuning.experiments all --seeds 40 --out honesty.json --workers 2",
    )
    parser.add_argument(
        "experiment", choices=list(NAMES), help="null: GARCH and seasons; planted: 55 %% added; iid: plain noise"
    )
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--workers", type=int, default=1, help="processes, one thread each")
    parser.add_argument("--out", type=Path, default=None, help="the JSON file; an unfinished one is continued")
    return parser


def main(argv: list[str] | None = None) -> int:
    given = _parser().parse_args(argv)
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    tell = partial(print, file=sys.stderr, flush=True)
    try:
        content = run(
            NAMES[given.experiment], seeds, load_preset(given.preset), given.out, workers=given.workers, tell=tell
        )
    except LstmcError as error:
        print(f"experiments: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("experiments: stopped; the same command continues.", file=sys.stderr)
        return 130
    print(json.dumps(content, indent=1))
    criteria = [c for made in content["experiments"].values() for c in made["criteria"]]
    for one in criteria:
        tell(f"{'met    ' if one['passed'] else 'NOT MET'} {one['name']}: {one['words']}")
    return 0 if criteria and all(c["passed"] for c in criteria) else 1


if __name__ == "__main__":
    sys.exit(main())
