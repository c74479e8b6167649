"""Metrics of a server for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kindsight.server.engine import Engine
from kindsight.server.models import Models
from kindsight.uncertainty.prediction import Prediction

__all__ = ["CONTENT_TYPE", "Metrics", "MetricsMiddleware"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""Upper ends of the histograms' buckets, in seconds."""

MAX_LABELS = 200
"""Maximum number of a model's classes that are counted by name; the others are counted together."""

OTHER = "(other)"


class Metrics:
    """Counters of one server, in a separate registry."""

    def __init__(self, engine: Engine, models: Models) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.requests = Counter(
            "kindsight_requests",
            "Requests answered.",
            ["route", "method", "status"],
            registry=registry,
        )
        self.seconds = Histogram(
            "kindsight_request_seconds",
            "Time from a request's headers to the end of its response.",
            ["route"], buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self.in_flight = Gauge(
            "kindsight_requests_in_flight", "Requests being handled.", registry=registry
        )
        self._images = Counter(
            "kindsight_images",
            "Images predicted, including those that could not be read.", ["model"],
            registry=registry,
        )  # fmt: skip
        self._errors = Counter(
            "kindsight_image_errors",
            "Images that could not be read.",
            ["model", "code"],
            registry=registry,
        )
        self._predictions = Counter(
            "kindsight_predictions", "Predictions by label, or by the reason why there is none.",
            ["model", "label", "reason"], registry=registry,
        )  # fmt: skip
        self._known: dict[str, set[str]] = {}
        self.registry.register(_State(engine, models))

    def count(self, model: str, predictions: Iterable[Prediction]) -> None:
        """Count predictions; called on the event loop."""
        for found in predictions:
            self._images.labels(model).inc()
            if found.error is not None:
                self._errors.labels(model, found.error.code).inc()
            else:
                label = self._bounded(model, found.label)
                self._predictions.labels(model, label, found.reason).inc()

    def _bounded(self, model: str, label: str | None) -> str:
        """Return a model's label, or :data:`OTHER` beyond the first :data:`MAX_LABELS`."""
        if label is None:
            return ""
        known = self._known.setdefault(model, set())
        if label not in known and len(known) >= MAX_LABELS:
            return OTHER
        known.add(label)
        return label.encode("utf-8", "backslashreplace").decode()

    def text(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self.registry)


class _State(Collector):
    """Metrics whose values are read when they are collected."""

    def __init__(self, engine: Engine, models: Models) -> None:
        self._engine = engine
        self._models = models

    def describe(self) -> Iterator[Metric]:
        """Return nothing, so that the registry does not collect the metrics when they are added."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield queue, threads and models."""
        engine = self._engine
        yield GaugeMetricFamily(
            "kindsight_queue_images", "Images waiting in the queue.", engine.waiting
        )
        yield GaugeMetricFamily(
            "kindsight_queue_limit", "Maximum number of waiting images.", engine.limit
        )
        yield GaugeMetricFamily(
            "kindsight_running_images", "Images being predicted.", engine.running
        )
        yield GaugeMetricFamily("kindsight_threads", "Threads that predict.", engine.workers)
        info = GaugeMetricFamily(
            "kindsight_model_info", "1 for the version that is served.",
            labels=["model", "version", "backbone", "classes"],
        )  # fmt: skip
        fault = GaugeMetricFamily(
            "kindsight_model_fault", "1 if a newer bundle cannot be served.", labels=["model"]
        )
        for served in self._models.all:
            bundle = served.current.bundle
            values = [served.name, served.current.version, bundle.backbone[:100]]
            info.add_metric([*values, str(len(bundle.classes))], 1)
            fault.add_metric([served.name], float(bool(served.fault)))
        yield info
        yield fault


class MetricsMiddleware:
    """Middleware that counts and times requests by route."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, start = "499", time.perf_counter()  # nothing was sent: the client is gone

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        self._metrics.in_flight.inc()
        try:
            await self._app(scope, receive, sending)
        finally:
            self._metrics.in_flight.dec()
            # Paths that do not exist count as one route: a scanner must not fill the memory.
            route = getattr(scope.get("route"), "path", "(none)")
            method = scope["method"] if scope["method"] in ("GET", "POST", "DELETE") else "(other)"
            self._metrics.requests.labels(route, method, status).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - start)
