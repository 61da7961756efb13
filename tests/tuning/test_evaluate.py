"""`python -m tuning.evaluate` on folders: noise, recorded bars, bad input."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from market.errors import NotEnoughBars
from tuning import evaluate
from tuning.experiments import IID_NOISE, World, simulate
from tuning.presets import load_preset
from tuning.shared_panel import shared_panel

RECORDED = Path(__file__).resolve().parents[3] / "shared" / "data"
KEYS = {"baseline", "loss", "baseline_loss", "skill", "t", "per_symbol", "promoted", "why"}
FIGURES = (
    *("cumulative_rv24", "cumulative_r24", "cumulative_sign1", "symbols", "weights"),
    *("coverage_session", "coverage_symbol", "quantiles", "fan", "reliability_sign1"),
    *("equity_sign24", "equity_sign1", "folds", "purging"),
)
EXTRA = {
    "rv": {"qlike", "qlike_har_how"},
    "r": {"cov80", "cov90", "pinball_skill", "pinball_skill_window"},
    "sign": {"auc", "auc_ex_rollover", "net_bp"},
}


def write_folder(folder: Path, tables: dict[str, pa.Table]) -> Path:
    """As a broker's export would be: SYMBOL_H1.parquet with `time` in UTC."""
    folder.mkdir(parents=True)
    for symbol, table in tables.items():
        columns = {name: table[name] for name in ("open", "high", "low", "close", "tick_volume")}
        columns["time"] = table["open_time"].cast(pa.timestamp("us"))
        columns["spread"] = table["spread_points"]
        pq.write_table(pa.table(columns), folder / f"{symbol}_H1.parquet")
    return folder


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    world = World(garch=False, seasonal=False, weeks=40, symbols=("EURUSD", "GBPUSD", "USDJPY"))
    root = tmp_path_factory.mktemp("noise")
    folder = write_folder(root / "bars", simulate(world, seed=31))
    code = evaluate.main(
        ["--bars", str(folder), "--out", str(root / "out"), "--preset", "econometric", "--workers", "1"]
    )
    return code, root / "out", json.loads((root / "out" / "report.json").read_text())


def test_noise_promotes_nothing_and_says_so(noise, capsys):
    code, _, report = noise
    assert code == 0
    assert report["promoted"] is False
    assert not any(v["promoted"] for v in report["targets"].values())
    assert "Nothing was promoted." in evaluate.summary_lines(report)
    assert any("No edge found in direction" in line for line in evaluate.summary_lines(report))


def test_the_report_has_every_promised_key(noise):
    _, _, report = noise
    assert {"bars", "protocol", "cpu_seconds", "peak_rss_mb", "targets"} <= set(report)
    assert set(report["targets"]) == {"rv24", "r24", "sign24", "rv1", "r1", "sign1"}
    for target, v in report["targets"].items():
        assert set(v) >= KEYS | EXTRA[target.rstrip("0123456789")], target
        assert set(v["per_symbol"]) == {"EURUSD", "GBPUSD", "USDJPY"}
    assert set(report["bars"]["EURUSD"]) >= {"rows", "from", "to", "clock"}
    assert report["cpu_seconds"] > 0
    assert report["peak_rss_mb"] > 50


def test_the_page_is_complete_without_internet(noise):
    _, out, _ = noise
    page = (out / "report.html").read_text()
    assert "Nothing was promoted." in page
    assert "Plotly.react" in page
    own = re.sub(
        r"<script>.*?</script>", "", page, flags=re.DOTALL
    )  # Plotly's own text holds links that it never opens
    assert "http" not in own
    assert "<link" not in own
    assert "<script src" not in page
    for key in FIGURES:
        assert f'id="{key}"' in page


def test_json_goes_to_stdout_and_progress_to_stderr(tmp_path, capsys):
    world = World(weeks=26, symbols=("EURUSD",), garch=False, seasonal=False)
    folder = write_folder(tmp_path / "bars", simulate(world, seed=2))
    arguments = [
        "--bars",
        str(folder),
        "--out",
        str(tmp_path / "out"),
        "--preset",
        "econometric",
        "--workers",
        "1",
        "--json",
    ]
    assert evaluate.main(arguments) == 0
    said = capsys.readouterr()
    report = json.loads(said.out)
    assert "too few to tell skill from luck" in report["targets"]["rv24"]["why"]
    assert "baselines" in said.err


