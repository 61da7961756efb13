"""One frozen, typed settings object. Unknown keys are refused, secrets are masked, and nothing here is global.

Order, strongest first: keyword arguments (the CLI's flags), LSTMC_* environment variables, the profile's YAML.
`lstmc up` resolves settings once and stores them in `<home>/settings.json`; every other process, on whichever node,
reads that file through `load_settings` and so agrees with the rest.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError

from market.broker_clock import BrokerClock
from market.errors import ConfigError, InputError, NotRunning
from market.market_clock import MarketClock
from market.symbols import MAJORS, symbols
from market.timeframes import Timeframe

ROOT = Path(__file__).resolve().parent.parent
SECRET_NAMES = ("ray_token", "jwt_secret", "data_api_key", "ledger_key")
LIVE = ("mt5", "http")
LOOPBACK = ("127.0.0.1", "localhost")
EVERYWHERE = ("0.0.0.0", "::")
MAX_SPEED = 86_400.0  # a day per second; beyond it the clock leaves the calendar within hours

Port = Annotated[int, Field(ge=0, le=65_535)]
Names = Annotated[tuple[str, ...], NoDecode]  # in the environment a comma-separated list, as in the CLI


class Settings(BaseSettings):
    """Everything that differs between two installations. Times are UTC, ports are TCP."""

    model_config = SettingsConfigDict(env_prefix="LSTMC_", frozen=True, extra="forbid", env_nested_delimiter="__")

    home: Path = Path(".lstmc")  # bars, registry, ledger, secrets, logs
    profile: Literal["local", "production"] = "local"

    market: Literal["simulated", "recorded", "mt5", "http"] = "simulated"
    bars_dir: Path | None = None  # market=recorded: a folder of SYMBOL_TF.parquet or CSV
    data_api_url: str | None = None  # market=http: the Windows host's data API
    data_api_ca: Path | None = None  # a PEM file that is trusted for https; None: what the system trusts
    symbols: Names = MAJORS
    timeframes: Names = ("H1",)
    speed: float = 1.0  # market seconds per wall second; simulated and recorded only
    seed: Annotated[int, Field(ge=0)] = 7  # simulated market
    start: str | None = None  # recorded: UTC moment the clock starts at
    history_days: Annotated[int, Field(ge=1, le=36_500)] = 365  # backfill
    terminal_deadline_seconds: Annotated[float, Field(gt=0, le=3600)] = (
        75.0  # a call of a real terminal; then it is killed
    )
    mt5_node: Literal["here", "elsewhere"] = "here"  # where a simulated or recorded market's terminal is played
    broker_zone: str = "new_york"  # rule of the simulated terminal's server clock, see market.broker_clock

    port: Port = 8000  # HTTP API and page
    dashboard_port: Port = 8265
    data_api_port: Port = 8001
    data_api_host: str = "127.0.0.1"  # the address of its own that the data API's host listens on
    data_api_requests_per_minute: Annotated[int, Field(ge=1)] = 1200  # of each key
    head_port: Port = 6379
    head_host: str = "127.0.0.1"  # the head's address as other machines reach it; loopback: no other machine joins
    client_host: str = "127.0.0.1"  # what the HTTP API listens on; 0.0.0.0 where its proxy is another container
    dashboard_host: str = "127.0.0.1"  # the same of Ray's dashboard and jobs
    metrics_port: Port = 0  # of the head, for Prometheus; 0: any, as Ray's service discovery file says
    redis_address: str | None = None  # HOST:PORT that keeps the head's state; its secret is redis_password
    serve_proxy: Literal["haproxy", "ray"] = "haproxy"  # what stands before the HTTP replicas
    http_replicas: Annotated[int, Field(ge=0, le=64)] = 0  # 0: one in the local profile, otherwise two
    http_nodes: Literal["all", "serve"] = "all"  # where they are; serve: on nodes joined with --serve, not on the head
    streams_per_subject: Annotated[int, Field(ge=1)] = 5  # open at a time, in each replica
    on_demand_queue: Annotated[int, Field(ge=1)] = 16  # calls that may wait, of each HTTP replica
    cors_origins: Names = ()  # pages elsewhere that may read the API, as https://desk.example
    trusted_proxies: Names = ()  # addresses or networks whose X-Forwarded-For is believed, as 127.0.0.1 for nginx
    # Of each subject; bounded, since the slots of a replica that died are counted one by one.
    requests_per_minute: Annotated[int, Field(ge=1, le=1_000_000)] = 60
    requests_per_minute_per_address: Annotated[int, Field(ge=1)] = 600  # without a good token; IPv6: of each /64

    train_on_start: bool = True
    train_preset: Literal["quick", "full", "m15"] = "quick"
    schedule: bool = True  # retrain by configs/schedule.yaml, from inside the cluster
    poll_seconds: Annotated[float, Field(gt=0, le=3600)] = 1.0  # wall seconds between looks for closed bars
    board_bars: Annotated[int, Field(ge=1, le=5000)] = 240  # bars per symbol on the page

    clock: dict[str, Any] | None = None  # MarketClock.to_dict(); set by `up`

    @field_validator("symbols", mode="before")
    @classmethod
    def _symbols(cls, value: Any) -> Any:
        return tuple(s.code for s in symbols(_parts(value)))

    @field_validator("timeframes", mode="before")
    @classmethod
    def _timeframes(cls, value: Any) -> Any:
        return tuple(dict.fromkeys(Timeframe.parse(name).value for name in _parts(value)))

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _cors_origins(cls, value: Any) -> Any:
        return tuple(_origin(part) for part in _parts(value))

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _trusted_proxies(cls, value: Any) -> Any:
        return tuple(_proxy(part) for part in _parts(value))

    @field_validator("data_api_ca")
    @classmethod
    def _data_api_ca(cls, value: Path | None) -> Path | None:
        return value.expanduser().absolute() if value else None  # the actors that read it run elsewhere

    @field_validator("data_api_host")
    @classmethod
    def _data_api_host(cls, value: str) -> str:
        try:
            return value if value == "localhost" else str(ip_address(value))
        except ValueError:
            raise ValueError(f"{value!r} is no IP address, such as 10.8.0.2") from None

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if not self.symbols or not self.timeframes:
            raise ValueError("at least one symbol and one timeframe are needed")
        if not 0 < self.speed <= MAX_SPEED:  # not a number is refused, too
            raise ValueError(f"speed must be positive and at most {MAX_SPEED:g}")
        BrokerClock(self.broker_zone)  # ConfigError names the rules
        if self.market == "recorded" and self.bars_dir is None:
            raise ValueError("market=recorded needs bars_dir (--bars DIR)")
        if self.market == "http" and not self.data_api_url:
            raise ValueError("market=http needs data_api_url")
        if self.serve_proxy == "haproxy" and self.client_host not in LOOPBACK + EVERYWHERE:
            # It asks replicas of its own machine on loopback, and they listen where it does.
            raise ValueError("with HAProxy client_host is 127.0.0.1 or 0.0.0.0; let a firewall say who comes in")
        if self.http_nodes == "serve" and self.client_host in LOOPBACK:
            raise ValueError("http_nodes=serve needs a client_host that other machines reach, such as 0.0.0.0")
        if self.is_live and self.speed != 1.0:
            raise ValueError("a live market runs at speed 1")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings

    # Paths, all under `home`. Absolute, since jobs run elsewhere.
    @property
    def home_path(self) -> Path:
        return self.home.expanduser().resolve()

    @property
    def data_path(self) -> Path:
        """Bars, models and ledger of one market. Simulated, recorded and live data in one table would be a lie."""
        if self.market == "recorded":
            folder = str((self.bars_dir or Path()).expanduser().resolve())
            return self.home_path / "data" / f"recorded-{_short_hash(folder)}"
        if self.market == "simulated":
            return self.home_path / "data" / f"simulated-{self.seed}"
        if self.market == "http":  # the host behind it may be simulated
            return self.home_path / "data" / f"http-{_short_hash(self.data_api_url or '')}"
        return self.home_path / "data" / "live"

    @property
    def bars_path(self) -> Path:
        return self.data_path / "bars"

    @property
    def registry_path(self) -> Path:
        return self.data_path / "registry"

    @property
    def model_keys_path(self) -> Path:
        """What bundles are signed with and whose are trusted; of the installation, not of one market."""
        return self.home_path / "secrets" / "model_keys"

    @property
    def ledger_url(self) -> SecretStr:
        """The secret `ledger_url`, a PostgreSQL's with its password; a SQLite file beside the bars where there is none.

        No field: fields are stored in settings.json and handed to other nodes.
        """
        return self._found_secret("ledger_url") or SecretStr(f"sqlite:///{self.data_path / 'ledger.sqlite'}")

    @property
    def redis_password(self) -> SecretStr | None:
        return self._found_secret("redis_password")

    @property
    def ledger_schema(self) -> str:
        """The schema of a PostgreSQL that holds this market's ledger: as its folder is called, lstmc_simulated_7."""
        name = "lstmc_" + self.data_path.name.replace("-", "_")
        return name if len(name) < 64 else f"lstmc_{_short_hash(name)}"  # PostgreSQL would cut a longer name

    @property
    def spool_path(self) -> Path:
        """Forecasts that wait for the ledger's database."""
        return self.data_path / "ledger_spool.jsonl"

    @property
    def market_clock(self) -> MarketClock:
        return MarketClock.from_dict(self.clock) if self.clock else MarketClock.real()

    @property
    def is_live(self) -> bool:
        return self.market in LIVE

    @property
    def plays_terminal(self) -> bool:
        """Whether a second raylet on this machine plays the node that has the terminal; a real one is another machine's."""
        return not self.is_live and self.mt5_node == "here"

    def secret(self, name: str) -> SecretStr:
        """A secret from `<home>/secrets/<name>`, or from LSTMC_SECRET_<NAME>; ConfigError says how to make it.

        An empty file is no secret: whoever sends nothing would hold it.
        """
        found = self._found_secret(name)
        if found is None:
            raise ConfigError(
                f"The secret {name!r} is missing in {self.home_path / 'secrets'}.",
                hint="Run `lstmc up` once; it makes the secrets.",
            )
        return found

    def _found_secret(self, name: str) -> SecretStr | None:
        from_environment = os.environ.get(f"LSTMC_SECRET_{name.upper()}")
        if from_environment:
            return SecretStr(from_environment)
        path = self.home_path / "secrets" / name
        try:
            found = path.read_text().strip()
        except FileNotFoundError:
            return None
        if not found:
            hint = "Remove it and run `lstmc up`; it makes a new one."
            if name not in SECRET_NAMES:
                hint = "Write it, or remove the file."
            raise ConfigError(f"The secret {path} is empty.", hint=hint)
        return SecretStr(found)


