"""Settings: layering, refusals that name the key, secrets that stay secret."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from configs.settings import ensure_secrets, load_settings, make_settings, save_settings
from market.errors import ConfigError, LstmcError, NotRunning, UnknownSymbol, UnknownTimeframe


def test_the_local_profile_is_a_simulated_market_of_seven_pairs() -> None:
    settings = make_settings()
    assert (settings.market, len(settings.symbols), settings.timeframes, settings.history_days) == (
        "simulated",
        7,
        ("H1",),
        365,
    )


def test_flags_beat_the_environment_and_that_beats_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSTMC_PORT", "9001")
    monkeypatch.setenv("LSTMC_DASHBOARD_PORT", "9002")
    settings = make_settings(port=9003)
    assert (settings.port, settings.dashboard_port, settings.data_api_port) == (9003, 9002, 8001)


def test_a_live_market_runs_at_speed_one_whatever_the_profile_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (make_settings().speed, make_settings(market="mt5").speed) == (60, 1)
    assert make_settings(market="http", data_api_url="http://10.8.0.2:8001").speed == 1
    monkeypatch.setenv("LSTMC_MARKET", "mt5")
    assert make_settings().speed == 1
    monkeypatch.setenv("LSTMC_SPEED", "60")
    with pytest.raises(ConfigError, match="speed 1"):
        make_settings()


def test_only_played_markets_have_their_terminals_node_on_this_machine() -> None:
    given = {
        "simulated": {},
        "recorded": {"bars_dir": "."},
        "mt5": {},
        "http": {"data_api_url": "http://10.8.0.2:8001"},
    }
    here = {market: make_settings(market=market, **more).plays_terminal for market, more in given.items()}  # type: ignore[arg-type]
    assert here == {"simulated": True, "recorded": True, "mt5": False, "http": False}
    assert make_settings(market="simulated", mt5_node="elsewhere").plays_terminal is False


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({"symbols": "EURUS"}, UnknownSymbol, "EURUS"),
        ({"timeframes": "H2"}, UnknownTimeframe, "H2"),
        ({"colour": "red"}, ConfigError, "colour"),
        ({"port": "http"}, ConfigError, "port"),
        ({"market": "recorded"}, ConfigError, "--bars DIR"),
        ({"speed": 0}, ConfigError, "speed must be positive"),
        ({"market": "mt5", "speed": 60}, ConfigError, "speed 1"),
        ({"symbols": ""}, ConfigError, "at least one symbol"),
        ({"profile": "cloud"}, ConfigError, "local or production"),
        ({"speed": float("nan")}, ConfigError, "speed must be positive"),
        ({"speed": 1e12}, ConfigError, "at most 86400"),
        ({"history_days": 0}, ConfigError, "history_days"),
        ({"history_days": 10**8}, ConfigError, "history_days"),
        ({"port": 99_999}, ConfigError, "port"),
        ({"seed": -1}, ConfigError, "seed"),
        ({"board_bars": 0}, ConfigError, "board_bars"),
        ({"poll_seconds": 0}, ConfigError, "poll_seconds"),
        ({"requests_per_minute": 0}, ConfigError, "requests_per_minute"),
        ({"data_api_host": "terminal.lan"}, ConfigError, "data_api_host: 'terminal.lan' is no IP address"),
        ({"data_api_requests_per_minute": 0}, ConfigError, "data_api_requests_per_minute"),
        ({"requests_per_minute_per_address": 0}, ConfigError, "requests_per_minute_per_address"),
        ({"http_nodes": "serve"}, ConfigError, "http_nodes=serve needs a client_host that other machines reach"),
        ({"client_host": "10.8.0.1"}, ConfigError, "with HAProxy client_host is 127.0.0.1 or 0.0.0.0"),
        ({"trusted_proxies": "nginx"}, ConfigError, "trusted_proxies: 'nginx' is no IP address or network"),
        ({"trusted_proxies": "0.0.0.0/0"}, ConfigError, "trusts everybody"),
        ({"trusted_proxies": ["10.0.0.1", "::/0"]}, ConfigError, "trusts everybody"),
        ({"cors_origins": "*"}, ConfigError, "cors_origins: '\\*' is no origin"),
        ({"cors_origins": "null"}, ConfigError, "is no origin"),
        ({"cors_origins": "https://*.example"}, ConfigError, "is no origin"),
        ({"cors_origins": "https://desk.example/page"}, ConfigError, "is no origin"),
        ({"cors_origins": "desk.example"}, ConfigError, "is no origin"),
        ({"symbols": 5}, ConfigError, "symbols: must be a list"),
        ({"broker_zone": "mars"}, ConfigError, "Unknown broker clock 'mars'"),
    ],
)
def test_a_bad_setting_is_refused_by_name(given: dict[str, object], kind: type[LstmcError], words: str) -> None:
    with pytest.raises(kind, match=words):
        make_settings(**given)  # type: ignore[arg-type]


def test_every_process_reads_what_up_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = make_settings(home=tmp_path, symbols="EURUSD,GBPUSD", speed=600.0)
    save_settings(settings)
    monkeypatch.setenv("LSTMC_HOME", str(tmp_path))
    loaded = load_settings()
    assert (loaded.symbols, loaded.speed, loaded.bars_path) == (
        ("EURUSD", "GBPUSD"),
        600.0,
        tmp_path / "data" / "simulated-7" / "bars",
    )


def test_what_comes_over_http_has_a_store_of_its_own() -> None:
    live = make_settings(market="mt5", speed=1).data_path
    hosts = [make_settings(market="http", data_api_url=f"http://{h}:8001", speed=1).data_path for h in "ab"]
    assert len({live, *hosts}) == 3


def test_no_installation_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match="lstmc up"):
        load_settings(tmp_path)


def test_secrets_are_made_once_and_are_the_owners_alone(tmp_path: Path) -> None:
    settings = make_settings(home=tmp_path)
    with pytest.raises(ConfigError, match="jwt_secret"):
        settings.secret("jwt_secret")
    ensure_secrets(settings)
    first = settings.secret("jwt_secret").get_secret_value()
    ensure_secrets(settings)
    assert settings.secret("jwt_secret").get_secret_value() == first
    assert len(first) >= 32
    assert stat.S_IMODE((tmp_path / "secrets" / "jwt_secret").stat().st_mode) == 0o600
    assert first not in repr(settings.secret("jwt_secret"))


def test_markets_do_not_share_their_data(tmp_path: Path) -> None:
    kinds = [
        {"market": "simulated"},
        {"market": "simulated", "seed": 8},
        {"market": "recorded", "bars_dir": tmp_path / "a"},
        {"market": "recorded", "bars_dir": tmp_path / "b"},
        {"market": "mt5", "speed": 1},
    ]
    assert len({make_settings(home=tmp_path, **kind).bars_path for kind in kinds}) == len(kinds)


def test_lists_in_the_environment_have_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSTMC_SYMBOLS", "EURUSD, gbpusd")
    monkeypatch.setenv("LSTMC_TIMEFRAMES", "H1")
    monkeypatch.setenv("LSTMC_CORS_ORIGINS", "https://a.example,https://b.example")
    settings = make_settings()
    assert (settings.symbols, settings.timeframes) == (("EURUSD", "GBPUSD"), ("H1",))
    assert settings.cors_origins == ("https://a.example", "https://b.example")


def test_origins_and_proxies_are_kept_as_they_are_compared(tmp_path: Path) -> None:
    settings = make_settings(
        home=tmp_path, cors_origins="https://Desk.Example/", trusted_proxies="127.0.0.1, 10.8.0.9/24"
    )
    assert settings.cors_origins == ("https://desk.example",)
    assert settings.trusted_proxies == ("127.0.0.1/32", "10.8.0.0/24")
    save_settings(settings)
    assert load_settings(tmp_path) == settings
    assert make_settings().trusted_proxies == ()


@pytest.mark.parametrize("content", ["", "{", "[]", "[1]", "7"])
def test_a_broken_settings_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "settings.json").write_text(content)
    with pytest.raises(ConfigError):
        load_settings(tmp_path)


def test_an_empty_secret_is_none(tmp_path: Path) -> None:
    settings = make_settings(home=tmp_path)
    ensure_secrets(settings)
    (tmp_path / "secrets" / "data_api_key").write_text("\n")
    with pytest.raises(ConfigError, match="is empty"):
        settings.secret("data_api_key")


def test_the_ledgers_url_is_a_secret_that_is_stored_nowhere_else(tmp_path: Path) -> None:
    settings = make_settings(home=tmp_path)
    ensure_secrets(settings)
    assert settings.ledger_url.get_secret_value() == f"sqlite:///{settings.data_path / 'ledger.sqlite'}"
    (tmp_path / "secrets" / "ledger_url").write_text("postgresql://desk:s3cr3t@10.8.0.3/ledger\n")
    assert settings.ledger_url.get_secret_value() == "postgresql://desk:s3cr3t@10.8.0.3/ledger"
    path = save_settings(settings)
    seen = (repr(settings), str(settings.ledger_url), settings.model_dump_json(), path.read_text())
    assert not any("s3cr3t" in text for text in seen)
    (tmp_path / "secrets" / "ledger_url").write_text("")
    with pytest.raises(ConfigError, match="is empty"):  # not: back to SQLite, and two halves of a ledger
        _ = settings.ledger_url


def test_the_trusted_certificate_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LSTMC_DATA_API_CA", "certificate/data_api_cert.pem")
    settings = make_settings(home=tmp_path)
    assert settings.data_api_ca == tmp_path / "certificate" / "data_api_cert.pem"
    save_settings(settings)
    monkeypatch.delenv("LSTMC_DATA_API_CA")
    assert load_settings(tmp_path).data_api_ca == settings.data_api_ca
    assert make_settings().data_api_ca is None
