"""Who is let in: hosts against DNS rebinding, origins of other pages, CORS."""

from typing import Any

import pytest

pytest.importorskip("starlette", reason="serve is an extra")
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from faceattr.commands.serving.app import create_app
from faceattr.commands.serving.security import SecurityMiddleware
from faceattr.config.schema import ServeOptions


def answered(host: str, *, listening: str = "127.0.0.1", origin: str | None = None, method: str = "POST") -> int:
    """The status of a request for `host` by a page of `origin`."""
    app = Starlette(routes=[Route("/", lambda request: PlainTextResponse("x"), methods=["GET", "POST"])])
    headers = {"host": host} | ({} if origin is None else {"origin": origin})
    secured = SecurityMiddleware(app, listening, ("https://friend.example",))
    return TestClient(secured).request(method, "http://127.0.0.1/", headers=headers).status_code


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:8000", "127.1.2.3", "[::1]:8000"])
def test_security_middleware_lets_this_machine_in(host):
    assert answered(host) == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "[", "", "0x7f.1"]
)
def test_security_middleware_refuses_other_names_for_this_machine(host):
    assert answered(host) == 421


def test_security_middleware_takes_any_name_where_it_listens_to_a_network():
    assert answered("photos.example", listening="0.0.0.0") == 200


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:8000", 200),
        ("https://friend.example", 200),
        ("http://evil.example", 403),
        ("http://localhost:9000", 403),
        ("https://friend.example.evil.example", 403),
        ("null", 403),
    ],
)
def test_security_middleware_refuses_images_from_pages_of_other_origins(origin, status):
    assert answered("localhost:8000", origin=origin) == status
    assert answered("localhost:8000", origin=origin, method="GET") == 200


def test_cors_is_off_unless_an_origin_is_named():
    def allowed(*origins: str) -> str | None:
        answerer: Any = None  # GET /model asks no model
        app = create_app(answerer, ServeOptions(origins=[*origins]), "127.0.0.1", {"classes": ["a"]})
        headers = {"origin": "https://friend.example", "host": "localhost"}
        return TestClient(app).get("/model", headers=headers).headers.get("access-control-allow-origin")

    assert allowed() is None and allowed("https://other.example") is None
    assert allowed("https://friend.example") == "https://friend.example"
