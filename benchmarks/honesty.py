"""Honesty: `lstmc bench honesty --seeds 40 --out FILE` is `python -m tuning.experiments all` with the machine named.

Prints what every criterion found as one JSON object, keeps the rows in FILE. Exit 1 when a criterion is not met.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path

from benchmarks.machine import machine
from market.errors import LstmcError
from tuning.experiments import NAMES, run
from tuning.presets import load_preset


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="lstmc bench honesty", description=__doc__)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each")
    parser.add_argument(
        "--out", type=Path, default=Path("out/honesty.json"), help="kept as seeds end; continued if there"
    )
    given = parser.parse_args(argv)
    tell = partial(print, file=sys.stderr, flush=True)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    try:
        content = run(
            NAMES["all"], range(given.seeds), load_preset(given.preset), given.out, workers=given.workers, tell=tell
        )
    except LstmcError as error:
        print(f"honesty: {error}", file=sys.stderr)
        return error.exit_code
    found = {name: {k: v for k, v in made.items() if k != "runs"} for name, made in content["experiments"].items()}
    command = f"lstmc bench honesty --seeds {given.seeds} --out {given.out}"
    print(json.dumps(found | {"commit": content["commit"], "command": command, "machine": machine()}))
    criteria = [c for made in found.values() for c in made["criteria"]]
    return 0 if criteria and all(c["passed"] for c in criteria) else 1


if __name__ == "__main__":
    raise SystemExit(main())
