"""What Prometheus is told of a server. It does not know requests' contents."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
STEPS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)


class Measures:
    """Counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        own = self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=own)
        count, gauge, model = partial(Counter, registry=own), partial(Gauge, registry=own), ("model",)
        seconds = partial(Histogram, registry=own, buckets=SECONDS)
        self.requests = count("tessera_requests", "Answered requests.", ("path", "status"))
        self.request_seconds = seconds("tessera_request_seconds", "From a request's head to its last byte.", ("path",))
        self.in_flight = gauge("tessera_requests_in_flight", "Requests that are being answered.")
        self.pictures = count("tessera_pictures", "Finished pictures.", model)
        self.codes = count("tessera_codes", "Codes drawn.", model)
        self.cancelled = count("tessera_pictures_cancelled", "Pictures given up half-way.", model)
        self.failed = count("tessera_failures", "Steps that failed, with all who sat.", model)
        self.step_seconds = Histogram(
            "tessera_step_seconds", "Time of a step of all rows.", model, registry=own, buckets=STEPS
        )
        self.waited = seconds("tessera_wait_seconds", "From a request's arrival to its first seat.", model)
        self.rows = gauge("tessera_rows_taken", "Rows that are drawn.", model)
        self.rows_all = gauge("tessera_rows", "Rows that can be drawn at a time.", model)
        self.queue = gauge("tessera_queue_pictures", "Pictures that wait.", model)
        self.queue_most = gauge("tessera_queue_most", "Pictures that may wait.", model)

    def watch(
        self, model: str, rows: int, queue: int, taken: Callable[[], float], waiting: Callable[[], float]
    ) -> None:
        """Of a model: what it has room for, and what is asked whenever somebody looks."""
        self.rows_all.labels(model).set(rows)
        self.queue_most.labels(model).set(queue)
        self.rows.labels(model).set_function(taken)
        self.queue.labels(model).set_function(waiting)

    def stepped(self, model: str, seconds: float, pictures: int) -> None:
        self.step_seconds.labels(model).observe(seconds)
        self.codes.labels(model).inc(pictures)

    def text(self) -> bytes:
        """What a scrape reads."""
        return generate_latest(self.registry)
