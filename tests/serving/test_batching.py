"""Concurrent requests share batches; deterministic, in one event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from wootz.serving.admission import BusyError
from wootz.serving.batching import Batcher

Rows = NDArray[Any]


class BlockingModel:
    """Returns the images doubled; calls wait until `go` is set."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.go = threading.Event()

    def __call__(self, images: Rows) -> Rows:
        self.sizes.append(len(images))
        assert self.go.wait(60)
        if (images < 0).any():
            raise RuntimeError("no")
        return images * 2


def rows(*values: float) -> Rows:
    return np.array(values)[:, None]


def run(work: Callable[[Batcher, BlockingModel], Coroutine[Any, Any, None]], **limits: int) -> BlockingModel:
    model = BlockingModel()

    async def main() -> None:
        async with Batcher(model, **({"batch": 4, "waiting": 100} | limits)) as batcher:
            await work(batcher, model)

    asyncio.run(main())
    return model


async def submit(batcher: Batcher, *requests: Rows) -> list[asyncio.Task[Rows]]:
    """Start one task per request, and return when all of them wait, the first one for the model."""
    tasks = [asyncio.create_task(batcher(images)) for images in requests]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


def test_waiting_requests_share_the_next_batch() -> None:
    async def work(batcher: Batcher, model: BlockingModel) -> None:
        tasks = await submit(batcher, rows(1))
        tasks += await submit(batcher, rows(2), rows(3, 4), rows(5), rows(6), rows(7, 8, 9))
        model.go.set()
        assert [answer.ravel().tolist() for answer in await asyncio.gather(*tasks)] == [
            [2],
            [4],
            [6, 8],
            [10],
            [12],
            [14, 16, 18],
        ]

    assert run(work).sizes == [1, 4, 4]


def test_a_request_larger_than_a_batch_is_split() -> None:
    async def work(batcher: Batcher, model: BlockingModel) -> None:
        model.go.set()
        assert (await batcher(rows(*range(10)))).ravel().tolist() == list(range(0, 20, 2))

    assert run(work).sizes == [4, 4, 2]


def test_a_large_request_delays_others_by_one_batch() -> None:
    async def work(batcher: Batcher, model: BlockingModel) -> None:
        large, small = await submit(batcher, rows(*range(40)), rows(7))
        model.go.set()
        assert (await small).tolist() == [[14]]
        assert not large.done()
        assert (await large).ravel().tolist() == list(range(0, 80, 2))

    assert run(work).sizes[:2] == [4, 1]


def test_an_error_affects_its_own_batch_only() -> None:
    async def work(batcher: Batcher, model: BlockingModel) -> None:
        tasks = await submit(batcher, rows(-1))
        tasks += await submit(batcher, rows(2))
        model.go.set()
        with pytest.raises(RuntimeError, match="no"):
            await tasks[0]
        assert (await tasks[1]).tolist() == [[4]]
        assert (await batcher(rows(3))).tolist() == [[6]]

    run(work)


def test_cancelled_requests_do_not_affect_others() -> None:
    async def work(batcher: Batcher, model: BlockingModel) -> None:
        tasks = await submit(batcher, rows(1))
        tasks += await submit(batcher, rows(2), rows(3), rows(-1))
        for task in (tasks[0], tasks[1], tasks[3]):
            task.cancel()
        await asyncio.sleep(0)
        model.go.set()
        with pytest.raises(RuntimeError):
            await tasks[2]
        assert (await batcher(rows(4))).tolist() == [[8]]

    run(work)


def test_excess_requests_are_rejected_unless_nothing_waits() -> None:
    async def work(batcher: Batcher, model: BlockingModel) -> None:
        tasks = await submit(batcher, rows(*range(7)))
        tasks += await submit(batcher, rows(1, 2))
        with pytest.raises(BusyError):
            await batcher(rows(3, 4))
        tasks += await submit(batcher, rows(5))
        model.go.set()
        assert [len(answer) for answer in await asyncio.gather(*tasks)] == [7, 2, 1]
        assert len(await batcher(rows(6, 7))) == 2

    run(work, waiting=3)


def test_closing_finishes_waiting_requests() -> None:
    tasks: list[asyncio.Task[Rows]] = []

    async def work(batcher: Batcher, model: BlockingModel) -> None:
        tasks.extend(await submit(batcher, rows(1)))
        tasks.extend(await submit(batcher, rows(2)))
        model.go.set()

    run(work)
    assert [task.result().tolist() for task in tasks] == [[[2]], [[4]]]
