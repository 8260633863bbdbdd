"""Dynamic batching: one call of the model at a time, on the images of all requests that arrived during the last one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wootz.serving.admission import BusyError

Array = NDArray[Any]


class _Pending(NamedTuple):
    images: Array
    result: asyncio.Future[Array]


class Batcher:
    """Combines concurrent requests into batches; used within one event loop.

    A request that arrives while the model is idle runs at once; later ones wait for the running batch only. A request
    with more images than a batch holds waits for its turn with each batch, so that it delays the others by one only.

    Args:
        predict: images [N, ...] -> answers [N, ...]; runs in its own thread, one call at a time.
        batch: the maximum number of images per call.
        waiting: the maximum number of images in the queue, where a request has one batch at a time; a single request
            may exceed it if no other one waits.
    """

    def __init__(self, predict: Callable[[Array], Array], *, batch: int, waiting: int) -> None:
        self._predict, self._batch, self._max_waiting = predict, batch, waiting
        self._queue: deque[_Pending] = deque()
        self._waiting = 0
        self._task: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "wootz-model")

    async def __call__(self, images: Array) -> Array:
        """Return the answers to these images.

        Raises:
            BusyError: too many images wait.
        """
        if self._waiting and self._waiting + len(images) > self._max_waiting:
            raise BusyError
        starts = range(0, len(images), self._batch)
        parts = [await self._enqueue(images[start : start + self._batch]) for start in starts]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    async def __aenter__(self) -> Batcher:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the waiting requests, and end the thread."""
        if self._task is not None:
            await self._task
        self._thread.shutdown()

    def _enqueue(self, images: Array) -> asyncio.Future[Array]:
        loop = asyncio.get_running_loop()
        request = _Pending(images, loop.create_future())
        self._queue.append(request)
        self._waiting += len(images)
        if self._task is None:
            self._task = loop.create_task(self._run())
        return request.result

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._queue:
            batch = self._next_batch()
            try:
                answers = await loop.run_in_executor(self._thread, self._predict_all, [p.images for p in batch])
            except Exception as error:  # any error goes to the requests of this batch; the next ones still run
                for pending in batch:
                    if not pending.result.done():
                        pending.result.set_exception(error)
                continue
            start = 0
            for pending in batch:
                if not pending.result.done():
                    pending.result.set_result(answers[start : start + len(pending.images)])
                start += len(pending.images)
        self._task = None

    def _next_batch(self) -> list[_Pending]:
        """Take as many parts as fit into a batch."""
        batch: list[_Pending] = []
        count = 0
        while self._queue and (not batch or count + len(self._queue[0].images) <= self._batch):
            batch.append(self._queue.popleft())
            count += len(batch[-1].images)
        self._waiting -= count
        return batch

    def _predict_all(self, parts: list[Array]) -> Array:
        return self._predict(parts[0] if len(parts) == 1 else np.concatenate(parts))
