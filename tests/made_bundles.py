"""The smallest bundle there is: one number in a JSON file, with an identity card. For tests of what is around bundles."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tuning.bundle import save_bundle


class Constant:
    bars_needed, spec_digest = 1, "spec"

    def __init__(self, value: float) -> None:
        self.value = value

    def save(self, folder: Path) -> None:
        (folder / "ensemble.json").write_text(json.dumps({"value": self.value}))

    def forecast(self, bars: Any) -> Any:
        return {}


CARD = {
    "timeframe": "H1",
    "kind": "econometric",
    "symbols": ("EURUSD",),
    "horizons": (1, 24),
    "trained_from": datetime(2019, 1, 1, tzinfo=UTC),
    "trained_until": datetime(2020, 1, 1, tzinfo=UTC),
    "data_version": "bars@1",
}


def new_bundle(folder: Path, value: float, hour: int = 0, report: Any = None, **card: Any) -> Path:
    """In a new `folder`; another value is another id, a later hour of making is newer."""
    made_at = datetime(2026, 1, 1, hour, tzinfo=UTC)
    save_bundle(Constant(value), CARD | {"made_at": made_at} | card, folder, report=report)
    return folder
