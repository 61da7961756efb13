"""The whole path on a live cluster, in order: up, forecasts over HTTP, closing bars, training, a lost node, down, up again.

The tests build on each other: each leaves the cluster as the next expects it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml
from prometheus_client.parser import text_string_to_metric_families

from actors.figures import METRICS, PREFIX, Figures
from actors.prediction_ledger import PredictionLedger
from actors.retrain_scheduler import log_file
from cluster.health import http_get
from cluster.nodes import listens
from cluster.run_record import members
from configs.settings import ROOT
from lstmc_client.client import Client
from market.bar_store import BarStore
from mt5_actor_windows.actor import make_session
from tests.ray.conftest import Cluster, eventually
from tests.serve_app.test_api import SHAPES
from tuning.bundle import Forecaster, save_bundle
from tuning.registry import Registry

SYMBOLS = ["EURUSD", "GBPUSD", "USDJPY"]
CONTENT = ["symbol", "timeframe", "open_time", "open", "high", "low", "close", "tick_volume", "spread_points"]


def as_of(cluster: Cluster, token: str, symbol: str = "EURUSD") -> str:
    code, body = cluster.get(f"/api/v1/predictions/{symbol}?timeframe=H1", token)
    assert code == 200, body
    return str(body["as_of"])


def status(cluster: Cluster) -> dict[str, Any]:
    return dict(cluster.json("status"))


def scraped(cluster: Cluster) -> Figures:
    """What Prometheus would read now of all nodes, as it finds them; Ray's own metrics and labels left out."""
    ours = {label for metric in METRICS for label in metric.labels}
    found: Figures = {}
    for group in json.loads((Path(cluster.run.temp_dir) / "prom_metrics_service_discovery.json").read_text()):
        for target in group["targets"]:
            page = httpx.get(f"http://{target}/metrics", trust_env=False).text
            for sample in (sample for family in text_string_to_metric_families(page) for sample in family.samples):
                if sample.name.startswith(f"{PREFIX}lstmc_"):
                    labels = sorted((name, value) for name, value in sample.labels.items() if name in ours)
                    found[sample.name.removeprefix(PREFIX), tuple(labels)] = sample.value
    return found


def assert_store_is_the_markets_truth(cluster: Cluster) -> int:
    """Every stored bar is what the simulated market says, none is missing in between, none is there twice."""
    settings = cluster.settings
    session, store = make_session(settings), BarStore(settings.bars_path)
    total = 0
    for symbol in SYMBOLS:
        stored = store.read([symbol], "H1")
        truth = session.closed_bars(symbol, "H1", stored["open_time"][0].as_py(), stored["close_time"][-1].as_py())
        assert stored.select(CONTENT).equals(truth.select(CONTENT)), symbol
        total += stored.num_rows
    return total


def test_up_serves_a_forecast_for_every_symbol(cluster: Cluster, token: str) -> None:
    assert cluster.get("/healthz")[0] == 200
    assert cluster.get("/readyz")[0] == 200
    code, body = cluster.get("/api/v1/forex/all", token)
    assert code == 200
    assert {forecast["symbol"] for forecast in body["forecasts"]} == set(SYMBOLS)
    one = body["forecasts"][0]
    assert one["market"] == "simulated"
    assert one["stale"] is False
    assert one["model_id"].startswith("h1-")
    assert [horizon["bars"] for horizon in one["horizons"]] == [1, 24]
    assert all(horizon["volatility"] > 0 and horizon["skill"] for horizon in one["horizons"])


def test_without_a_valid_token_there_is_no_forecast(cluster: Cluster, token: str) -> None:
    for wrong in ("", "nonsense", token[:-4] + "AAAA"):
        code, body = cluster.get("/api/v1/predictions/EURUSD", wrong)
        assert code == 401
        assert body["hint"]


