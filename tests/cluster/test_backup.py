"""`lstmc backup` and `restore`: the same forecasts byte for byte, an intact ledger, nothing from a backup that does not hold."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import stat
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.prediction_ledger import PredictionLedger
from cluster.backup import MANIFEST, backup
from cluster.cli import app
from cluster.console import run
from cluster.restore import restore
from configs.settings import ensure_secrets, load_settings, make_settings, save_settings
from market.bar_store import BarStore
from market.errors import ClusterError, InputError, LedgerBroken, LstmcError, ModelError
from tests.actors.test_prediction_ledger import HOUR, START, bars, forecast
from tuning import retrain
from tuning.experiments import World, simulate
from tuning.registry import Registry

SYMBOLS = ("EURUSD", "USDJPY")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with bars, a real champion and a ledger, and with what must not be taken along."""
    home = tmp_path_factory.mktemp("made") / "home"
    settings = make_settings(home=home, symbols=SYMBOLS)
    ensure_secrets(settings)
    save_settings(settings)
    for table in simulate(World(weeks=20, symbols=SYMBOLS), seed=5).values():
        BarStore(settings.bars_path).append(table)
    retrain.econometric_champion(settings, "H1")
    ledger = PredictionLedger.of(settings)
    ledger.append([forecast(START + i * HOUR) for i in range(1, 6)])
    ledger.settle(bars([1.1, 1.11, 1.12]))
    ledger.close()
    settings.spool_path.write_bytes(b'{"a":1}\n{"half')
    (home / "logs").mkdir()
    (home / "logs" / "head.log").write_text("no part of it")
    (settings.registry_path / ".staging-dead").mkdir()
    (settings.registry_path / ".staging-dead" / "half").write_text("no part of it")
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "home"))


def forecasts(home: Path) -> bytes:
    """What the champion says about the newest stored bars."""
    settings = load_settings(home)
    registry, store = Registry.of(settings), BarStore(settings.bars_path)
    champion = registry.champion("H1")
    assert champion is not None
    bundle = registry.load(champion.id)
    said = bundle.forecast({symbol: store.tail(symbol, "H1", bundle.bars_needed) for symbol in SYMBOLS})
    return repr(said).encode()


def verdict(home: Path) -> Any:
    ledger = PredictionLedger.of(load_settings(home))
    try:
        return ledger.verify()
    finally:
        ledger.close()


