"""Ray's own Grafana boards, as the installed Ray makes them: `python -m cluster.ray_boards --out DIR`."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path


def write_boards(out: Path) -> list[Path]:
    """One JSON file per board, made anew by each version of Ray."""
    from ray.dashboard.modules.metrics import grafana_dashboard_factory as factory

    made = {
        "ray.json": factory.generate_default_grafana_dashboard,
        "ray_serve.json": factory.generate_serve_grafana_dashboard,
        "ray_serve_deployment.json": factory.generate_serve_deployment_grafana_dashboard,
        "ray_train.json": factory.generate_train_grafana_dashboard,
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, generate in made.items():
        with warnings.catch_warnings(action="ignore", category=ResourceWarning):  # Ray does not close its files
            board, _uid = generate()
        temporary = (out / name).with_suffix(".tmp")
        temporary.write_text(board)
        temporary.replace(out / name)
    return [out / name for name in made]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the folder that Grafana reads boards from")
    for path in write_boards(parser.parse_args(arguments).out):
        print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
