"""Cross-validation end to end on small made-up markets, and the protocol's figures on recorded bars."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from market.bar_files import read_bar_folder
from market.bars import bars_from_columns
from market.errors import InputError, NotEnoughBars
from market.timeframes import Timeframe
from tuning.bundle import save_bundle
from tuning.cross_validate import cross_validate
from tuning.features import lookback
from tuning.final_fit import fit_ensemble
from tuning.learners.baseline import BASELINES
from tuning.net_chain import ChainState, advance, state_from_files, state_to_files
from tuning.panel import make_folds, make_panel, recent
from tuning.presets import Boosting, Nets, Preset, load_preset
from tuning.stack_folds import known_before

H1 = Timeframe.H1
SMALL = Preset(
    "small",
    families=("lightgbm", "gru"),
    max_train_bars=2000,
    boosting=Boosting(trees=8, leaves=4, min_rows_in_leaf=50),
    nets=Nets(hidden=4, steps=6, steps_warm=3, warm_up=16, body=32, batch=8),
)


@pytest.fixture(scope="module")
def out(two_symbols):
    return cross_validate(two_symbols, H1, SMALL)


def test_rows_are_sorted_labelled_and_in_every_fold(out):
    assert out.symbols == ("EURUSD", "GBPUSD")
    assert sorted(set(out.fold.tolist())) == [-1, 0, 1, 2, 3, 4]
    order = np.lexsort((out.symbol, out.time))
    assert (order == np.arange(len(out))).all()
    for h in out.horizons:
        assert np.isfinite(out.rv[h]).all()
        assert np.isfinite(out.ret[h]).all()


@pytest.mark.parametrize("family", [*BASELINES, "stack"])
def test_baselines_and_stack_forecast_every_row(out, family: str):
    for h in out.horizons:
        assert np.isfinite(out.families[family].log_rv[h]).all()


def test_learners_forecast_what_they_have_a_view_on(out):
    for family in SMALL.families:
        made = out.families[family]
        assert set(made.log_rv) == {24}
        assert set(made.p_up) == {1, 24}
        for values in (*made.log_rv.values(), *made.p_up.values()):
            assert np.isfinite(values).all()
            assert values.std() > 0
        assert out.cpu_seconds[family] > 0


def test_quantiles_ascend_and_cover(out):
    for name in ("unconditional", "har_how", "stack"):
        for h in out.horizons:
            q = out.quantiles[name][h]
            assert (np.diff(q, axis=1) >= 0).all()
            inside = (out.ret[h] >= q[:, 1]) & (out.ret[h] <= q[:, 5])
            assert 0.7 < inside.mean() < 0.9


def test_without_evidence_the_direction_stack_is_the_base_rate(two_symbols):
    out = cross_validate(two_symbols, H1, replace(SMALL, families=("lightgbm",), min_train_bars=1100))  # no burn-in
    first = out.fold == 0
    for h in out.horizons:
        np.testing.assert_array_equal(out.families["stack"].p_up[h][first], out.base_rate[h][first])


def test_the_burn_in_is_evidence_for_the_first_fold_and_is_not_scored(two_symbols):
    econometric = replace(SMALL, families=())
    with_it, without = (cross_validate(two_symbols, H1, replace(econometric, min_train_bars=n)) for n in (500, 1100))
    np.testing.assert_array_equal(with_it.time, without.time)
    first = with_it.fold == 0
    np.testing.assert_array_equal(with_it.families["har"].log_rv[24][first], without.families["har"].log_rv[24][first])
    assert (with_it.quantiles["stack"][24][first] != without.quantiles["stack"][24][first]).any()


def test_unconditional_history_is_every_return_known_before_the_fold(two_symbols, out):
    close = two_symbols["GBPUSD"]["close"].to_numpy()
    closed = two_symbols["GBPUSD"]["close_time"].cast(pa.int64()).to_numpy().astype("datetime64[us]")
    ret = np.log(close[24:] / close[:-24])
    rows = (out.fold == 2) & (out.symbol == 1)
    first = out.time[rows].min()
    known = ret[closed[:-24] < first - np.timedelta64(48 * 3600, "s")]  # purged and embargoed
    said = out.quantiles["unconditional_history"][24][rows]
    assert (said == said[0]).all()
    np.testing.assert_allclose(said[0][3], np.quantile(known, 0.5), atol=0.02 * known.std())
    np.testing.assert_allclose(said[0][[1, 5]], np.quantile(known, [0.1, 0.9]), atol=0.05 * known.std())


def test_weights_are_non_negative_and_sum_to_one(out):
    assert {"rv1", "rv24", "sign1", "sign24"} <= set(out.stack_weights)
    for weights in out.stack_weights.values():
        assert min(weights.values()) > 0
        assert sum(weights.values()) == pytest.approx(1.0)


def test_evidence_for_a_fold_ends_before_it_begins(out):
    label_end = out.time + np.timedelta64(24 * 3600_000_000, "us")
    for fold in (1, 4, -1):
        known = known_before(out, label_end, fold)
        first = out.time[out.fold == fold].min()
        assert known.any()
        assert (label_end[known] < first).all()
        assert (out.fold[known] >= 0).all()


def test_the_same_bars_give_the_same_forecasts_in_any_order(two_symbols, out):
    again = cross_validate(dict(reversed(two_symbols.items())), H1, SMALL)
    for family, made in out.families.items():
        for h, values in (made.log_rv | {-h: p for h, p in made.p_up.items()}).items():
            other = again.families[family].log_rv[h] if h > 0 else again.families[family].p_up[-h]
            np.testing.assert_array_equal(values, other)


@pytest.mark.parametrize("learner", [None, "gru"])
def test_forecasts_do_not_change_when_later_bars_arrive(two_symbols, learner):
    """The last days turn wild; nothing forecast before them, or scaled or weighted by them, may move."""
    econometric = replace(SMALL, families=(learner,) if learner else (), lockbox_days=0)
    whole = cross_validate(two_symbols, H1, econometric)
    changed = {}
    for symbol, table in two_symbols.items():
        late = np.arange(table.num_rows) >= table.num_rows - 120  # the last days become wild
        for name in ("open", "high", "low", "close"):
            place = table.schema.get_field_index(name)
            factor = np.where(late, 1.0 + 0.1 * (np.arange(table.num_rows) % 2), 1.0)
            table = table.set_column(place, table.schema.field(place), pa.array(table[name].to_numpy() * factor))
        changed[symbol] = table
    moved = cross_validate(changed, H1, econometric)
    before = whole.time < two_symbols["EURUSD"]["close_time"][-150].as_py().replace(tzinfo=None)
    np.testing.assert_array_equal(whole.time, moved.time)
    for family in ("har_how", "har_range", "stack", *econometric.families):
        for h in whole.families[family].log_rv:
            first, second = (one.families[family].log_rv[h][before] for one in (whole, moved))
            np.testing.assert_array_equal(first, second)
            q_first, q_second = (one.quantiles["stack"][h][before] for one in (whole, moved))
            np.testing.assert_array_equal(q_first, q_second)
    assert not np.array_equal(whole.families["har_how"].log_rv[24], moved.families["har_how"].log_rv[24])


def test_units_go_where_they_are_sent_and_progress_counts_them(two_symbols, out):
    seen, told = [], []

    def run_units(function, arguments):
        seen.extend(argument[0] for argument in arguments)
        return [function(*argument) for argument in arguments]

    cross_validate(two_symbols, H1, SMALL, run_units=run_units, on_progress=lambda *told_now: told.append(told_now))
    assert seen == ["gru", *["lightgbm"] * 7]  # a net's folds are one chain; the burn-in, five folds, the lockbox
    done = [step for _, step, _ in told]
    assert done == sorted(done)
    assert told[-1][1] == told[-1][2] == 7 * 3


NETS = replace(SMALL, families=("lstm", "attention"), lockbox_days=20, test_days=40)


def left_and_taken_up(chains):
    """Chains that stop after every link, as a killed worker's do, and go on from what was written down."""
    for chain in chains:
        state = ChainState()
        while state.done < len(chain.links):
            state = state_from_files(chain, state_to_files(chain, advance(chain, state)))
        yield state


