"""What Prometheus is told of a server. It does not know requests' contents."""

from __future__ import annotations

from collections.abc import Callable

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
        ProcessCollector(registry=own)
        PlatformCollector(registry=own)
        GCCollector(registry=own)
        self.requests = Counter("tessera_requests", "Answered requests.", ("path", "status"), registry=own)
        self.request_seconds = Histogram(
            "tessera_request_seconds", "From a request's first byte to its answer's last.", ("path",), buckets=SECONDS, registry=own
        )  # fmt: skip
        self.in_flight = Gauge("tessera_requests_in_flight", "Requests that are being answered.", registry=own)
        self.pictures = Counter("tessera_pictures", "Finished pictures.", ("model",), registry=own)
        self.codes = Counter("tessera_codes", "Codes drawn.", ("model",), registry=own)
        self.cancelled = Counter("tessera_pictures_cancelled", "Pictures given up half-way.", ("model",), registry=own)
        self.failed = Counter("tessera_failures", "Steps that failed, with all who sat.", ("model",), registry=own)
        self.step_seconds = Histogram(
            "tessera_step_seconds", "Time of a step of all rows.", ("model",), buckets=STEPS, registry=own
        )
        self.waited = Histogram(
            "tessera_wait_seconds", "From a request's arrival to its first seat.", ("model",), buckets=SECONDS, registry=own
        )  # fmt: skip
        self.rows = Gauge("tessera_rows_taken", "Rows that are drawn.", ("model",), registry=own)
        self.rows_all = Gauge("tessera_rows", "Rows that can be drawn at a time.", ("model",), registry=own)
        self.queue = Gauge("tessera_queue_pictures", "Pictures that wait.", ("model",), registry=own)
        self.queue_most = Gauge("tessera_queue_most", "Pictures that may wait.", ("model",), registry=own)

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
