"""Gives a process's figures to Ray's metrics agent, every few seconds. A thin Ray shell: actors.figures says what they are.

A process reports the last value of a gauge for as long as it lives. A series that is no longer among the figures is set to
NaN, which Ray leaves out of its next report. What a dead process said its agent forgets after two reports (20 s), but for
counters, which stay as they were.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

import structlog
from ray.util.metrics import Counter, Gauge

from actors.figures import METRICS, Figures

EXPORT_SECONDS = 5.0  # wall seconds; Ray reports every 10
log = structlog.get_logger()


def export_forever(figures: Callable[[], Figures]) -> threading.Thread:
    """On a thread of its own: ages go on growing while the process's own loop hangs. `figures` may raise: then what it
    would have said is absent until it says it again."""
    thread = threading.Thread(target=_run, args=(figures,), name="metrics", daemon=True)
    thread.start()
    return thread


def _run(figures: Callable[[], Figures]) -> None:
    exporter, problem = Exporter(), ""
    while True:
        try:
            exporter.set(figures())
            problem = ""
        except Exception as error:  # figures are not worth an actor
            exporter.set({})
            if str(error) != problem:
                log.warning("metrics failed", error=str(error))
            problem = str(error)
        time.sleep(EXPORT_SECONDS)


class Exporter:
    """Ray's metrics of this process. Figures of counters are totals since its start."""

    def __init__(self) -> None:
        # Ray's agent itself puts the "_total" behind a counter's name.
        self._metrics: dict[str, Any] = {
            m.name: Gauge(m.name, m.help, m.labels)
            if m.kind == "gauge"
            else Counter(m.name.removesuffix("_total"), m.help, m.labels)
            for m in METRICS
        }
        self._said: Figures = {}  # gauges as last set, totals of counters

    def set(self, figures: Figures) -> None:
        for (name, labels), value in figures.items():
            metric = self._metrics[name]
            if isinstance(metric, Gauge):
                metric.set(value, dict(labels))
            elif (more := value - self._said.get((name, labels), 0.0)) > 0:
                metric.inc(more, dict(labels))
        for name, labels in self._said.keys() - figures.keys():
            if isinstance(gauge := self._metrics[name], Gauge):
                gauge.set(math.nan, dict(labels))
        self._said = self._said | figures
