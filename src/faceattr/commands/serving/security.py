"""What every request passes first and every answer last: hosts and origins that are let in, and the headers of security."""

import ipaddress
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from faceattr.commands.serving.http_errors import Problem

HEADERS = {
    "Content-Security-Policy": "; ".join(
        [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' blob: data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=(), display-capture=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class SecurityMiddleware:
    """The application `app`, guarded.

    host: the address that the server listens on. On a loopback address, a request must be for such a host by name: another
    name that leads here is that of a stranger's page, whose owner has pointed it to 127.0.0.1 (DNS rebinding).
    origins: the other origins whose pages may send images.
    """

    def __init__(self, app: ASGIApp, host: str, origins: tuple[str, ...] = ()) -> None:
        self._app, self._origins = app, origins
        self._only_loopback = is_loopback(host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("Cache-Control", "no-cache" if scope["path"].startswith("/static/") else "no-store")
            await send(message)

        refusal = self._refusal(scope["method"], Headers(scope=scope))
        await (refusal.response() if refusal else self._app)(scope, receive, guarded)

    def _refusal(self, method: str, headers: Headers) -> Problem | None:
        host = headers.get("host", "")
        if self._only_loopback and not is_loopback(_host_name(f"//{host}")):
            return Problem(HTTPStatus.MISDIRECTED_REQUEST, "This server is for requests from its own machine.")
        origin = headers.get("origin")
        if method == "POST" and origin is not None and origin not in self._origins and urlsplit(origin).netloc != host:
            return Problem(HTTPStatus.FORBIDDEN, "Pages of other origins may not send images here.")
        return None


def is_loopback(host: str) -> bool:
    """Whether a host, by name or address, is this machine itself."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # another name
        return False


def _host_name(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:  # no address at all
        return ""
