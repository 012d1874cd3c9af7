"""Errors as answers: `application/problem+json` (RFC 9457), which name no path of this machine and hold no traceback."""

import math
import re
from collections.abc import Mapping
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """What a client did wrong, or why there is no answer now: an HTTP status, and one sentence for people."""

    def __init__(self, status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, dict(headers or {})

    def response(self) -> Response:
        content = {"title": self.status.phrase, "status": int(self.status), "detail": self.detail}
        return JSONResponse(content, self.status, self.headers, MEDIA_TYPE)


def busy(detail: str, seconds: float) -> Problem:
    """503, with the whole seconds after which a client may try again."""
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, {"Retry-After": str(max(1, math.ceil(seconds)))})


def without_addresses(reason: str) -> str:
    """The first line of a library's message, without the addresses of Python objects and what looks like a path."""
    first = (reason.splitlines() or [""])[0][:200]
    return re.sub(r"<[^>]* at 0x[0-9a-fA-F]+>|(?<![\w/])(/|[A-Za-z]:\\)[^\s'\"]+", "…", first)


async def on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response()


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own: no such address, wrong method."""
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    detail = {
        HTTPStatus.NOT_FOUND: "There is nothing at this address. GET /openapi.json lists what there is.",
        HTTPStatus.METHOD_NOT_ALLOWED: f"{request.method} is not possible here.",
    }.get(status, status.description)
    return Problem(status, detail, error.headers).response()


async def on_disconnect(request: Request, error: Exception) -> Response:
    """Nobody reads it: the client has gone while it sent its request."""
    return Problem(HTTPStatus.BAD_REQUEST, "The request ended too soon.").response()


async def on_error(request: Request, error: Exception) -> Response:
    """A mistake of ours. The traceback is in the server's log, by uvicorn, and only there."""
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "The server made a mistake; its log says more.").response()


HANDLERS = {
    Problem: on_problem,
    HTTPException: on_http_exception,
    ClientDisconnect: on_disconnect,
    Exception: on_error,
}