def test_a_subject_has_few_streams(cluster: Cluster) -> None:
    token = cluster.json("token", "issue", "--subject", "listener")["token"]
    with httpx.Client(headers={"Authorization": f"Bearer {token}"}, trust_env=False) as client, ExitStack() as streams:
        address, few = f"http://127.0.0.1:{cluster.ports['port']}/api/v1/stream", cluster.settings.streams_per_subject
        seen = [streams.enter_context(client.stream("GET", address)).status_code for _ in range(few + 1)]
    assert seen == [200] * few + [429]


def test_the_mt5_actor_sits_on_the_mt5_node(cluster: Cluster) -> None:
    report = status(cluster)
    node = next(n for n in report["nodes"] if n["role"] == "mt5")
    assert node["resources"].get("CPU", 0) == 0
    actors = {actor["name"]: actor for actor in report["actors"]}
    assert actors["mt5"]["class"] == "Mt5Actor"
    assert actors["mt5"]["node_id"] == node["id"]
    assert actors["forecaster"]["node_id"] != node["id"]
    assert report["serve"]["status"] == "RUNNING"
    assert report["root_cause"] == ""


def test_the_stack_is_small(cluster: Cluster) -> None:
    assert 0 < status(cluster)["memory_mb"] < 4096


def test_a_closing_bar_moves_the_forecast_and_the_ledger(cluster: Cluster, token: str) -> None:
    before = as_of(cluster, token)
    eventually(lambda: as_of(cluster, token) > before, 30, "a bar closes every six seconds")
    settings = cluster.settings
    ledger = PredictionLedger.of(settings)
    settled = eventually(lambda: [row for row in ledger.history("EURUSD", "H1") if "1" in row["outcomes"]], 30)
    assert settled[0]["outcomes"]["1"]["closed_at"] > settled[0]["as_of"]
    assert ledger.verify().intact


def test_a_program_reads_it_with_the_client(cluster: Cluster, token: str) -> None:
    with Client(f"http://127.0.0.1:{cluster.ports['port']}", token) as client:
        forecasts = client.predictions()
        assert (set(forecasts.found), forecasts.missing) == (set(SYMBOLS), {})
        assert client.model("EURUSD").id == forecasts.found["EURUSD"].model_id
        assert client.bars("EURUSD", limit=3)["close"].notna().all()
        history = client.history("EURUSD", limit=2)
        assert history["seq"].nunique() == 2
        assert history["outcome_return"].isna().any()  # the newest waits for its bars
        events = client.stream()
        assert next(events).kind == "snapshot"
        update = next(event for event in events if event.predictions)
        assert max(p.as_of for p in update.predictions.values()) > forecasts.found["EURUSD"].as_of
    assert http_get(f"http://127.0.0.1:{cluster.ports['port']}/docs")[0] == 200


def test_real_answers_are_as_described(cluster: Cluster, token: str) -> None:
    for path, shape in SHAPES.items():
        code, body = cluster.get(path, token)
        assert code == 200, body
        shape.model_validate(body)


class SameForecasts:
    """A model under as many ids as are wanted."""

    def __init__(self, model: Forecaster, number: int) -> None:
        self.bars_needed, self.spec_digest = model.bars_needed, model.spec_digest
        self.forecast, self._model, self._number = model.forecast, model, number

    def save(self, folder: Path) -> None:
        self._model.save(folder)
        with sorted(folder.glob("*.json"))[0].open("a") as file:
            file.write("\n" * self._number)