def bundle_of(bars, oof, folder):
    """All weight on the nets, whatever they are worth."""
    shares = {"lstm": 0.5, "attention": 0.5}
    oof.stack_weights |= {"rv24": dict(shares), "sign1": dict(shares), "sign24": dict(shares)}
    passed = dict.fromkeys(("rv24", "sign1", "sign24"), True)
    model = fit_ensemble(bars, H1, NETS, oof, passed, run_units=no_units)
    fields = {
        "timeframe": "H1",
        "kind": "stack",
        "symbols": model.symbols,
        "horizons": model.horizons,
        "trained_from": datetime(2023, 1, 1, tzinfo=UTC),
        "trained_until": datetime(2024, 1, 1, tzinfo=UTC),
        "data_version": "bars@1",
    }
    return save_bundle(model, fields, folder)


def no_units(function, arguments):
    raise AssertionError("the nets' final fit is the last link of their chains")


def test_the_same_bars_and_seed_are_the_same_bundle_also_when_the_chains_were_interrupted(two_symbols, tmp_path):
    first = cross_validate(two_symbols, H1, NETS, final_nets=True)
    again = cross_validate(two_symbols, H1, NETS, final_nets=True)
    resumed = cross_validate(two_symbols, H1, NETS, final_nets=True, run_chains=left_and_taken_up)
    other = cross_validate(two_symbols, H1, replace(NETS, seed=8), final_nets=True)
    ids = [bundle_of(two_symbols, out, tmp_path / str(k)).id for k, out in enumerate((first, again, resumed, other))]
    assert ids[0] == ids[1] == ids[2] != ids[3]


