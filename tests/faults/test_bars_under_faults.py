"""200 of the seeds of benchmarks.bar_faults: no bar lost, doubled or misdated, every hole classified right."""

from __future__ import annotations

from benchmarks.bar_faults import run_seeds

SEEDS = range(1, 201)


def test_no_seed_loses_doubles_or_misdates_a_bar() -> None:
    failed, old_revisions = run_seeds(SEEDS, workers=2)
    assert not failed, "\n".join(f"seed {seed}: {wrong[:4]}" for seed, wrong in sorted(failed.items()))
    assert old_revisions > 50, "bars that were revised when no start and no poll would ask for them again"
