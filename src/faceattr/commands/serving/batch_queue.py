"""Collects what several requests wait for, and computes it in batches, in one thread."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Other = TypeVar("Other")


class BatchQueue(Generic[Item, Result]):
    """Runs `compute` on up to `most` items at a time: those that have come while the batch before was computed.

    compute: gives a result for each item, in their order. If it fails for a batch, it is run on each item alone, so that only
    the item at fault fails.
    """

    def __init__(self, compute: Callable[[list[Item]], list[Result]], most: int) -> None:
        self._compute, self._most = compute, most
        self._waiting: asyncio.Queue[tuple[Item, asyncio.Future[Result]]] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, "faceattr-serve")

    async def result(self, item: Item) -> Result:
        """Waits for the result of `item`. If the caller is cancelled before its batch begins, the item is left out."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((item, future))
        return await future

    async def alone(self, function: Callable[..., Other], *arguments: object) -> Other:
        """The result of another function, in the same thread, between two batches."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    async def work(self) -> None:
        """Computes until it is cancelled."""
        try:
            while True:
                batch = [await self._waiting.get()]
                while len(batch) < self._most and not self._waiting.empty():
                    batch.append(self._waiting.get_nowait())
                await self._run([(item, future) for item, future in batch if not future.done()])
        finally:
            self._thread.shutdown(cancel_futures=True)

    async def _run(self, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        if not batch:
            return
        try:
            results = await self.alone(self._compute, [item for item, _ in batch])
        except Exception as error:
            if len(batch) > 1:
                for entry in batch:
                    await self._run([entry])
            elif not batch[0][1].done():
                batch[0][1].set_exception(error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)