def test_other_models_forecast_on_demand(cluster: Cluster, token: str, tmp_path: Path) -> None:
    registry = Registry.of(cluster.settings)
    champion = registry.load(registry.list("H1")[0].id)
    fields = {name: v for name, v in vars(champion.version).items() if name not in ("id", "spec_digest")}
    models = []
    for number in range(1, 9):
        save_bundle(SameForecasts(champion.ensemble, number), fields, tmp_path / str(number))
        models.append(registry.add(tmp_path / str(number)).id)
    base, headers = f"http://127.0.0.1:{cluster.ports['port']}", {"Authorization": f"Bearer {token}"}

    async def crowd() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(
            base_url=base, headers=headers, limits=limits, timeout=30, trust_env=False
        ) as client:
            asks = [(SYMBOLS[i % 3], {"model": models[i % 8]} if i % 10 else {}) for i in range(200)]
            paths = (client.get(f"/api/v1/predictions/{symbol}", params=asked) for symbol, asked in asks)
            return await asyncio.gather(*paths)

    answers = asyncio.run(crowd())
    assert {answer.status_code for answer in answers} <= {200, 503}
    assert {answer.status_code for answer in answers[::10]} == {200}, "the board answers whatever else is asked"
    refused = [answer for answer in answers if answer.status_code == 503]
    kinds = {answer.json()["type"].removeprefix("urn:lstmc:problem:") for answer in refused}
    assert "on-demand-busy" in kinds, "eight models, one call at a time and one that waits"
    assert kinds <= {"on-demand-busy", "on-demand-under-way"}
    assert all(int(answer.headers["retry-after"]) > 0 and answer.json()["hint"] for answer in refused)
    with Client(base, token) as client:
        made = client.prediction("EURUSD", model=models[-1])  # waits for a process to start
        usual = client.prediction("EURUSD")
    assert (made.model_id, made.on_demand, made.recorded) == (models[-1], True, False)
    assert (usual.model_id, usual.on_demand, usual.recorded) == (champion.version.id, False, True)
    assert abs(usual.as_of - made.as_of) <= timedelta(hours=2), "bars close every six seconds"
    assert {card.live_value for horizon in made.horizons for card in horizon.skill} == {None}
    recorded = PredictionLedger.of(cluster.settings).history("EURUSD", "H1")
    assert {row["model_id"] for row in recorded} == {champion.version.id}


def test_prometheus_finds_every_figure_of_the_list(cluster: Cluster) -> None:
    later = {"lstmc_live_skill", "lstmc_job_budget_used_ratio"}  # thirty closes, and a training run
    named = {metric.name for metric in METRICS} - later
    eventually(lambda: {name for name, _ in scraped(cluster)} >= named, 40, "Ray's agents tell of every figure")
    told = scraped(cluster)
    listed = {metric.name: metric for metric in METRICS}
    for name, labels in told:
        assert tuple(sorted(label for label, _ in labels)) == tuple(sorted(listed[name].labels)), name
    series = {symbol: (("symbol", symbol), ("timeframe", "H1")) for symbol in SYMBOLS}
    for name, least, most in (
        ("lstmc_bar_age_seconds", 0, 3 * 3600),
        ("lstmc_forecast_age_seconds", 0, 3 * 3600),
        ("lstmc_bar_gaps", 0, 0),
    ):
        assert {labels for one, labels in told if one == name} == set(series.values()), name
        assert all(least <= told[name, labels] <= most for labels in series.values()), name
    assert told["lstmc_source_connected", (("transport", "ray"),)] == 1
    assert told["lstmc_rate_limited_total", (("limit", "too-many-streams"),)] == 1
    assert told["lstmc_ledger_spooled", ()] == 0
    assert 0 <= told["lstmc_ledger_lag_rows", ()] <= len(SYMBOLS) * 2 * 25
    assert {value for (name, _), value in told.items() if name == "lstmc_gate_passed"} <= {0, 1}
    assert told["lstmc_live_outcomes", (("target", "r1"), ("timeframe", "H1"))] >= 1
    assert 0 <= told["lstmc_live_coverage", (("target", "r1"), ("timeframe", "H1"))] <= 1