def _parts(value: Any) -> list[Any]:
    """`"A, B"` or a list -> its parts, empty ones left out of a text."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, list | tuple):
        return list(value)
    raise ValueError("must be a list, or text with commas")


def _origin(value: Any) -> str:
    """One origin as browsers write it, lower case, no path; no wildcard, since this list is what is allowed."""
    found = str(value).rstrip("/").lower()
    if not re.fullmatch(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:\d{1,5})?", found):
        raise ValueError(f"{value!r} is no origin, such as https://desk.example or http://127.0.0.1:3000")
    return found


def _proxy(value: Any) -> str:
    """One address or network. Not every address: then anybody could say where a request comes from."""
    try:
        network = ip_network(str(value), strict=False)
    except ValueError:
        raise ValueError(f"{value!r} is no IP address or network, such as 127.0.0.1 or 10.8.0.0/24") from None
    if network.prefixlen == 0:
        raise ValueError(f"{value!r} trusts everybody; name the proxy's own address")
    return str(network)


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def make_settings(profile: str = "local", **given: Any) -> Settings:
    """Profile YAML, then environment, then `given` (None: not given) -> Settings; ConfigError names the bad key."""
    path = ROOT / "configs" / f"{profile}.yaml"
    if not path.exists():
        raise ConfigError(f"There is no profile {profile!r}.", hint="Use local or production.")
    layered: dict[str, Any] = yaml.safe_load(path.read_text()) or {}
    from_environment = {k for k in Settings.model_fields if f"LSTMC_{k.upper()}" in os.environ}
    layered = {k: v for k, v in layered.items() if k not in from_environment}
    layered |= {k: v for k, v in given.items() if v is not None}
    if (layered.get("market") or os.environ.get("LSTMC_MARKET")) in LIVE and given.get("speed") is None:
        layered.pop("speed", None)  # a profile's speed is meant for its simulated market
    return _build(layered | {"profile": profile})


def _build(fields: dict[str, Any]) -> Settings:
    try:
        return Settings(**fields)
    except InputError:
        raise
    except ValidationError as error:
        raise ConfigError(_first_problem(error), hint="See configs/local.yaml for all keys.") from None
    except SettingsError as error:
        raise ConfigError(f"The environment: {error}.", hint="Lists have commas, dictionaries are JSON.") from None


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"]) or "settings"
    return f"Setting {key}: {first['msg'].removeprefix('Value error, ')}."


def save_settings(settings: Settings) -> Path:
    """Write `<home>/settings.json` (a temporary name, then renamed)."""
    path = settings.home_path / "settings.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(settings.model_copy(update={"home": settings.home_path}).model_dump_json(indent=1))
    temporary.replace(path)
    return path


def load_settings(home: str | Path | None = None) -> Settings:
    """The running installation's settings: `home`, else LSTMC_HOME, else ./.lstmc. NotRunning when there are none."""
    folder = Path(home or os.environ.get("LSTMC_HOME") or ".lstmc").expanduser().resolve()
    path = folder / "settings.json"
    if not path.exists():
        raise NotRunning(f"No installation in {folder}.", hint="Start one with `lstmc up`, or point LSTMC_HOME to it.")
    try:
        fields = json.loads(path.read_text())
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise ConfigError(f"{path} is not a JSON object.", hint="Remove it and run `lstmc up`.")
    return _build(fields | {"home": folder})


def ensure_secrets(settings: Settings) -> None:
    """Create what is missing in `<home>/secrets`, readable by the owner only. Existing secrets are never changed."""
    folder = settings.home_path / "secrets"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in SECRET_NAMES:
        path = folder / name
        if not path.exists():
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(48))
