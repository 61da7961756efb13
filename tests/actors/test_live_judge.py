"""Live losses against the champion's own baseline: one that went bad goes, one that is as good stays, and nothing flaps."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import t as student

from actors.ledger_reading import Settled
from actors.live_judge import FALSE_ALARMS, LIMIT, LOOK_EVERY, METRICS, WINDOW, look_at, t_limit, verdicts
from actors.live_losses import LiveLosses
from actors.prediction_ledger import PredictionLedger
from benchmarks.live_trust import CLOSES, H, first_alarm, simulated_losses
from market.forecasts import BaselineForecast, Forecast, HorizonForecast, iso_utc
from market.market_clock import add_open_time
from tests.made_bundles import new_bundle
from tuning.bundle_signature import BundleKeys
from tuning.model_version import ModelVersion
from tuning.registry import Registry

MONDAY = datetime(2024, 1, 1, tzinfo=UTC)
WALL = datetime(2026, 1, 1, tzinfo=UTC)


def test_champions_as_good_as_their_baseline_stay() -> None:
    """40 seeds of half a year of H1 closes at equal skill, the hardest case: a champion that is better is safer still."""
    alarms = {seed: n for seed in range(40) if (n := first_alarm(*simulated_losses(seed, CLOSES)))}
    assert len(alarms) <= 2, f"seed -> closes: {alarms}"  # 5 %


def test_a_champion_that_goes_bad_is_found() -> None:
    """After 1,500 good closes its variance forecast is 2.7 times too high."""
    found = {seed: first_alarm(*simulated_losses(seed, 2750, bad_from=1500, bias=1.0)) for seed in range(300, 310)}
    late = {seed: n for seed, n in found.items() if n is None or not 1500 < n <= 2250}
    assert not late, f"seed -> closes: {found}"


@pytest.mark.parametrize("b", [0.02, 0.05, 0.2])
def test_all_looks_together_share_the_false_alarms(b: float) -> None:
    limits = np.array([t_limit(look, b) for look in range(1, 500)])
    assert limits[0] >= LIMIT
    assert (np.diff(limits) > 0).all()
    tail = student.sf(limits / 1.96 * student.ppf(0.975, 1.5 / b), 1.5 / b)
    assert len(METRICS) * tail.sum() <= FALSE_ALARMS


def test_between_two_looks_nothing_changes() -> None:
    time, own, baseline = simulated_losses(7, 2 * LOOK_EVERY)
    looks = [
        look_at(f"rv{H}", H, "har_how", time[:n], own[:n], baseline[:n])
        for n in (LOOK_EVERY - 1, LOOK_EVERY, LOOK_EVERY + 1, 2 * LOOK_EVERY - 1, 2 * LOOK_EVERY)
    ]
    assert looks[0].t is None
    assert "from 250 known outcomes on" in looks[0].reason
    assert looks[1].t == looks[2].t == looks[3].t != looks[4].t
    assert [look.closes for look in looks] == [249, 250, 251, 499, 500]


def test_old_success_does_not_hide_a_break() -> None:
    time, own, baseline = simulated_losses(3, 3 * WINDOW)
    late = look_at(f"rv{H}", H, "har_how", time, own, baseline)
    newest = slice(2 * WINDOW, None)
    assert late.loss == pytest.approx(own[newest].mean())
    assert late.baseline_loss == pytest.approx(baseline[newest].mean())


# From the ledger


def recorded(
    k: int, symbol: str = "EURUSD", model: str = "h1-a", sigma: float = 0.004, made: datetime = WALL, p_up: float = 0.5
) -> Forecast:
    """At the k-th close. The baseline says 0.004; the returns of `bars_for` are 0.0008 an hour: 0.0039 over a day."""
    z = {"0.05": -1.6, "0.1": -1.3, "0.25": -0.7, "0.5": 0.0, "0.75": 0.7, "0.9": 1.3, "0.95": 1.6}
    as_of = add_open_time(MONDAY, timedelta(hours=k))

    def horizon(bars: int) -> HorizonForecast:
        own, base = ({level: s * value for level, value in z.items()} for s in (sigma, 0.004))
        end = add_open_time(as_of, timedelta(hours=bars))
        baseline = BaselineForecast("har_how", 0.004, base, 0.5)
        return HorizonForecast(bars, end, sigma, 1.0, own, None, p_up, baseline=baseline)

    return Forecast(symbol, "H1", as_of, 1.1, (horizon(1), horizon(H)), model, "bars@1", made, "simulated")


def settled(n: int, first: int = 0, seed: int = 11, **given: Any) -> list[Settled]:
    rows, rng = [], np.random.default_rng(seed)
    for k in range(n):
        forecast = recorded(first + k, **given)
        moves = rng.normal(0, 0.0008, H)
        outcome = {"return": float(moves.sum()), "volatility": float(np.sqrt((moves**2).sum())), "inside80": k % 5 > 0}
        for number, horizon in enumerate(forecast.record()["horizons"]):
            rows.append(
                Settled(2 * (first + k) + number + 1, forecast.symbol, forecast.as_of, forecast.made_at, forecast.model_id,
                        horizon, outcome)
            )  # fmt: skip
    return rows


def losses(rows: list[Settled], since: datetime = WALL) -> LiveLosses:
    kept = LiveLosses(("EURUSD",), (1, H), since)
    for first in range(0, len(rows), 100):
        kept.take(rows[first : first + 100])
    return kept


def test_a_bad_forecast_is_called_worse_at_both_targets_and_its_baseline_is_not() -> None:
    bad = verdicts(losses(settled(300, sigma=0.02)))
    assert [(v.target, v.metric, v.baseline, v.closes, v.worse) for v in bad] == [
        ("rv24", "qlike", "har_how", 300, True),
        ("r24", "pinball", "har_how", 300, True),
    ]
    assert "its live qlike of rv24 was" in bad[0].in_words()
    same = verdicts(losses(settled(300)))
    assert [(v.t, v.worse) for v in same] == [(0.0, False), (0.0, False)]


def test_what_was_forecast_before_it_became_champion_again_is_no_evidence() -> None:
    rows, again = settled(300, sigma=0.02), WALL + timedelta(seconds=1)
    assert verdicts(losses(rows))[0].worse
    judged = verdicts(losses(rows, again))[0]
    assert (judged.closes, judged.worse) == (0, False)
    rows += settled(300, first=300, sigma=0.02, made=again)
    assert verdicts(losses(rows, again))[0].worse


def test_forecasts_without_a_baseline_and_with_gaps_are_left_out() -> None:
    rows = settled(300)
    bare = [replace(row, horizon=row.horizon | {"baseline": None}) for row in rows[:100]]
    empty = [replace(row, horizon=row.horizon | {"volatility": None, "quantiles": None}) for row in rows[100:200]]
    assert [v.closes for v in verdicts(losses(bare + empty + rows[200:]))] == [200, 200]


def test_the_closes_before_those_that_are_kept_count_for_the_look() -> None:
    rows = settled(3 * WINDOW)
    kept = LiveLosses(("EURUSD",), (1, H), WALL, WINDOW)
    kept.take(rows[2 * WINDOW :])
    assert verdicts(kept) == verdicts(losses(rows))


def test_the_ledger_gives_forecasts_beside_their_outcomes(tmp_path: Path) -> None:
    from tests.actors.test_prediction_ledger import bars

    ledger = PredictionLedger(f"sqlite:///{tmp_path / 'l.sqlite'}", "key")
    table = bars([1.1 + 1e-4 * k for k in range(30)])
    as_of = table["close_time"][0].as_py()
    for model in ("h1-a", "h1-b"):
        ledger.append([replace(recorded(0, model=model), as_of=as_of)])
    assert ledger.settled("H1") == []
    ledger.settle(table)
    rows = ledger.settled("H1")
    assert [(row.model_id, row.horizon["bars"]) for row in rows] == [
        ("h1-a", 1),
        ("h1-a", 24),
        ("h1-b", 1),
        ("h1-b", 24),
    ]
    assert ledger.settled("H1", after=rows[1].seq) == rows[2:]
    assert ledger.settled("M15") == []
    assert rows[1].outcome["volatility"] == pytest.approx(
        np.sqrt((np.diff(np.log(table["close"].to_numpy()[:25])) ** 2).sum())
    )
    assert rows[1].horizon["baseline"]["volatility"] == 0.004
    ledger.close()


# In the registry


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry", BundleKeys(tmp_path / "keys"))


def add(registry: Registry, tmp_path: Path, value: int, kind: str) -> ModelVersion:
    folder = new_bundle(tmp_path / f"new{value}", value, kind=kind, report={"recipe": f"recipe of {kind}"})
    made = registry.add(folder)
    registry.promote(made.id, f"{kind} {value}")
    return made


EVIDENCE = {"target": "rv24", "t": 3.1, "known_until": iso_utc(MONDAY)}


def test_a_demoted_stack_gives_way_to_the_econometric_champion_before_it(registry: Registry, tmp_path: Path) -> None:
    old, econometric, _, second = (
        add(registry, tmp_path, k, kind) for k, kind in enumerate(("econometric", "econometric", "stack", "stack"))
    )
    now = registry.demote("H1", second.id, "worse live", EVIDENCE)
    assert now == registry.champion("H1") == econometric
    last = registry.champion_history("H1")[-1]
    assert (last["action"], last["before"], last["why"]) == ("rollback", second.id, "worse live")
    assert last["live_loss"] == EVIDENCE | {"recipe": "recipe of stack"}
    assert registry.champion_pointer("H1")["why"] == "worse live"  # type: ignore[index]
    assert registry.demote("H1", second.id, "again", EVIDENCE) is None, "it serves no more"
    assert len(registry.champion_history("H1")) == 5
    assert registry.rollback("H1").id == old.id


def test_a_champion_before_it_that_is_damaged_is_passed_over(registry: Registry, tmp_path: Path) -> None:
    made = [add(registry, tmp_path, k, kind) for k, kind in enumerate(("stack", "econometric", "stack"))]
    (registry.path(made[1].id) / "ensemble.json").write_text("{}")
    now = registry.demote("H1", made[2].id, "worse live", EVIDENCE)
    assert now is not None
    assert now.id == made[0].id


def test_the_only_champion_cannot_be_demoted(registry: Registry, tmp_path: Path) -> None:
    from market.errors import NoChampion

    only = add(registry, tmp_path, 0, "stack")
    with pytest.raises(NoChampion):
        registry.demote("H1", only.id, "worse live", EVIDENCE)
    assert registry.champion("H1") == only
