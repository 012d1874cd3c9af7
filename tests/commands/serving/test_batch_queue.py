"""The queue: batches of what waits, errors of one item, and items that nobody waits for any more."""

import asyncio
import threading

import pytest

from faceattr.commands.serving.batch_queue import BatchQueue


async def session(queue: BatchQueue, body) -> None:
    worker = asyncio.create_task(queue.work())
    await body()
    worker.cancel()


def test_result_is_that_of_the_item_and_batches_are_bounded():
    batches = []

    def double(items: list[int]) -> list[int]:
        batches.append(len(items))
        return [2 * item for item in items]

    queue = BatchQueue(double, 4)

    async def body() -> None:
        assert await asyncio.gather(*(queue.result(item) for item in range(10))) == [2 * item for item in range(10)]

    asyncio.run(session(queue, body))
    assert batches == [4, 4, 2]


def test_an_item_that_fails_does_not_take_its_batch_with_it():
    def invert(items: list[int]) -> list[float]:
        return [1 / item for item in items]

    queue = BatchQueue(invert, 4)

    async def body() -> None:
        results = await asyncio.gather(*(queue.result(item) for item in (1, 0, 2)), return_exceptions=True)
        assert results[0] == 1 and results[2] == 0.5 and isinstance(results[1], ZeroDivisionError)

    asyncio.run(session(queue, body))


def test_an_item_whose_caller_has_gone_is_left_out():
    seen, free = [], threading.Event()

    def note(items: list[int]) -> list[int]:
        seen.extend(items)
        free.wait()
        return items

    queue = BatchQueue(note, 1)

    async def body() -> None:
        first, second, third = (asyncio.create_task(queue.result(item)) for item in (1, 2, 3))
        while not seen:
            await asyncio.sleep(0.001)
        second.cancel()
        free.set()
        assert await first == 1 and await third == 3
        with pytest.raises(asyncio.CancelledError):
            await second

    asyncio.run(session(queue, body))
    assert seen == [1, 3]