def test_the_final_fit_is_made_when_asked_for_and_changes_no_forecast(two_symbols):
    without = cross_validate(two_symbols, H1, NETS)
    judged = cross_validate(two_symbols, H1, NETS, final_nets=True)
    assert without.nets == {}
    assert set(judged.nets) == set(NETS.families)
    for family in NETS.families:
        for h, p in without.families[family].p_up.items():
            np.testing.assert_array_equal(p, judged.families[family].p_up[h])


def test_folds_out_of_order_would_hand_on_what_they_must_not_know(two_symbols, monkeypatch):
    from tuning import cross_validate as module

    monkeypatch.setattr(module, "make_folds", lambda panel, scheme: make_folds(panel, scheme)[::-1])
    with pytest.raises(InputError, match="Weights trained on labels until"):
        cross_validate(two_symbols, H1, NETS)


def test_a_symbol_with_a_short_history_is_left_out_where_it_cannot_be_fitted(two_symbols):
    bars = dict(two_symbols) | {"USDJPY": _renamed(two_symbols["GBPUSD"].slice(3200 - 700), "USDJPY")}
    out = cross_validate(bars, H1, replace(SMALL, families=()))
    short = out.symbol == out.symbols.index("USDJPY")
    assert 0 not in out.fold[short]
    assert np.isfinite(out.families["stack"].log_rv[24]).all()


def test_symbols_that_share_no_time_leave_some_folds_empty(make_bars):
    """One symbol's year follows the other's: the later one has no training rows until it has been there for a while."""
    bars = make_bars(("EURUSD", "GBPUSD"), 2900)
    bars["EURUSD"], bars["GBPUSD"] = bars["EURUSD"].slice(0, 1700), bars["GBPUSD"].slice(1700)
    out = cross_validate(bars, H1, replace(SMALL, families=("lightgbm",), min_train_bars=300))
    assert out.symbols[out.symbol[-1]] == "GBPUSD"
    assert len(set(out.fold.tolist())) < 6
    assert np.isfinite(out.families["stack"].log_rv[24]).all()


def test_no_symbols_is_an_error_with_advice():
    with pytest.raises(NotEnoughBars, match="backfill"):
        cross_validate({}, H1, SMALL)


def _renamed(table: pa.Table, symbol: str) -> pa.Table:
    names = ("open", "high", "low", "close")
    prices = (table[name].to_numpy() for name in names)
    opened = table["open_time"].cast(pa.int64()).to_numpy().astype("datetime64[us]")
    return bars_from_columns(symbol, H1, opened, *prices, received_at=table["received_at"][0].as_py())


def test_too_short_a_history_says_what_is_needed(make_bars):
    with pytest.raises(NotEnoughBars, match="1200 bars are too few for 5 walk-forward folds; about"):
        cross_validate(make_bars(("EURUSD",), 1200), H1, SMALL)


def test_bars_no_fold_can_reach_are_dropped_and_change_nothing(make_bars):
    bars = make_bars(("EURUSD",), 3600)
    rolling = replace(SMALL, families=(), max_train_bars=700, test_days=40, lockbox_days=20)
    assert recent(bars, rolling.scheme(24), lookback(H1))["EURUSD"].num_rows < 3000
    whole = cross_validate(bars, H1, rolling)
    tail = cross_validate({"EURUSD": bars["EURUSD"].slice(500)}, H1, rolling)
    np.testing.assert_array_equal(whole.families["stack"].log_rv[24], tail.families["stack"].log_rv[24])


def test_pooled_rows_are_the_symbols_own_rows(two_symbols):
    panel = make_panel(two_symbols, H1, H1.horizons, lookback(H1))
    rows = np.array([10, 3199, 3200, 3215])
    assert panel.own_rows(rows, 0).tolist() == [10, 3199]
    assert panel.own_rows(rows, 1).tolist() == [0, 15]


def test_protocol_figures_on_recorded_bars(recorded_bars):
    """HAR + hour-of-week beats HAR beats naive, the stack beats them all, and quantiles cover. Two symbols, last year."""
    received = datetime(2024, 1, 1, tzinfo=UTC)
    read = read_bar_folder(recorded_bars, timeframe="H1", symbols=("GBPUSD", "USDCAD"), received_at=received)
    out = cross_validate({one.symbol: one.bars for one in read}, H1, load_preset("econometric"))
    loss = {}
    for family in ("stack", "har_how", "har", "unconditional"):
        ratio = out.rv[24] * np.exp(-out.families[family].log_rv[24])
        loss[family] = float(np.mean(ratio - np.log(ratio) - 1))
    assert loss["stack"] < loss["har_how"] < loss["har"] < loss["unconditional"]
    assert loss["stack"] < 0.30
    q, r = out.quantiles["stack"][24], out.ret[24]
    assert abs(((r >= q[:, 1]) & (r <= q[:, 5])).mean() - 0.80) < 0.04
    assert abs(((r >= q[:, 0]) & (r <= q[:, 6])).mean() - 0.90) < 0.04
