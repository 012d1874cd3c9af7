"""Connections that do not get on: a request whose head does not end, and a body that nobody waits for."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

pytest.importorskip("uvicorn", reason="serve is an extra")
import uvicorn

from faceattr.commands.serving import slow_clients


async def app(scope, receive, send) -> None:
    """Answers at once, and does not read the body."""
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
def port(monkeypatch) -> Iterator[int]:
    monkeypatch.setattr(slow_clients, "SECONDS", 1.0)
    config = uvicorn.Config(
        app, port=0, http=slow_clients.TimedProtocol, lifespan="off", timeout_keep_alive=600, log_config=None
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        thread.join(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


async def exchange(port: int, data: bytes) -> bytes:
    """Sends some bytes, and gives all that is answered until the server closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    received = await reader.read()
    writer.close()
    return received


REQUEST = b"GET / HTTP/1.1\r\nhost: localhost\r\n"
ANSWERS = {
    b"": 0,
    REQUEST: 0,
    REQUEST + b"\r\n": 1,
    REQUEST + b"\r\n" + REQUEST: 1,
    b"POST" + REQUEST[3:] + b"content-length: 1000\r\n\r\nx": 1,
}
"""What a client sends, and how often it is answered."""


def test_connections_that_do_not_get_on_are_closed(port):
    async def all_at_once() -> list[bytes]:
        async with asyncio.timeout(600):
            return await asyncio.gather(*(exchange(port, data) for data in ANSWERS))

    received = asyncio.run(all_at_once())
    assert [answer.count(b"HTTP/1.1 200 OK") for answer in received] == list(ANSWERS.values())