def test_a_second_up_says_it_runs(cluster: Cluster) -> None:
    before = cluster.run
    again = cluster.lstmc("up", "--detach", "--watch")
    assert "already running" in again.stderr
    assert before.processes.items() <= cluster.run.processes.items()
    assert f"http://127.0.0.1:{cluster.run.ports['prometheus']}" in again.stdout
    other = cluster.lstmc("up", "--detach", "--speed", "5", check=False)
    assert other.returncode == 3
    assert "lstmc down" in other.stderr


def test_a_job_needs_the_token(cluster: Cluster) -> None:
    dashboard = f"http://127.0.0.1:{cluster.ports['dashboard_port']}/api/jobs/"
    assert http_get(dashboard)[0] == 401
    assert http_get(dashboard, "wrong" * 12)[0] == 403
    assert http_get(dashboard, (cluster.home / "secrets" / "ray_token").read_text())[0] == 200


def test_a_wrong_token_is_named(cluster: Cluster) -> None:
    for command in (["train"], ["up", "--detach"]):
        refused = cluster.lstmc(*command, check=False, LSTMC_SECRET_RAY_TOKEN="wrong" * 12)
        assert refused.returncode == 3, refused.stderr
        assert "token" in refused.stderr
        assert "Traceback" not in refused.stderr


