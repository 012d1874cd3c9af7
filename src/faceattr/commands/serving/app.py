"""The application: its addresses, and what each does."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from faceattr.commands.serving.batch_queue import BatchQueue
from faceattr.commands.serving.classify_upload import PhotoClassifier, Prediction
from faceattr.commands.serving.http_errors import HANDLERS, Problem, busy
from faceattr.commands.serving.openapi import openapi_document
from faceattr.commands.serving.security import SecurityMiddleware
from faceattr.commands.serving.uploads import read_upload
from faceattr.config.schema import ServeOptions

PAGE = Path(__file__).parent / "page"
Result = TypeVar("Result")


def create_app(
    classifier: PhotoClassifier, limits: ServeOptions, host: str, facts: dict[str, Any]
) -> SecurityMiddleware:
    """The ASGI application. `host` is the address that it listens on; `facts` is what GET /model says besides the limits."""
    api = Api(classifier, limits, facts)
    cors = Middleware(CORSMiddleware, allow_origins=limits.origins, allow_methods=["GET", "POST"], allow_headers=["*"])
    app = Starlette(
        routes=[
            Route("/", api.page),
            Mount("/static", StaticFiles(directory=PAGE)),
            Route("/predict", api.predict, methods=["POST"]),
            Route("/explain", api.explain, methods=["POST"]),
            Route("/model", api.model),
            Route("/health", api.health),
            Route("/openapi.json", api.openapi),
        ],
        middleware=[cors] if limits.origins else [],
        exception_handlers=HANDLERS,
        lifespan=api.lifespan,
    )
    return SecurityMiddleware(app, host, tuple(limits.origins))


class Api:
    """What the addresses do. At most `limits.queue` requests are read, wait, or are computed at a time."""

    def __init__(self, classifier: PhotoClassifier, limits: ServeOptions, facts: dict[str, Any]) -> None:
        self._classifier, self._limits = classifier, limits
        bounds = {name: getattr(limits, name) for name in ("max_bytes", "max_pixels", "max_faces", "timeout")}
        self._facts = facts | {"limits": bounds}
        self._openapi = openapi_document(facts["classes"], limits)
        self._queue = BatchQueue(self._compute, limits.batch)
        self._under_way = 0
        self._seconds_per_image = 0.1

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        worker = asyncio.create_task(self._queue.work())
        yield
        worker.cancel()
        with suppress(asyncio.CancelledError):
            await worker

    async def page(self, request: Request) -> Response:
        return FileResponse(PAGE / "index.html")

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", "under_way": self._under_way, "queue": self._limits.queue})

    async def model(self, request: Request) -> Response:
        return JSONResponse(self._facts)

    async def openapi(self, request: Request) -> Response:
        return JSONResponse(self._openapi)

    async def predict(self, request: Request) -> Response:
        with self._slot():
            upload = await read_upload(request, self._limits.max_bytes, self._limits.timeout)
            received = time.perf_counter()
            answer = await self._in_time(self._queue.result(upload.image))
        if isinstance(answer, Problem):
            raise answer
        milliseconds = round(1000 * (time.perf_counter() - received), 1)
        return JSONResponse(answer | {"model": self._facts["name"], "milliseconds": milliseconds})

    async def explain(self, request: Request) -> Response:
        with self._slot():
            upload = await read_upload(request, self._limits.max_bytes, self._limits.timeout)
            face, label = upload.options.get("face"), upload.options.get("label")
            if face is not None and not (face.isascii() and face.isdecimal() and len(face) < 6):
                raise Problem(HTTPStatus.BAD_REQUEST, "`face` is the number of a face, from 0.")
            number = None if face is None else int(face)
            picture = await self._in_time(self._queue.alone(self._classifier.explain, upload.image, label, number))
        return Response(picture, media_type="image/png")

    def _compute(self, images: list[bytes]) -> list[Prediction | Problem]:
        start = time.perf_counter()
        answers = self._classifier.classify(images)
        self._seconds_per_image += 0.2 * ((time.perf_counter() - start) / len(images) - self._seconds_per_image)
        return answers

    @contextmanager
    def _slot(self) -> Iterator[None]:
        """Counts a request. Raises Problem where there are too many, before its image is read."""
        if self._under_way >= self._limits.queue:
            raise busy("Too many requests at once.", self._seconds_until_free())
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    async def _in_time(self, result: Awaitable[Result]) -> Result:
        try:
            async with asyncio.timeout(self._limits.timeout):
                return await result
        except TimeoutError:
            raise busy(f"No answer within {self._limits.timeout:g} seconds.", self._seconds_until_free()) from None

    def _seconds_until_free(self) -> float:
        """Until half of what is under way is done."""
        return self._seconds_per_image * self._under_way / 2
