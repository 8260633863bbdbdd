"""A model as a web application that speaks the Open Inference Protocol."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import torch
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from torch import Tensor

from wootz.errors import Error, ModelError
from wootz.serving.batching import Batcher, BusyError
from wootz.serving.body import read_body
from wootz.serving.lock import Lock
from wootz.serving.metadata import VERSION, about_model, about_server
from wootz.serving.metrics import CONTENT_TYPE, Metrics
from wootz.serving.protocol import JSON_LENGTH, ProtocolError, decode, encode, labels
from wootz.serving.querylog import QueryLog
from wootz.serving.settings import Limits, ModelInfo
from wootz.types import Predict

Guarding = Callable[[Tensor, Tensor], Tensor]
"""Images float32 [N, C, H, W] in [0, 1] and the model's scores [N, K] -> the scores to show. Called from one thread."""

_logger = logging.getLogger(__name__)


def app(
    model: Predict,
    info: ModelInfo,
    *,
    guard: Guarding | None = None,
    token: str = "",
    log: QueryLog | None = None,
    limits: Limits | None = None,
) -> Starlette:
    """Return the application.

    Args:
        model: what is asked, from one thread, one batch at a time; scores should be log-probabilities.
        info: what is said of it.
        guard: has the last word on scores, and so on labels.
        token: whoever asks must show it (`Authorization: Bearer`), for all but /v2/health; empty asks for none.
        log: where questions and answers are written before they leave.
        limits: what is too much.

    Raises:
        ModelError: the model does not answer as the facts say.
    """
    _check(model, info, guarded=guard is not None)
    desk = _Desk(model, info, guard, log, limits or Limits())
    routes = [
        route
        for model_at in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")
        for route in (
            Route(f"{model_at}/infer", desk.infer, methods=["POST"]),
            Route(f"{model_at}/ready", desk.ready),
            Route(model_at, desk.model),
        )
    ]
    routes += [
        Route("/v2/health/live", _live),
        Route("/v2/health/ready", _ready),
        Route("/v2", desk.server),
        Route("/metrics", desk.exposition),
    ]
    application = Starlette(
        routes=routes,
        lifespan=desk.open,
        middleware=[Middleware(Lock, token=token, refuse=desk.refuse)] if token else [],
        exception_handlers={
            ProtocolError: desk.tell,
            HTTPException: desk.tell_http,
            Error: desk.confess,
            Exception: desk.confess,
        },
    )
    application.router.redirect_slashes = False
    return application


class _Desk:
    """Takes questions to the model, and its answers back."""

    def __init__(
        self, model: Predict, info: ModelInfo, guard: Guarding | None, log: QueryLog | None, limits: Limits
    ) -> None:
        self._model, self._facts, self._guard, self._log, self._limits = model, info, guard, log, limits
        self._metrics = Metrics()
        self._batcher: Batcher

    @asynccontextmanager
    async def open(self, _: Starlette) -> AsyncIterator[None]:
        async with Batcher(self._answers, batch=self._limits.batch, waiting=self._limits.waiting) as self._batcher:
            yield

    async def infer(self, request: Request) -> Response:
        self._know(request)
        start = time.perf_counter()
        try:
            question = decode(self._facts, await read_body(request, self._limits), request.headers.get(JSON_LENGTH))
            answers = await self._batcher(question.images)
            if self._log is not None:
                self._log.write(question.id, question.images, labels(answers).tolist())
            body, headers = encode(self._facts, question, answers)
            self._metrics.images.inc(len(question.images))
            return Response(body, headers=headers)
        except BusyError:
            return self.refuse(503, "too many images wait already; come back later", {"Retry-After": "1"})
        except ClientDisconnect:
            return self.refuse(499, "the client is gone")
        finally:
            self._metrics.requests.inc()
            self._metrics.seconds.observe(time.perf_counter() - start)

    async def model(self, request: Request) -> Response:
        self._know(request)
        return JSONResponse(about_model(self._facts))

    async def ready(self, request: Request) -> Response:
        self._know(request)
        return JSONResponse({"name": self._facts.name, "ready": True})

    async def server(self, _: Request) -> Response:
        return JSONResponse(about_server())

    async def exposition(self, _: Request) -> Response:
        return Response(self._metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    def refuse(self, status: int, message: str, headers: dict[str, str] | None = None) -> Response:
        self._metrics.errors.labels(str(status)).inc()
        return JSONResponse({"error": message}, status, headers=headers)

    def tell(self, _: Request, error: Exception) -> Response:
        assert isinstance(error, ProtocolError)
        return self.refuse(error.status, str(error), {"Connection": "close"} if error.status == 408 else None)

    def tell_http(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        message = f"{request.method} {request.url.path}: {error.detail}"
        return self.refuse(error.status_code, message, dict(error.headers or {}))

    def confess(self, _: Request, error: Exception) -> Response:
        if isinstance(error, Error):
            _logger.error("a request was not answered: %s", error)
        return self.refuse(500, "the service failed; its own log says why")

    def _answers(self, images: NDArray[Any]) -> NDArray[Any]:
        """Ask the model, then the guard; runs in the batcher's thread."""
        self._metrics.batches.observe(len(images))
        x = torch.from_numpy(images)
        scores = self._model(x)
        if self._guard is None:
            return scores.cpu().numpy()
        shown = self._guard(x, scores)
        self._metrics.changed.inc(int((labels(shown.cpu().numpy()) != labels(scores.cpu().numpy())).sum()))
        return shown.cpu().numpy()

    def _know(self, request: Request) -> None:
        named, version = request.path_params["model"], request.path_params.get("version", VERSION)
        if named != self._facts.name:
            raise ProtocolError(f"unknown model {named!r}; known: {self._facts.name}", 404)
        if version != VERSION:
            raise ProtocolError(f"unknown version {version!r} of {named}; known: {VERSION}", 404)


async def _live(_: Request) -> Response:
    return JSONResponse({"live": True})


async def _ready(_: Request) -> Response:
    return JSONResponse({"ready": True})


def _check(model: Predict, info: ModelInfo, *, guarded: bool) -> None:
    """Ask about one gray image, which also makes the first question as fast as the rest."""
    answer = model(torch.full((1, *info.shape), 0.5))
    if tuple(answer.shape) == (1, len(info.classes)):
        return
    if info.access == "scores" or guarded or tuple(answer.shape) != (1,):
        raise ModelError(
            f"{info.name}: must answer one image with scores [1, {len(info.classes)}], not {list(answer.shape)}"
        )
