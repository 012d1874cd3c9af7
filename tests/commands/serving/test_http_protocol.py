"""Connections that do not get on: a request whose head does not end, and a body that nobody waits for."""

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest

pytest.importorskip("uvicorn", reason="serve is an extra")
import uvicorn

from faceattr.commands.serving import http_protocol


async def app(scope, receive, send) -> None:
    """Answers at once, and does not read the body."""
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
def exchange(monkeypatch) -> Iterator[Callable[[bytes], bytes]]:
    """Sends some bytes, and gives all that is answered until the server closes the connection."""
    monkeypatch.setattr(http_protocol, "SECONDS", 0.3)
    config = uvicorn.Config(
        app, port=0, http=http_protocol.TimedProtocol, lifespan="off", timeout_keep_alive=600, log_config=None
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        thread.join(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]

    def send(data: bytes) -> bytes:
        async def talk() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(data)
            async with asyncio.timeout(60):
                received = await reader.read()
            writer.close()
            return received

        return asyncio.run(talk())

    yield send
    server.should_exit = True
    thread.join()


REQUEST = b"GET / HTTP/1.1\r\nhost: localhost\r\n"


@pytest.mark.parametrize(
    ("data", "answers"),
    [
        (b"", 0),
        (REQUEST, 0),
        (REQUEST + b"\r\n", 1),
        (REQUEST + b"\r\n" + REQUEST, 1),
        (b"POST" + REQUEST[3:] + b"content-length: 1000\r\n\r\nx", 1),
    ],
)
def test_a_connection_that_does_not_get_on_is_closed(exchange, data, answers):
    assert exchange(data).count(b"HTTP/1.1 200 OK") == answers