@pytest.mark.parametrize(
    ("make", "arguments", "code", "said"),
    [
        (lambda p: None, [], 2, "does not exist"),
        (lambda p: p.mkdir(), [], 2, "no bar files"),
        (lambda p: write_folder(p, simulate(World(weeks=2, symbols=("EURUSD",)), 1)), [], 5, "enough bars"),
        (lambda p: write_folder(p, simulate(World(weeks=2, symbols=("EURUSD",)), 1)), ["--timeframe", "M15"], 2, "M15"),
        (lambda p: p.mkdir(), ["--symbols", "EURXXX"], 2, "Unknown symbol"),
        (lambda p: p.mkdir(), ["--preset", "huge"], 2, "no preset"),
        (lambda p: p.mkdir(), ["--experiments", "nowhere.json"], 2, "cannot be read"),
    ],
)
def test_bad_input_is_one_line_and_the_right_code(tmp_path, capsys, make, arguments, code, said):
    make(tmp_path / "bars")
    given = ["--bars", str(tmp_path / "bars"), "--out", str(tmp_path / "out"), "--workers", "1", *arguments]
    assert evaluate.main(given) == code
    message = capsys.readouterr().err
    assert said in message
    assert "Traceback" not in message
    assert not (tmp_path / "out").exists()


def test_symbols_are_cut_to_one_shared_end_and_late_or_short_ones_left_out():
    tables = simulate(World(weeks=40, symbols=("EURUSD", "GBPUSD", "USDJPY", "USDCHF", "USDCAD")), seed=1)
    n = tables["EURUSD"].num_rows
    tables["GBPUSD"] = tables["GBPUSD"].slice(0, n - 20)  # ends a day earlier: all are cut there
    tables["USDJPY"] = tables["USDJPY"].slice(0, n // 2)  # ended long before
    tables["USDCHF"] = tables["USDCHF"].slice(n - 600)  # begins inside the test period
    kept, excluded = shared_panel(tables, load_preset("econometric"))
    assert set(kept) == {"EURUSD", "GBPUSD", "USDCAD"}
    assert len({table["close_time"][-1].as_py() for table in kept.values()}) == 1
    assert "bars end on" in excluded["USDJPY"]
    assert "before the test period" in excluded["USDCHF"]


def test_nothing_left_says_why():
    tables = {s: t.slice(0, 200) for s, t in simulate(World(weeks=4, symbols=("EURUSD",)), seed=1).items()}
    with pytest.raises(NotEnoughBars, match="EURUSD: 200 bars"):
        shared_panel(tables, load_preset("econometric"))


def test_not_a_number_becomes_null():
    cleaned = evaluate.finite({"a": [float("nan"), np.float64(1.5), np.bool(True)], "b": float("inf")})
    assert cleaned == {"a": [None, 1.5, True], "b": None}


def test_iid_noise_is_what_its_name_says():
    assert not IID_NOISE.garch
    assert not IID_NOISE.seasonal


@pytest.mark.skipif(not RECORDED.is_dir(), reason=f"the recorded bars are not at {RECORDED}")
def test_recorded_bars_reach_the_published_baselines(tmp_path):
    """The econometric families alone, about five seconds; the figures are those of the protocol."""
    assert (
        evaluate.main(["--bars", str(RECORDED), "--out", str(tmp_path), "--preset", "econometric", "--workers", "1"])
        == 0
    )
    report = json.loads((tmp_path / "report.json").read_text())
    assert "EURUSD" in report["excluded"]
    assert len(report["bars"]) == 7
    assert report["targets"]["rv24"]["qlike"] <= 0.276
    assert report["targets"]["rv24"]["qlike"] > 0.24
    assert report["targets"]["r24"]["cov80"] == pytest.approx(0.80, abs=0.025)
    assert report["targets"]["r24"]["cov90"] == pytest.approx(0.90, abs=0.02)
    assert report["targets"]["sign24"]["promoted"] is False
    assert report["serves"]["rv24"] == "econometric_stack"
