"""The actor chooses its terminal by the settings; whatever it is, it offers the same reads."""

from __future__ import annotations

import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from configs.settings import ensure_secrets, make_settings
from market.errors import BadBars, ConfigError, NotConnected
from market.market_clock import MarketClock
from mt5_actor_windows.actor import Mt5Actor, make_session
from mt5_actor_windows.api_keys import PLAIN_VARIABLE, accept, live_keys
from mt5_actor_windows.client import HttpBarSource

NOW = datetime(2019, 3, 14, 10, 30, tzinfo=UTC)


def stopped(moment: datetime) -> dict[str, object]:
    """A market clock that all but stands still: a microsecond in a quarter of an hour."""
    return MarketClock(time.time(), moment.timestamp(), 1e-9).to_dict()


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LSTMC_HOME", PLAIN_VARIABLE):
        monkeypatch.delenv(name, raising=False)


def test_simulated_market_and_its_http_twin(tmp_path: Path) -> None:
    now = datetime(2022, 3, 16, 14, 37, tzinfo=UTC)
    settings = make_settings(home=tmp_path, clock=stopped(now), symbols="EURUSD", data_api_port=0)
    ensure_secrets(settings)
    actor = Mt5Actor(settings)
    assert actor.health()["market"] == "simulated"
    assert actor.health()["simulated"] is True
    bars = actor.closed_bars("EURUSD", "H1", now - timedelta(days=7))
    port = actor.start_data_api()
    assert actor.start_data_api() == port
    twin = HttpBarSource(f"http://127.0.0.1:{port}", settings.secret("data_api_key").get_secret_value())
    assert twin.closed_bars("EURUSD", "H1", now - timedelta(days=7))["close"].equals(bars["close"])
    twin.close()
    actor.close()


def test_without_any_key_the_actor_starts_and_its_api_lets_nobody_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime(2022, 3, 16, 14, 37, tzinfo=UTC)
    settings = make_settings(home=tmp_path / "head", clock=stopped(now), symbols="EURUSD", data_api_port=0)
    ensure_secrets(settings)
    key = settings.secret("data_api_key").get_secret_value()
    monkeypatch.setenv("LSTMC_HOME", str(tmp_path / "node"))
    actor = Mt5Actor(settings)
    source = HttpBarSource(f"http://127.0.0.1:{actor.start_data_api()}", key)
    with pytest.raises(NotConnected, match="no key yet"):
        source.prices(["EURUSD"])
    accept(tmp_path / "node", live_keys(tmp_path / "head")[0]["sha256"])
    assert source.prices(["EURUSD"])[0]["symbol"] == "EURUSD"
    source.close()
    actor.close()


def test_the_api_listens_where_the_settings_say(tmp_path: Path) -> None:
    given = {"home": tmp_path, "symbols": "EURUSD", "data_api_port": 0}
    actor = Mt5Actor(make_settings(data_api_host="127.0.0.3", **given))
    port = actor.start_data_api()
    assert actor.data_api is not None
    assert actor.data_api.url == f"http://127.0.0.3:{port}"
    actor.close()
    public = Mt5Actor(make_settings(data_api_host="0.0.0.0", **given))
    with pytest.raises(ConfigError, match=r"0\.0\.0\.0 without TLS"):
        public.start_data_api()
    public.close()


def test_recorded_market(recorded_bars: Path) -> None:
    settings = make_settings(market="recorded", bars_dir=recorded_bars, symbols="AUDUSD,EURUSD", clock=stopped(NOW))
    actor = Mt5Actor(settings)
    bars = actor.closed_bars("AUDUSD", "H1", NOW - timedelta(days=2))
    assert bars["close_time"].to_pylist()[-1] == datetime(2019, 3, 14, 10, tzinfo=UTC)
    assert actor.closed_bars("EURUSD", "H1", NOW - timedelta(days=2)).num_rows == 0, "its recording ended in 2018"
    assert actor.health()["simulated"] is False
    assert actor.health()["reason"] == ""


def test_rows_that_are_no_bars_are_counted_not_hidden(recorded_bars: Path, tmp_path: Path) -> None:
    shutil.copy(recorded_bars / "EURUSD_M1_dirty_raw.parquet", tmp_path / "EURUSD_M1.parquet")
    now = stopped(datetime(2024, 11, 14, tzinfo=UTC))
    actor = Mt5Actor(make_settings(market="recorded", bars_dir=tmp_path, symbols="EURUSD", timeframes="M1", clock=now))
    assert actor.health()["quarantined"] == {"EURUSD/M1": {"price_jump": 326}}


def test_a_recording_that_is_over_says_so(recorded_bars: Path) -> None:
    later = stopped(datetime(2020, 3, 5, tzinfo=UTC))
    actor = Mt5Actor(make_settings(market="recorded", bars_dir=recorded_bars, symbols="AUDUSD", clock=later))
    assert "played to its end, 2020-03-04" in actor.health()["reason"]


def test_what_cannot_be_is_refused_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadBars, match="does not exist"):
        make_session(make_settings(market="recorded", bars_dir=tmp_path / "no"))
    with pytest.raises(ConfigError, match="no terminal"):
        make_session(make_settings(market="http", data_api_url="http://host:8001", speed=1.0))
    monkeypatch.setenv("MT5_LOGIN", "me")
    with pytest.raises(ConfigError, match="MT5_LOGIN"):
        make_session(make_settings(market="mt5", speed=1.0))


def test_the_real_terminal_is_read_in_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here without the package, so that the child says what is missing, in our words."""
    for name in ("MT5_LOGIN", "MT5_SERVER", "MT5_PATH", "MT5_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    actor = Mt5Actor(make_settings(home=tmp_path, market="mt5", speed=1.0))
    health = actor.health()
    assert (health["connected"], health["market"]) == (False, "mt5")
    assert "MetaTrader5 package cannot be imported" in health["reason"]
    assert health["session_process"]["pid"] != health["pid"]
    with pytest.raises(NotConnected, match="tried again by itself"):
        actor.closed_bars("EURUSD", "H1", NOW)
    actor.close()
    monkeypatch.setenv("MT5_LOGIN", "me")
    with pytest.raises(ConfigError, match="MT5_LOGIN"):
        Mt5Actor(make_settings(market="mt5", speed=1.0))
