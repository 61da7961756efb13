"""Starts that went wrong: a head that died, an `up` that was interrupted. Nothing of ours stays, nothing else is touched."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import nodes
from cluster.bootstrap import _running
from cluster.nodes import PORT_FLAGS, free_ports, listens
from cluster.progress import Progress
from cluster.run_record import members, read_run
from configs.settings import Settings, ensure_secrets, make_settings, save_settings

LSTMC = str(Path(sys.executable).parent / "lstmc")


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    made = make_settings(home=tmp_path, symbols="EURUSD", **dict(zip(PORT_FLAGS, free_ports(4), strict=True)))
    ensure_secrets(made)
    save_settings(made)
    yield made
    nodes.stop(tmp_path)


def test_a_dead_head_is_cleared_away_with_all_it_left_behind(settings: Settings) -> None:
    run = nodes.start_head(settings)
    head = run.processes["head"].process()
    assert head is not None
    head.kill()  # `ray start` itself; its children live on for a while, one of them on our port
    head.wait()
    said = io.StringIO()
    assert _running(settings.home_path, {}, Progress(said)) == (None, None)
    assert "cleared away a stale head" in said.getvalue()
    assert members(run) == []
    assert not listens(settings.head_port)
    nodes.check_ports(settings)  # a new start would go ahead


def test_an_interrupted_up_leaves_nothing(settings: Settings) -> None:
    ports = [word for name, flag in PORT_FLAGS.items() for word in (flag, str(getattr(settings, name)))]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "LSTMC_"))} | {"PYTHONFAULTHANDLER": "1"}
    up = subprocess.Popen(
        [LSTMC, "--home", str(settings.home_path), "up", "--symbols", "EURUSD", "--no-train", *ports],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=clean,
    )
    assert up.stderr is not None
    said = ""
    while "head started" not in said:
        line = up.stderr.readline()
        assert line, said
        said += line
    run = read_run(settings.home_path)
    assert run is not None
    assert members(run)
    up.send_signal(signal.SIGINT)
    try:
        _, rest = up.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        up.send_signal(signal.SIGABRT)  # it says where it hangs
        rest = up.communicate()[1]
    assert up.returncode == 130, said + rest
    assert "Traceback" not in rest
    assert members(run) == []
    assert not listens(settings.head_port)
