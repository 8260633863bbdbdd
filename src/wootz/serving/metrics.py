"""What a service counts, for Prometheus; each service has a registry of its own."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest

CONTENT_TYPE = CONTENT_TYPE_LATEST

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """Counters and histograms.

    Attributes:
        requests: for inference, answered or not.
        images: answered.
        seconds: from the first byte of such a request's body to its answer.
        errors: answers of any kind with a status from 400 on, by status.
        batches: images that the model saw at once.
        changed: answers whose label the guard changed.
    """

    def __init__(self) -> None:
        self._registry = own = CollectorRegistry()
        self.requests = Counter("wootz_requests", "Inference requests", registry=own)
        self.images = Counter("wootz_images", "Images answered", registry=own)
        self.seconds = Histogram("wootz_request_seconds", "Time of a request", buckets=_SECONDS, registry=own)
        self.errors = Counter("wootz_errors", "Answers with an error", ["status"], registry=own)
        self.batches = Histogram("wootz_batch_images", "Images of a batch", buckets=_IMAGES, registry=own)
        self.changed = Counter("wootz_changed_answers", "Labels that the guard changed", registry=own)

    def text(self) -> bytes:
        """Return all of it in the exposition format."""
        return generate_latest(self._registry)
