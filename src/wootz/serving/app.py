"""The web application: routes and handlers of the Open Inference Protocol, error responses and metrics."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import torch
from numpy.typing import NDArray
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from torch import Tensor

from wootz.errors import Error, ModelError
from wootz.serving.admission import BearerAuth, BusyError, MemoryBudget, ServingLimits, read_body
from wootz.serving.batching import Batcher
from wootz.serving.infer_codec import JSON_LENGTH, ProtocolError, decode_request, encode_response, top1_labels
from wootz.serving.model_info import VERSION, ModelInfo, model_metadata, server_metadata
from wootz.serving.query_log import QueryLog
from wootz.types import Predict

ScoreFilter = Callable[[Tensor, Tensor], Tensor]
"""Images float32 [N, C, H, W] in [0, 1] and scores [N, K] -> the scores to answer with. Called from one thread."""

_SECONDS_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_IMAGES_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

_logger = logging.getLogger(__name__)


def app(
    model: Predict,
    info: ModelInfo,
    *,
    guard: ScoreFilter | None = None,
    token: str = "",
    log: QueryLog | None = None,
    limits: ServingLimits | None = None,
) -> Starlette:
    """Create the application.

    Args:
        model: the model, called from one thread with one batch at a time; scores should be log-probabilities.
        info: the public description of the model.
        guard: changes the scores before scores and labels are answered.
        token: the bearer token that requests must have, except /v2/health; empty requires none.
        log: records queries and answers before the responses are sent.
        limits: the limits of the service; None takes the defaults.

    Raises:
        ModelError: the shape of the model's answers does not fit `info`.
    """
    _check_output_shape(model, info, guarded=guard is not None)
    limits = limits or ServingLimits()
    handlers = _Handlers(model, info, guard, log, limits)
    routes = [
        route
        for model_path in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")
        for route in (
            Route(f"{model_path}/infer", handlers.infer, methods=["POST"]),
            Route(f"{model_path}/ready", handlers.model_ready),
            Route(model_path, handlers.model_metadata),
        )
    ]
    routes += [
        Route("/v2/health/live", _live),
        Route("/v2/health/ready", _ready),
        Route("/v2", handlers.server_metadata),
        Route("/metrics", handlers.metrics),
    ]
    authentication = Middleware(BearerAuth, token=token, error_response=handlers.error_response)
    application = Starlette(
        routes=routes,
        lifespan=handlers.lifespan,
        middleware=[authentication] if token else [],
        exception_handlers={
            ProtocolError: handlers.handle_protocol_error,
            HTTPException: handlers.handle_http_error,
            Error: handlers.handle_error,
            Exception: handlers.handle_error,
        },
    )
    application.router.redirect_slashes = False
    application.state.limits = limits
    return application


class Metrics:
    """Prometheus metrics of one service, in a registry of its own.

    Attributes:
        requests: inference requests, answered or not.
        images: answered images.
        seconds: the time from the first byte of the body of an inference request to its response.
        errors: responses with a status from 400 on, by status.
        batches: the number of images per call of the model.
        changed: labels that the guard changed.
    """

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter("wootz_requests", "Inference requests", registry=registry)
        self.images = Counter("wootz_images", "Images answered", registry=registry)
        self.seconds = Histogram(
            "wootz_request_seconds", "Time of a request", buckets=_SECONDS_BUCKETS, registry=registry
        )
        self.errors = Counter("wootz_errors", "Answers with an error", ["status"], registry=registry)
        self.batches = Histogram("wootz_batch_images", "Images of a batch", buckets=_IMAGES_BUCKETS, registry=registry)
        self.changed = Counter("wootz_changed_answers", "Labels that the guard changed", registry=registry)

    def text(self) -> bytes:
        """Return all metrics in the exposition format."""
        return generate_latest(self._registry)


class _Handlers:
    """Request and error handlers of one application."""

    def __init__(
        self,
        model: Predict,
        info: ModelInfo,
        guard: ScoreFilter | None,
        log: QueryLog | None,
        limits: ServingLimits,
    ) -> None:
        self._model, self._info, self._guard, self._log, self._limits = model, info, guard, log, limits
        self._metrics = Metrics()
        self._memory = MemoryBudget(limits.bytes_in_flight, limits.bytes_per_address)
        self._batcher: Batcher

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        limits = self._limits
        async with Batcher(self._predict, batch=limits.batch, waiting=limits.waiting) as self._batcher:
            yield

    async def infer(self, request: Request) -> Response:
        self._check_model(request)
        start = time.perf_counter()
        try:
            with self._memory.request(request.client.host if request.client else "") as hold:
                return await self._infer(request, hold)
        except BusyError:
            return self.error_response(503, "too many requests are in progress; try again later", {"Retry-After": "1"})
        except ClientDisconnect:
            return self.error_response(499, "the client closed the connection")
        finally:
            self._metrics.requests.inc()
            self._metrics.seconds.observe(time.perf_counter() - start)

    async def _infer(self, request: Request, hold: Callable[[int], None]) -> Response:
        body = await read_body(request, self._limits, hold)
        json_length = request.headers.get(JSON_LENGTH)
        infer_request = decode_request(self._info, body, json_length, max_images=self._limits.max_images)
        hold(infer_request.images.nbytes)
        answers = await self._batcher(infer_request.images)
        if self._log is not None:
            self._log.write(infer_request.request_id, infer_request.images, top1_labels(answers).tolist())
        content, headers = encode_response(self._info, infer_request, answers)
        self._metrics.images.inc(len(infer_request.images))
        return Response(content, headers=headers)

    async def model_metadata(self, request: Request) -> Response:
        self._check_model(request)
        return JSONResponse(model_metadata(self._info))

    async def model_ready(self, request: Request) -> Response:
        self._check_model(request)
        return JSONResponse({"name": self._info.name, "ready": True})

    async def server_metadata(self, _: Request) -> Response:
        return JSONResponse(server_metadata())

    async def metrics(self, _: Request) -> Response:
        return Response(self._metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    def error_response(self, status: int, message: str, headers: dict[str, str] | None = None) -> Response:
        self._metrics.errors.labels(str(status)).inc()
        return JSONResponse({"error": message}, status, headers=headers)

    def handle_protocol_error(self, _: Request, error: Exception) -> Response:
        assert isinstance(error, ProtocolError)
        headers = {"Connection": "close"} if error.status == 408 else None
        return self.error_response(error.status, str(error), headers)

    def handle_http_error(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        message = f"{request.method} {request.url.path}: {error.detail}"
        return self.error_response(error.status_code, message, dict(error.headers or {}))

    def handle_error(self, _: Request, error: Exception) -> Response:
        if isinstance(error, Error):
            _logger.error("a request failed: %s", error)
        return self.error_response(500, "the service failed; see its log")

    def _predict(self, images: NDArray[Any]) -> NDArray[Any]:
        """Apply the model, then the guard; runs in the thread of the batcher."""
        self._metrics.batches.observe(len(images))
        x = torch.from_numpy(images)
        scores = self._model(x)
        if self._guard is None:
            return scores.cpu().numpy()
        guarded = self._guard(x, scores).cpu().numpy()
        self._metrics.changed.inc(int((top1_labels(guarded) != top1_labels(scores.cpu().numpy())).sum()))
        return guarded

    def _check_model(self, request: Request) -> None:
        """Raise ProtocolError unless the path names the served model and version."""
        name, version = request.path_params["model"], request.path_params.get("version", VERSION)
        if name != self._info.name:
            raise ProtocolError(f"unknown model {name!r}; known: {self._info.name}", 404)
        if version != VERSION:
            raise ProtocolError(f"unknown version {version!r} of {name}; known: {VERSION}", 404)


async def _live(_: Request) -> Response:
    return JSONResponse({"live": True})


async def _ready(_: Request) -> Response:
    return JSONResponse({"ready": True})


def _check_output_shape(model: Predict, info: ModelInfo, *, guarded: bool) -> None:
    """Apply the model to one gray image and check the shape of the answer; this also warms the model up."""
    answer = model(torch.full((1, *info.shape), 0.5))
    if tuple(answer.shape) == (1, len(info.classes)):
        return
    if info.access == "scores" or guarded or tuple(answer.shape) != (1,):
        raise ModelError(
            f"{info.name}: must answer one image with scores [1, {len(info.classes)}], not {list(answer.shape)}"
        )
