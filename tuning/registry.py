"""The models of one installation, as files: bundles by id, one champion per timeframe, and who replaced whom.

    <path>/models/<id>/              a signed bundle, never changed once it is here
    <path>/champions/H1.json         the champion's id, since when and why; renamed into place
    <path>/champions/H1.history.jsonl   one line per promotion or rollback, appended before the pointer moves
    <path>/champions/H1.runs.jsonl      one line per training run, with the reason when the champion stayed

Safe for several processes: changes hold a file lock, readers see the old pointer or the new one. Nothing is read out of
a bundle before its signature holds. Knows nothing about how models are judged.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from configs.settings import Settings
from market.errors import BundleRefused, ModelError, NoChampion
from market.forecasts import iso_utc
from market.timeframes import Timeframe
from tuning.bundle import SIGNATURE, Bundle, load_bundle, read_report, read_version, sign, signer, verify, write_json
from tuning.bundle_signature import BundleKeys, refused
from tuning.model_version import ModelVersion

STAGING, ARRIVING = ".staging-", ".arriving-"  # folders of bundles that are not in yet
# The method `list` hides the type of that name inside the class.
Ids = list[str]
Versions = list[ModelVersion]
History = list[dict[str, Any]]


class Registry:
    """`path` is created on the first write; an absent folder is an empty registry.

    keys: whose bundles are loaded, and what new ones are signed with. trial: raises BundleRefused for a bundle's folder
    that must not become champion. now: the wall clock that dates promotions.
    """

    def __init__(
        self,
        path: Path,
        keys: BundleKeys,
        trial: Callable[[Path], None] | None = None,
        now: Callable[[], datetime] = partial(datetime.now, UTC),
    ) -> None:
        self.root = Path(path)
        self.keys, self._trial, self._now = keys, trial, now
        self._models = self.root / "models"
        self._champions = self.root / "champions"

    @classmethod
    def of(cls, settings: Settings) -> Registry:
        """The installation's own; a new champion is first tried on its stored bars, in a process of its own."""
        from tuning.trial import Trial

        keys = BundleKeys(settings.model_keys_path)
        return cls(settings.registry_path, keys, Trial(settings.bars_path, keys.folder))

    def add(self, folder: Path) -> ModelVersion:
        """Sign and verify a new bundle and move it in. Adding the same content again changes nothing (the first stays).

        One that is signed already keeps its signature: whoever made it must be trusted.
        """
        folder = Path(folder)
        if not (folder / SIGNATURE).exists():
            sign(folder, self.keys)
        version = verify(folder, self.keys)
        with self._lock():
            target = self._models / version.id
            if target.exists():
                try:
                    return verify(target, self.keys)
                except BundleRefused:  # damaged or unsigned: the same content, sound, takes its place
                    shutil.rmtree(target)
            self._models.mkdir(parents=True, exist_ok=True)
            arriving = self._models / f"{ARRIVING}{uuid.uuid4().hex}"
            shutil.copytree(folder, arriving)
            try:
                verify(arriving, self.keys)
                arriving.rename(target)
            except BaseException:
                shutil.rmtree(arriving, ignore_errors=True)
                raise
        shutil.rmtree(folder, ignore_errors=True)
        return version

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A folder to write a bundle in before `add`; gone afterwards. Its lock tells `sweep` that its writer lives."""
        with self._lock():
            folder = Path(tempfile.mkdtemp(prefix=STAGING, dir=self.root))
            handle = os.open(folder, os.O_RDONLY)
            fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(handle)

    def sweep(self) -> None:
        """Remove what writers that were killed have left behind; nothing of it was ever part of the registry."""
        with self._lock():
            for folder in self.root.glob(f"{STAGING}*"):
                handle = os.open(folder, os.O_RDONLY)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
                except BlockingIOError:  # another run is writing there
                    pass
                finally:
                    os.close(handle)
            for folder in self._models.glob(f"{ARRIVING}*"):
                shutil.rmtree(folder, ignore_errors=True)
            for file in self._champions.glob(".*.tmp"):
                file.unlink(missing_ok=True)

    def path(self, model_id: str) -> Path:
        """The bundle's folder; ModelError when there is no such model."""
        # An id may come from a URL: it must name a direct child, not a way out.
        folder = self._models / model_id
        if not model_id or folder.parent != self._models or model_id.startswith(".") or not folder.is_dir():
            raise ModelError(f"There is no model {model_id!r}.", hint="See `lstmc models list`.")
        return folder

    def get(self, model_id: str) -> ModelVersion:
        """Its signed identity card; its files are not looked at."""
        folder = self.path(model_id)
        return _called(folder, read_version(folder, self.keys))

    def verified(self, model_id: str) -> ModelVersion:
        """Every byte checked; BundleRefused says what is wrong."""
        folder = self.path(model_id)
        return _called(folder, verify(folder, self.keys))

    def load(self, model_id: str) -> Bundle:
        """Verified, then parsed."""
        folder = self.path(model_id)
        bundle = load_bundle(folder, self.keys)
        _called(folder, bundle.version)
        return bundle

    def signed_by(self, model_id: str) -> str:
        """The fingerprint of the trusted key that signed it, or BundleRefused."""
        return signer(self.path(model_id), self.keys)

    def list(self, timeframe: str | None = None) -> Versions:
        """All models whose signature holds, newest first."""
        found = []
        for model_id in self._ids():
            try:
                version = self.get(model_id)
            except BundleRefused:
                continue
            if timeframe is None or version.timeframe == timeframe:
                found.append(version)
        earliest = datetime.min.replace(tzinfo=UTC)
        return sorted(found, key=lambda v: (v.made_at or earliest, v.id), reverse=True)

    def refused(self) -> dict[str, BundleRefused]:
        """Folder -> why it is not among those of `list`."""
        found = {}
        for model_id in self._ids():
            try:
                self.get(model_id)
            except BundleRefused as error:
                found[model_id] = error
        return found

    def _ids(self) -> Ids:
        return [path.name for path in sorted(self._models.glob("[!.]*")) if path.is_dir()]

    def champion(self, timeframe: str) -> ModelVersion | None:
        """The model that serves this timeframe; None when there is none yet. ModelError when its files are gone."""
        pointer = self.champion_pointer(timeframe)
        return None if pointer is None else self.get(pointer["id"])

    def sound_champion(self, timeframe: str, tell: Callable[[str], None]) -> ModelVersion | None:
        """The champion, every byte verified. None when there is none, or, told why, when its files are gone, changed or not
        signed: training repairs that."""
        try:
            champion = self.champion(timeframe)
            return self.verified(champion.id) if champion else None
        except ModelError as error:
            tell(error.message)
            return None

    def champion_pointer(self, timeframe: str) -> dict[str, Any] | None:
        """{"id", "since", "why"} of the champion, cheap to poll."""
        try:
            pointer = json.loads(self._pointer(timeframe).read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            raise ModelError(
                f"{self._pointer(timeframe)} is damaged.", hint="Promote a model again: `lstmc models promote ID`."
            ) from None
        return pointer

    def promote(self, model_id: str, why: str) -> ModelVersion:
        """Make a model the champion of its timeframe, after verifying it and trying it out. Promoting the champion again
        changes nothing. BundleRefused when it is not fit: the champion stays."""
        version = self.verified(model_id)
        if self._is_champion(version):
            return version
        if self._trial is not None:
            self._trial(self.path(model_id))
        with self._lock():
            if not self._is_champion(version):
                self._replace(version.timeframe, model_id, "promote", why)
        return version

    def _is_champion(self, version: ModelVersion) -> bool:
        return (self.champion_pointer_or_none(version.timeframe) or {}).get("id") == version.id

    def rollback(self, timeframe: str) -> ModelVersion:
        """Back to the champion before the present one; again: one further back. NoChampion when there is none before."""
        with self._lock():
            line = self._succession(timeframe)
            if len(line) < 2:
                raise _no_earlier(timeframe)
            version = self.verified(line[-2])
            self._replace(timeframe, line[-2], "rollback", f"Rolled back from {line[-1]}.")
        return version

    def demote(self, timeframe: str, model_id: str, why: str, evidence: dict[str, Any]) -> ModelVersion | None:
        """Replace a champion whose live losses are worse than its baseline's: by the newest econometric champion before
        it, else by the newest of any kind -> the champion now. None when another serves already.

        `evidence`: JSON-ready, with `known_until`; it stays in the history beside the model's recipe. NoChampion when
        there is none before that is sound.
        """
        with self._lock():
            line = self._succession(timeframe)
            if not line or line[-1] != model_id:
                return None
            before = self._sound(list(dict.fromkeys(earlier for earlier in line[-2::-1] if earlier != model_id)))
            if not before:
                raise _no_earlier(timeframe)
            chosen = next((version for version in before if version.kind == "econometric"), before[0])
            lost = evidence | {"recipe": self._recipe(model_id)}
            self._replace(timeframe, chosen.id, "rollback", why, live_loss=lost)
        return chosen

    def refuse(self, timeframe: str, model_id: str, stays: str, why: str) -> None:
        """The champion `model_id` was found unfit where it should serve: `stays`, which went on serving, is it again.
        Changes nothing when another is champion already."""
        with self._lock():
            if (self.champion_pointer_or_none(timeframe) or {}).get("id") == model_id:
                self._replace(timeframe, stays, "rollback", why)

    def _sound(self, ids: Ids) -> Versions:
        found = []
        for model_id in ids:
            with suppress(ModelError):
                found.append(self.verified(model_id))
        return found

    def _recipe(self, model_id: str) -> str | None:
        with suppress(ModelError):
            self.verified(model_id)
            return read_report(self.path(model_id)).get("recipe")
        return None

    def champion_history(self, timeframe: str) -> History:
        """Promotions and rollbacks, oldest first: {"at", "action", "id", "before", "why"}; a rollback for live losses
        also has "live_loss"."""
        return _read_lines(self._champions / f"{Timeframe.parse(timeframe).value}.history.jsonl")

    def record_run(self, timeframe: str, record: dict[str, Any]) -> None:
        """Keep how a training run ended, whether or not it made a champion: {"preset", "promoted", "why", ...}."""
        with self._lock():
            self._champions.mkdir(parents=True, exist_ok=True)
            _append_line(
                self._champions / f"{Timeframe.parse(timeframe).value}.runs.jsonl", {"at": self._stamp()} | record
            )

    def runs(self, timeframe: str) -> History:
        """Training runs as recorded, oldest first; each has "at", UTC."""
        return _read_lines(self._champions / f"{Timeframe.parse(timeframe).value}.runs.jsonl")

    def _succession(self, timeframe: str) -> Ids:
        """Champions by promotion, with those undone by a rollback taken away again."""
        line: Ids = []
        for entry in self.champion_history(timeframe):
            if entry["action"] == "promote":
                line.append(entry["id"])
            elif line:
                line.pop()
        present = (self.champion_pointer_or_none(timeframe) or {}).get("id")
        if present is None:
            return line
        # The pointer decides: a crash may have left the history one entry ahead of it.
        return line[: line.index(present) + 1] if present in line else [*line, present]

    def _replace(self, timeframe: str, model_id: str, action: str, why: str, **more: Any) -> None:
        self._champions.mkdir(parents=True, exist_ok=True)
        now = self._stamp()
        before = (self.champion_pointer_or_none(timeframe) or {}).get("id")
        entry = {"at": now, "action": action, "id": model_id, "before": before, "why": why} | more
        _append_line(self._champions / f"{timeframe}.history.jsonl", entry)
        write_json(self._pointer(timeframe), {"id": model_id, "since": now, "why": why})

    def champion_pointer_or_none(self, timeframe: str) -> dict[str, Any] | None:
        """As champion_pointer, a damaged pointer counting as none: promotion is how it is repaired."""
        try:
            return self.champion_pointer(timeframe)
        except ModelError:
            return None

    def _stamp(self) -> str | None:
        return iso_utc(self._now().replace(microsecond=0))

    def _pointer(self, timeframe: str) -> Path:
        return self._champions / f"{Timeframe.parse(timeframe).value}.json"

    @contextmanager
    def _lock(self) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        with open(self.root / ".lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)


def _called(folder: Path, version: ModelVersion) -> ModelVersion:
    """The version, if the folder has its name: a sound model under another's name would answer for that one."""
    if version.id != folder.name:
        raise refused(folder.name, f"it holds {version.id}")
    return version


def _no_earlier(timeframe: str) -> NoChampion:
    return NoChampion(f"There is no earlier champion for {timeframe}.", hint="Promote one: `lstmc models promote ID`.")


def _append_line(path: Path, entry: dict[str, Any]) -> None:
    cut_short = path.is_file() and not path.read_bytes().endswith(b"\n")
    with open(path, "a", encoding="utf-8") as file:
        file.write(("\n" if cut_short else "") + json.dumps(entry, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _read_lines(path: Path) -> History:
    if not path.is_file():
        return []
    entries = []
    for line in path.read_text().splitlines():
        try:
            entries.append(json.loads(line))
        except ValueError:  # a line cut short by a crash; a champion's pointer had not moved yet
            continue
    return entries
