"""What is asked at the same time goes to the model together; all in one event loop, nothing left to chance."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from wootz.serving.batching import Batcher, BusyError

Rows = NDArray[Any]


class Slow:
    """Answers with the images doubled; its first call waits until it is let go."""

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


def run(work: Callable[[Batcher, Slow], Coroutine[Any, Any, None]], **limits: int) -> Slow:
    slow = Slow()

    async def main() -> None:
        async with Batcher(slow, **({"batch": 4, "waiting": 100} | limits)) as batcher:
            await work(batcher, slow)

    asyncio.run(main())
    return slow


async def asked(batcher: Batcher, *questions: Rows) -> list[asyncio.Task[Rows]]:
    """Ask each in a task of its own, and return when all of them wait, the first for the model."""
    tasks = [asyncio.create_task(batcher(question)) for question in questions]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


def test_those_who_wait_share_the_next_batch() -> None:
    async def work(batcher: Batcher, slow: Slow) -> None:
        tasks = await asked(batcher, rows(1))
        tasks += await asked(batcher, rows(2), rows(3, 4), rows(5), rows(6), rows(7, 8, 9))
        slow.go.set()
        assert [answer.ravel().tolist() for answer in await asyncio.gather(*tasks)] == [
            [2],
            [4],
            [6, 8],
            [10],
            [12],
            [14, 16, 18],
        ]

    assert run(work).sizes == [1, 4, 4]


def test_a_question_larger_than_a_batch_is_asked_in_parts() -> None:
    async def work(batcher: Batcher, slow: Slow) -> None:
        slow.go.set()
        assert (await batcher(rows(*range(10)))).ravel().tolist() == list(range(0, 20, 2))

    assert run(work).sizes == [4, 4, 2]


def test_a_failure_is_told_to_those_of_its_batch_only() -> None:
    async def work(batcher: Batcher, slow: Slow) -> None:
        tasks = await asked(batcher, rows(-1))
        tasks += await asked(batcher, rows(2))
        slow.go.set()
        with pytest.raises(RuntimeError, match="no"):
            await tasks[0]
        assert (await tasks[1]).tolist() == [[4]]
        assert (await batcher(rows(3))).tolist() == [[6]]

    run(work)


def test_who_gives_up_is_not_missed() -> None:
    async def work(batcher: Batcher, slow: Slow) -> None:
        tasks = await asked(batcher, rows(1))
        tasks += await asked(batcher, rows(2), rows(3), rows(-1))
        for gone in (tasks[0], tasks[1], tasks[3]):
            gone.cancel()
        await asyncio.sleep(0)
        slow.go.set()
        with pytest.raises(RuntimeError):
            await tasks[2]
        assert (await batcher(rows(4))).tolist() == [[8]]

    run(work)


def test_too_many_are_sent_away_but_never_a_lone_one() -> None:
    async def work(batcher: Batcher, slow: Slow) -> None:
        tasks = await asked(batcher, rows(*range(7)))
        tasks += await asked(batcher, rows(1, 2))
        with pytest.raises(BusyError):
            await batcher(rows(3, 4))
        tasks += await asked(batcher, rows(5))
        slow.go.set()
        assert [len(answer) for answer in await asyncio.gather(*tasks)] == [7, 2, 1]
        assert len(await batcher(rows(6, 7))) == 2

    run(work, waiting=3)


def test_closing_finishes_what_was_asked() -> None:
    tasks: list[asyncio.Task[Rows]] = []

    async def work(batcher: Batcher, slow: Slow) -> None:
        tasks.extend(await asked(batcher, rows(1)))
        tasks.extend(await asked(batcher, rows(2)))
        slow.go.set()

    run(work)
    assert [task.result().tolist() for task in tasks] == [[[2]], [[4]]]
