"""Ctrl-C ends what runs, wherever Python was when it came."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator

import pytest

from cluster.attach import heed_stop_signals

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def heeded() -> Iterator[None]:
    handlers, hook = [signal.getsignal(one) for one in SIGNALS], sys.unraisablehook
    heed_stop_signals()
    yield
    sys.unraisablehook = hook
    for one, handler in zip(SIGNALS, handlers, strict=True):
        signal.signal(one, handler)


@pytest.mark.parametrize("one", SIGNALS)
def test_it_interrupts(one: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(one)


@pytest.mark.parametrize("one", SIGNALS)
def test_it_is_not_lost_in_a_destructor(one: signal.Signals) -> None:
    swallowed = []

    class Doomed:
        def __del__(self) -> None:
            swallowed.append(one)
            signal.raise_signal(one)
            swallowed.clear()  # not reached

    def wait() -> None:
        Doomed()
        threading.Event().wait(30)

    with pytest.raises(KeyboardInterrupt):
        wait()
    assert swallowed


def test_nor_is_what_ray_makes_of_term() -> None:
    class Doomed:
        def __del__(self) -> None:
            raise SystemExit

    def wait() -> None:
        Doomed()
        threading.Event().wait(30)

    with pytest.raises(KeyboardInterrupt):
        wait()


def test_what_else_a_destructor_raises_is_told_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda about: told.append(about.exc_type))
    heed_stop_signals()

    class Faulty:
        def __del__(self) -> None:
            raise ValueError("faulty")

    Faulty()
    assert told == [ValueError]