def test_ray_job_submit_from_outside_retrains(cluster: Cluster, tmp_path: Path) -> None:
    models = len(cluster.json("models", "list"))
    shell = cluster.environment | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": (cluster.home / "secrets" / "ray_token").read_text(),
    }
    shell.pop("LSTMC_HOME")  # the cluster knows its own
    address = f"http://127.0.0.1:{cluster.ports['dashboard_port']}"
    ray = str(Path(sys.executable).parent / "ray")
    words = [
        ray,
        "job",
        "submit",
        "--address",
        address,
        "--",
        "python",
        "-m",
        "tuning.retrain",
        "--preset",
        "econometric",
    ]
    done = subprocess.run(words, capture_output=True, text=True, env=shell, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(cluster.json("models", "list")) >= models
    assert status(cluster)["jobs"][0]["status"] == "SUCCEEDED"


def test_prometheus_has_our_rules_and_answers_for_every_series(cluster: Cluster) -> None:
    url = status(cluster)["watch"]["prometheus"]

    def asked(path: str) -> Any:
        code, body = http_get(f"{url}/api/v1/{path}")
        assert code == 200, body
        return body["data"]

    def ages() -> Any:
        return asked("query?query=ray_lstmc_bar_age_seconds")["result"]

    assert {age["metric"]["symbol"] for age in eventually(ages, 40, "the first scrape")} == set(SYMBOLS)
    shipped = yaml.safe_load((ROOT / "cluster" / "deploy" / "prometheus" / "rules.yaml").read_text())["groups"]

    def healths() -> list[tuple[str, str]]:
        return [(rule["name"], rule["health"]) for group in asked("rules")["groups"] for rule in group["rules"]]

    expected = sorted((rule.get("alert") or rule["record"], "ok") for group in shipped for rule in group["rules"])
    eventually(lambda: sorted(healths()) == expected, 40, "every rule was evaluated")


def test_the_scheduler_follows_its_job_by_itself(cluster: Cluster) -> None:
    report = status(cluster)
    assert next(actor for actor in report["actors"] if actor["name"] == "schedule")["state"] == "ALIVE"
    assert report["schedule"]["paused_since"]
    [submission] = cluster.json("schedule", "run", "--name", "daily")["submitted"]
    words = [sys.executable, "-m", "tests.ray.stop_when_running", submission]
    done = subprocess.run(words, capture_output=True, text=True, env=cluster.environment, cwd=ROOT, timeout=200)
    assert done.stdout.split() == ["True", "0:30:00"], done.stderr
    file = log_file(cluster.settings)
    eventually(lambda: file.read().last() is not None, 60, "the actor looks every 20 seconds")
    [line] = cluster.json("schedule", "show", "--runs")
    assert (line["run"], line["state"], line["attempts"][0]["how"]) == ("daily", "stopped", "stopped")


def test_lstmc_train_is_the_same_job(cluster: Cluster) -> None:
    first = cluster.json("train", "--preset", "quick", "--symbols", "EURUSD", "--submission-id", "only-once")
    assert first == {"submission_id": "only-once"}
    again = cluster.lstmc("train", "--preset", "quick", "--submission-id", "only-once", check=False)
    assert again.returncode == 3
    assert "submitted before" in again.stderr
    assert "working_dir" not in again.stderr


def test_killed_actors_come_back_and_nothing_is_written_twice(cluster: Cluster, token: str) -> None:
    pids = {actor["name"]: actor["pid"] for actor in status(cluster)["actors"]}
    before = as_of(cluster, token)
    for name in ("market_data", "forecaster"):
        os.kill(pids[name], signal.SIGKILL)
    assert cluster.get("/api/v1/predictions/EURUSD", token)[0] == 200
    eventually(lambda: as_of(cluster, token) > before, 60, "the actors' second life goes on")
    assert_store_is_the_markets_truth(cluster)
    settings = cluster.settings
    ledger = PredictionLedger.of(settings)
    assert ledger.verify().intact


def test_a_lost_mt5_node_makes_forecasts_stale_not_absent(cluster: Cluster, token: str) -> None:
    [raylet] = [p for p in members(cluster.run, "mt5") if p.name() == "raylet"]
    raylet.kill()

    def stale() -> dict[str, Any] | None:
        code, body = cluster.get("/api/v1/predictions/EURUSD", token)
        assert code == 200
        return body if body["stale"] else None

    answer = eventually(stale, 90, "two bars late is stale")
    assert "node that holds the terminal is gone" in answer["reason"]
    assert answer["reason_code"] == "source_away"
    connected = "lstmc_source_connected", (("transport", "ray"),)
    eventually(lambda: scraped(cluster).get(connected) == 0, 40, "Prometheus is told")
    code, body = cluster.get("/api/v1/signals", token)
    assert code == 200
    assert {(signal["side"], signal["reason_code"]) for signal in body["signals"]} == {("none", "stale")}
    assert "mt5 node is down" in status(cluster)["root_cause"]


def test_bringing_it_back_fills_the_gap(cluster: Cluster, token: str) -> None:
    before = as_of(cluster, token)
    back = cluster.lstmc("up", "--detach")
    assert "mt5 node was down" in back.stderr
    assert cluster.run.alive("prometheus")  # left alone without the flag
    eventually(lambda: as_of(cluster, token) > before, 60, "forecasts move again")
    eventually(lambda: cluster.get("/api/v1/predictions/EURUSD", token)[1]["stale"] is False, 30)
    assert assert_store_is_the_markets_truth(cluster) > 3 * 5000
    assert cluster.json("bars", "gaps") == []


def is_idle_worker(process: psutil.Process) -> bool:
    """Ray starts and ends these as it likes; one that is gone already is one of them, too."""
    try:
        return process.cmdline()[:1] in ([], ["ray::IDLE"])
    except psutil.NoSuchProcess:
        return True


def test_down_leaves_nothing_and_up_resumes(cluster: Cluster, token: str) -> None:
    before, run = as_of(cluster, token), cluster.run
    ours = members(run)
    lasting = [process for process in ours if not is_idle_worker(process)]
    assert len(lasting) > 10
    assert cluster.json("down")["ended"] >= len(lasting)
    assert members(run) == []
    assert not any(psutil.pid_exists(process.pid) for process in ours)
    assert not any(listens(port) for port in cluster.ports.values())
    assert not Path(run.temp_dir).exists()
    assert cluster.lstmc("status", check=False).returncode == 3

    cluster.lstmc("up", *cluster.flags)
    assert cluster.run.warm_s is not None
    assert as_of(cluster, token) >= before
    assert_store_is_the_markets_truth(cluster)
