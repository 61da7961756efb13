"""Head, worker and mt5 node in a network namespace each: the whole path between them, and what a lost link does to it.

All faults are in `lstmc bench nodes`; how long healing takes is measured there.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator

import pytest

from benchmarks.bar_audit import audit
from benchmarks.live_cluster import LSTMC
from benchmarks.namespaces import network, refusal
from benchmarks.node_faults import FAULTS, await_job, await_units, train
from benchmarks.nodes import watch
from benchmarks.private_installation import chosen
from benchmarks.three_machines import HEAD, MT5, SYMBOLS, WORKER, ThreeMachines, three_machines
from cluster import cluster_checks, health, node_answers
from configs.settings import ROOT
from mt5_actor_windows.versions import versions


@pytest.fixture(scope="module", autouse=True)
def _namespaces() -> None:
    """In CI only a kernel that refuses them excuses us."""
    why = refusal()
    if why and os.environ.get("CI") == "true" and "Operation not permitted" not in why:
        pytest.fail(f"No network namespaces: {why}")
    if why:
        pytest.skip(f"No network namespaces: {why}")


@pytest.fixture(scope="module")
def made() -> Iterator[ThreeMachines]:
    with three_machines(rate=5) as running:
        yield running


def test_a_cut_link_lets_nothing_through() -> None:
    with network(["a", "b"]) as wire, wire.thread("a") as a, wire.thread("b") as b:
        address = (wire.addresses["a"], 7000)

        def reaches(seconds: float) -> bool:
            try:
                socket.create_connection(address, seconds).close()
            except OSError:
                return False
            return True

        with a.submit(socket.create_server, address).result():
            assert b.submit(reaches, 5.0).result()
            wire.cut("a")
            assert not b.submit(reaches, 0.2).result()
            wire.mend("a")
            assert b.submit(reaches, 5.0).result()


def test_bars_come_from_one_machine_and_forecasts_from_another(made: ThreeMachines) -> None:
    assert made.are_all_there()
    nodes = {node["role"]: node for node in made.threads[HEAD].submit(health.nodes, made.settings).result()}
    assert len({node["address"] for node in nodes.values()}) == len(made.roles)
    assert nodes["mt5"]["address"] == made.wire.addresses[MT5]
    actors = {actor["name"]: actor for actor in made.threads[HEAD].submit(health.actors, made.settings).result()}
    assert actors["mt5"]["node_id"] == nodes["mt5"]["id"]
    assert {actors[name]["node_id"] for name in ("market_data", "forecaster")} == {nodes["head"]["id"]}
    told = made.get("/api/v1/forex/all")["forecasts"]
    assert {(one["symbol"], one["stale"]) for one in told} == {(symbol, False) for symbol in SYMBOLS}
    found = audit(made.settings)
    assert found.clean, found
    assert found.bars > 5000 * len(SYMBOLS)


def test_the_doctor_may_join_from_the_worker_and_hears_every_node(made: ThreeMachines) -> None:
    token, home = made.settings.secret("ray_token").get_secret_value(), str(made.home(HEAD))
    asked = made.threads[HEAD].submit(node_answers.ask, ["own"], token, LSTMC_HOME=home)
    words = made.wire.command(WORKER, LSTMC, "doctor", "--head", made.wire.addresses[HEAD], "--json")
    told = subprocess.run(words, cwd=ROOT, env=made.environment(WORKER), capture_output=True, text=True)
    found = {one["check"]: one for one in json.loads(told.stdout)}
    for name in ("token", "head", "admission", "versions", "head's ports", "head's clock"):
        assert found[name]["ok"], found[name]
    assert "not known" not in found["head's clock"]["found"]
    answers = asked.result()
    assert {one["node"].split()[0] for one in answers["nodes"]} == set(made.roles.values())
    for ok, said, _ in (
        cluster_checks.nodes(answers["nodes"]),
        cluster_checks.node_versions(versions(), answers["nodes"]),
        cluster_checks.node_clocks(answers["nodes"]),
        cluster_checks.terminal("simulated", answers["sources"]),
    ):
        assert ok, said


def test_a_training_job_of_the_head_computes_on_the_worker(made: ThreeMachines) -> None:
    train(made, "quick", "over-there")
    assert await_units(made)
    await_job(made, "over-there")


def test_a_lost_link_to_the_terminal_loses_no_bar_and_says_so(made: ThreeMachines) -> None:
    [fault] = chosen(FAULTS, "mt5_cut")
    seen = watch(made, fault, seconds=5)
    assert seen.ok, seen
    assert seen.requests > 20