def test_a_backup_gives_the_same_forecasts_and_the_same_ledger(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, again = tmp_path / "backup.tar.gz", tmp_path / "again"
    monkeypatch.setenv("LSTMC_HOME", str(home))
    assert run(app, ["backup", "--out", str(out)]) == 0
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    (again / "secrets").mkdir(parents=True)  # as a new volume has it
    monkeypatch.setenv("LSTMC_HOME", str(again))
    assert run(app, ["restore", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out.split("market, ")[1].split("MB\n")[1])
    assert (said["models"], said["forecasts"], said["before"]) == (1, 5, None)
    assert said["bars"] == sum(BarStore(load_settings(home).bars_path).counts().values())
    assert forecasts(again) == forecasts(home)
    assert verdict(again) == verdict(home)
    assert verdict(again).intact
    settings = load_settings(again)
    assert settings.spool_path.read_bytes() == b'{"a":1}\n', "a line that is being written is no line yet"
    secrets = sorted(p for p in (home / "secrets").rglob("*") if p.is_file())
    for secret in secrets:
        kept = again / secret.relative_to(home)
        assert kept.read_bytes() == secret.read_bytes()
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert len(secrets) > 4
    assert not (again / "logs").exists()
    assert not list(settings.registry_path.glob(".staging*"))
    assert not list(again.glob(".restore*"))


def test_a_backup_while_bars_and_forecasts_are_written(home: Path, tmp_path: Path) -> None:
    settings, done, wrote = load_settings(home), threading.Event(), threading.Event()
    rows = simulate(World(weeks=20, symbols=("GBPUSD",)), seed=6)["GBPUSD"]

    def write() -> None:
        store, ledger, i = BarStore(settings.bars_path), PredictionLedger.of(settings), 0
        while not done.is_set() and i < rows.num_rows:
            store.append(rows.slice(i, 1))
            ledger.append([forecast(START + (10 + i) * HOUR)])
            i += 1
            if i == 3:
                wrote.set()
            if i % 10 == 0:
                store.compact()
        ledger.close()

    writer = threading.Thread(target=write)
    writer.start()
    assert wrote.wait(60)
    backup(settings, tmp_path / "b")
    done.set()
    writer.join()
    found = restore(tmp_path / "b", tmp_path / "again")  # raises unless all of it holds
    assert found["forecasts"] >= 5 + 3
    assert forecasts(tmp_path / "again") == forecasts(home)
    stored = BarStore(load_settings(tmp_path / "again").bars_path).read(["GBPUSD"])
    assert stored.num_rows >= 3
    assert stored["close"].to_pylist() == rows.slice(0, stored.num_rows)["close"].to_pylist()


def repack(file: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    """As somebody would who edits a backup."""
    with tarfile.open(file) as archive:
        content = {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
    change(content)
    with tarfile.open(file, "w:gz") as archive:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def resigned(content: dict[str, bytes], name: str, data: bytes) -> None:
    """Another content, and a manifest that agrees with it."""
    content[name] = data
    manifest = json.loads(content[MANIFEST])
    manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    content[MANIFEST] = json.dumps(manifest).encode()


def one(content: dict[str, bytes], end: str) -> str:
    return next(name for name in content if name.endswith(end))


def edit(content: dict[str, bytes], end: str) -> None:
    content[one(content, end)] += b" "


def lose(content: dict[str, bytes], end: str) -> None:
    del content[one(content, end)]


def another_model(content: dict[str, bytes]) -> None:
    name = next(n for n in content if "/models/" in n and n.endswith("manifest.json"))
    resigned(content, name, content[name].replace(b'"econometric"', b'"stack"'))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda c: edit(c, "ray_token"), InputError, "secrets/ray_token"),
        (lambda c: lose(c, ".parquet"), InputError, "does not hold what its manifest says"),
        (lambda c: lose(c, MANIFEST), InputError, "manifest"),
        (lambda c: c.update({"more": b"x"}), InputError, "more"),
        (lambda c: c.update({"../out": b"x"}), InputError, "no plain file of a home"),
        (lambda c: c.update({"/etc/out": b"x"}), InputError, "no plain file of a home"),
        (lambda c: resigned(c, MANIFEST, b'{"format": 2, "files": {}}'), InputError, "format 2"),
        (another_model, ModelError, "changed after it was signed"),
        (lambda c: resigned(c, "secrets/ledger_key", b"another"), LedgerBroken, "not intact"),
    ],
)
def test_a_changed_backup_is_refused_and_nothing_is_changed(
    change: Callable[[dict[str, bytes]], None], error: type[LstmcError], words: str, home: Path, tmp_path: Path
) -> None:
    backup(load_settings(home), tmp_path / "b")
    repack(tmp_path / "b", change)
    with pytest.raises(error, match=words):
        restore(tmp_path / "b", tmp_path / "again")
    assert not [p for p in (tmp_path / "again").rglob("*") if p.is_file()]
    assert not (tmp_path / "out").exists()


def test_a_cut_off_backup_is_refused(home: Path, tmp_path: Path) -> None:
    backup(load_settings(home), tmp_path / "b")
    content = (tmp_path / "b").read_bytes()
    (tmp_path / "b").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="cannot be read as a backup"):
        restore(tmp_path / "b", tmp_path / "again")


def test_an_existing_file_and_a_home_that_is_not_empty_are_left_alone(home: Path, tmp_path: Path) -> None:
    settings = load_settings(home)
    backup(settings, tmp_path / "b")
    with pytest.raises(InputError, match="exists already"):
        backup(settings, tmp_path / "b")
    token = (home / "secrets" / "ray_token").read_text()
    (home / "secrets" / "ray_token").write_text("of today")
    with pytest.raises(InputError, match="not empty"):
        restore(tmp_path / "b", home)
    assert (home / "secrets" / "ray_token").read_text() == "of today"
    before = restore(tmp_path / "b", home, force=True)["before"]
    assert (home / "secrets" / "ray_token").read_text() == token
    assert (Path(before) / "secrets" / "ray_token").read_text() == "of today"


def test_a_running_cluster_is_not_restored_over(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cluster import restore as room
    from cluster.run_record import Run, write_run

    backup(load_settings(home), tmp_path / "b")
    write_run(home, Run("id", "up", "/nowhere", {}))
    monkeypatch.setattr(room, "members", lambda run: ["a process"])
    with pytest.raises(ClusterError, match="runs"):
        restore(tmp_path / "b", home, force=True)
