"""The product's market side on real Windows Python: session in its own process, data API, Arrow fetched from Linux."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from market.errors import MarketUnavailable
from mt5_actor_windows.client import HttpBarSource
from mt5_actor_windows.session import Mt5Session
from tests.windows.node_sessions import KEY, make
from tests.windows.wine_lab import WineLab

NOW = datetime(2022, 3, 16, 14, 37, 50, tzinfo=UTC)
SINCE = datetime(2022, 2, 16, tzinfo=UTC)


@dataclass
class Node:
    """A Windows node's data API as Linux sees it, and the same session here to compare with."""

    source: HttpBarSource
    here: Mt5Session
    wedge: Path


@pytest.fixture(scope="module")
def node(windows: WineLab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    wedge = tmp_path_factory.mktemp("node") / "wedged"
    given = {"now": NOW.isoformat(), "wedged": str(wedge)}
    process = windows.start("-m", "tests.windows.node_sessions", json.dumps(given | {"wedged": f"Z:{wedge}"}))
    assert process.stdout is not None
    first = process.stdout.readline().split()
    if not first:
        pytest.fail(process.communicate(timeout=30)[1].decode(errors="replace"))
    assert first[1] == b"win32"
    source = HttpBarSource(f"http://127.0.0.1:{int(first[0])}", KEY, timeout_seconds=60.0)
    yield Node(source, make(json.dumps(given)), wedge)
    source.close()
    process.communicate(timeout=30)


def test_bars_from_a_windows_node_are_those_of_linux(node: Node) -> None:
    for symbol, timeframe in (("EURUSD", "H1"), ("USDJPY", "M5"), ("EURUSD", "D1")):
        theirs = node.source.closed_bars(symbol, timeframe, SINCE, NOW)
        ours = node.here.closed_bars(symbol, timeframe, SINCE, NOW)
        assert theirs.drop_columns(["received_at"]).equals(ours.drop_columns(["received_at"]))
        assert theirs.num_rows > 15


def test_prices_and_ticks_from_a_windows_node(node: Node) -> None:
    assert node.source.prices(["EURUSD", "USDJPY"]) == node.here.prices(["EURUSD", "USDJPY"])
    since = datetime(2022, 3, 16, 14, 30, tzinfo=UTC)
    assert node.source.ticks("EURUSD", since, limit=9).equals(node.here.ticks("EURUSD", since, limit=9))


def test_a_call_that_hangs_on_windows_is_killed_and_the_node_recovers(node: Node) -> None:
    before, bars = node.source.health()["session_process"], node.source.closed_bars("EURUSD", "H1", SINCE, NOW)
    node.wedge.touch()
    with pytest.raises(MarketUnavailable, match=r"did not answer within 5 s; its process was killed"):
        node.source.closed_bars("EURUSD", "H1", SINCE, NOW)
    node.wedge.unlink()
    again = node.source.closed_bars("EURUSD", "H1", SINCE, NOW)
    assert again.drop_columns(["received_at"]).equals(bars.drop_columns(["received_at"]))
    after = node.source.health()["session_process"]
    assert after["starts"] == before["starts"] + 1
    assert after["pid"] != before["pid"]


def test_the_actor_over_the_real_wheel_says_that_there_is_no_terminal(windows: WineLab, tmp_path: Path) -> None:
    """The whole way of market=mt5 but for the terminal: settings, actor, own process, the MetaTrader5 package."""
    code = """
import json, sys
from configs.settings import make_settings
from mt5_actor_windows.actor import Mt5Actor
actor = Mt5Actor(make_settings(home=sys.argv[1], market="mt5", speed=1.0))
print(json.dumps(actor.health(), default=str))
actor.close()
"""
    health = json.loads(windows.run("-c", code, f"Z:{tmp_path}"))
    assert (health["connected"], health["market"]) == (False, "mt5")
    assert "-10003 (IPC initialize failed, MetaTrader 5 x64 not found)" in health["reason"]
    assert "MT5_PATH" in health["reason"]
