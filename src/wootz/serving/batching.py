"""Ask the model one batch at a time, each of all that was asked while the last one ran."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[Any]


class BusyError(Exception):
    """Too many images wait already."""


class _Waiting(NamedTuple):
    images: Rows
    answer: asyncio.Future[Rows]


class Batcher:
    """Puts together what is asked at the same time; used within one event loop.

    A lone request is asked about at once, and one that comes later waits for the running batch only.

    Args:
        ask: images [N, ...] -> rows [N, ...]; runs in a thread of its own, one call at a time.
        batch: images of a call at most.
        waiting: images that may wait, unless nothing else does.
    """

    def __init__(self, ask: Callable[[Rows], Rows], *, batch: int, waiting: int) -> None:
        self._ask, self._batch, self._most = ask, batch, waiting
        self._queue: deque[_Waiting] = deque()
        self._count = 0
        self._task: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "wootz-model")

    async def __call__(self, images: Rows) -> Rows:
        """Return the rows of these images.

        Raises:
            BusyError: too many wait.
        """
        if self._count and self._count + len(images) > self._most:
            raise BusyError
        loop = asyncio.get_running_loop()
        mine = _Waiting(images, loop.create_future())
        self._queue.append(mine)
        self._count += len(images)
        if self._task is None:
            self._task = loop.create_task(self._work())
        return await mine.answer

    async def __aenter__(self) -> Batcher:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish what is under way, and end the thread."""
        if self._task is not None:
            await self._task
        self._thread.shutdown()

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._queue:
            some = self._next()
            try:
                rows = await loop.run_in_executor(self._thread, self._all, [one.images for one in some])
            except Exception as error:  # whatever it is, those who wait are told, and the next ones are not harmed
                for one in some:
                    if not one.answer.done():
                        one.answer.set_exception(error)
                continue
            start = 0
            for one in some:
                if not one.answer.done():
                    one.answer.set_result(rows[start : start + len(one.images)])
                start += len(one.images)
        self._task = None

    def _next(self) -> list[_Waiting]:
        """Take as many requests as fit into a batch, but one at least."""
        some: list[_Waiting] = []
        count = 0
        while self._queue and (not some or count + len(self._queue[0].images) <= self._batch):
            some.append(self._queue.popleft())
            count += len(some[-1].images)
        self._count -= count
        return some

    def _all(self, parts: list[Rows]) -> Rows:
        images = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if len(images) <= self._batch:
            return self._ask(images)
        return np.concatenate([self._ask(images[at : at + self._batch]) for at in range(0, len(images), self._batch)])
