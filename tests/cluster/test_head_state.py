"""The head's state in Redis: what Ray is told, when the last head's nodes are known to be dead, what is forgotten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster import attach, head_state, nodes
from cluster.head_state import forget, has_ghosts, redis_environment, redis_flags
from cluster.run_record import Run, write_run
from configs.settings import Settings, make_settings
from market.errors import ConfigError


def node(role: str, alive: bool = True) -> dict[str, Any]:
    return {"Alive": alive, "Labels": {"role": role}}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([node("head"), node("mt5"), node("train")], False),
        ([node("head"), node("head", alive=False), node("mt5"), node("mt5", alive=False)], False),
        ([node("head"), node("head")], True),  # the old one is not seen to be dead yet
        ([node("head"), node("mt5"), node("mt5")], True),
        ([node("train")], True),  # the new one has not joined yet
        ([node("head"), {"Alive": True, "Labels": {}}], False),
    ],
)
def test_a_new_head_waits_until_the_old_one_is_known_to_be_dead(found: list[dict[str, Any]], expected: bool) -> None:
    assert has_ghosts(found) is expected


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "redis_password").write_text("p4ss")
    return make_settings(home=tmp_path, redis_address="redis:6379")


def test_ray_is_told_of_redis_only_where_there_is_one(settings: Settings, tmp_path: Path) -> None:
    assert "--redis-password=p4ss" in nodes.head_command(settings, 4, {})
    told = redis_environment(settings)
    assert told["RAY_REDIS_ADDRESS"] == "redis:6379"
    other = redis_environment(settings.model_copy(update={"home": tmp_path / "other"}))
    assert told["RAY_external_storage_namespace"] != other["RAY_external_storage_namespace"]
    without = make_settings(home=tmp_path)
    assert (redis_flags(without), redis_environment(without)) == ([], {})


def test_a_head_that_died_is_remembered_and_one_that_was_ended_is_not(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten: list[Any] = []
    monkeypatch.setattr("ray._private.gcs_utils.cleanup_redis_storage", lambda *given: forgotten.append(given))
    monkeypatch.setattr(attach.signal, "signal", lambda *_: None)
    run = Run("id", "up", "/nowhere/of/ours", {})
    write_run(settings.home_path, run)
    attach.stay(settings, run)  # its head is not there
    assert forgotten == []
    write_run(settings.home_path, run)
    monkeypatch.setattr(attach, "Progress", lambda **_: (_ for _ in ()).throw(KeyboardInterrupt))
    attach.stay(settings, run)
    assert forgotten == [("redis", 6379, "p4ss", False, head_state._namespace(settings))]


def test_an_address_without_a_port(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT"):
        forget(make_settings(home=tmp_path, redis_address="redis"))
    forget(make_settings(home=tmp_path))
