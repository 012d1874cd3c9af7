"""Sends hostile requests to a running serve.py, and checks that it still answers as before.

    python serve.py ckpt=… port=8000 serve.timeout=5
    python benchmarks/hostile_uploads.py 8000 1000

Damaged images, bombs, huge dimensions, slow heads and bodies, wrong lengths, broken forms and chunks, from 16 threads. Prints
how often each kind was answered with which status (`closed`: without an answer), and fails on any 500, or if a good image is
answered otherwise than before.
"""

import io
import random
import socket
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "AVIF")
THREADS = 16


def image_file(rng: random.Random, kind: str) -> bytes:
    stream, size = io.BytesIO(), (rng.randint(1, 300), rng.randint(1, 300))
    Image.effect_mandelbrot(size, (-2, -1, 1, 1), 40).convert("RGB").save(stream, kind)
    return stream.getvalue()


def damaged(rng: random.Random) -> list[bytes]:
    """An image with bytes changed, removed, repeated or cut off."""
    content = bytearray(image_file(rng, rng.choice(FORMATS)))
    for _ in range(rng.randint(1, 20)):
        place = rng.randrange(len(content)) if rng.random() < 0.5 else rng.randrange(min(64, len(content)))
        content[place] = rng.choice((0, 255, 127, rng.randrange(256)))
    if rng.random() < 0.4:
        del content[rng.randrange(len(content)) :]
    return [request(bytes(content))]


def png(width: int, height: int, pixels: bytes, more: bytes = b"") -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + more + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def huge(rng: random.Random) -> list[bytes]:
    """A small file that says it is enormous; or is, once it is decompressed."""
    side = rng.choice((7_000, 20_000, 65_535, 2**31 - 1))
    zeros = zlib.compress(bytes(7_000 * 7_001), 9) if side == 7_000 else zlib.compress(bytes(1_000))
    files = (png(side, side, zeros), b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + b"\xf7\0\0" + bytes(800))
    return [request(rng.choice(files))]


def request(body: bytes, **headers: str) -> bytes:
    given = {"Host": "localhost", "Content-Length": str(len(body)), "Connection": "close"} | headers
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in given.items())
    return f"POST /predict HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body


def slow(rng: random.Random) -> list[bytes]:
    """The head, or the body, in pieces; most of it never comes."""
    whole = request(image_file(rng, "JPEG"))
    end = whole.index(b"\r\n\r\n") if rng.random() < 0.5 else len(whole)
    return [whole[place : place + 9] for place in range(0, min(end, 90), 9)]


def wrong_length(rng: random.Random) -> list[bytes]:
    body = image_file(rng, "PNG")
    length = rng.choice(("1", str(len(body) - 10), str(len(body) + 10), "-5", "1e9", "99999999999999", "", "5, 6"))
    return [request(body, Content_Length=length)]


def form(rng: random.Random) -> list[bytes]:
    """A form that is broken, endless or strange."""
    image, b = image_file(rng, "PNG"), b"--b\r\n"
    part = b'Content-Disposition: form-data; name="image"; filename="../../x.png"\r\n\r\n'
    bodies = (
        b + part + image,
        (b + part + image + b"\r\n") * 3 + b"--b--",
        b * 3_000,
        b + b"X: " + b"y" * 100_000,
        b + b'Content-Disposition: form-data; name="image"\r\n\r\n' + image + b"\r\n--b--",
        b"".join(b + b'Content-Disposition: form-data; name="f%d"\r\n\r\n1\r\n' % i for i in range(2_000)) + b"--b--",
        rng.randbytes(5_000),
    )
    kind = rng.choice(
        ("multipart/form-data; boundary=b", "multipart/form-data", "multipart/form-data; boundary=" + "b" * 5_000)
    )
    return [request(rng.choice(bodies), Content_Type=kind)]


def chunked(rng: random.Random) -> list[bytes]:
    sizes = (
        b"5\r\nhello\r\n0\r\n\r\n",
        b"ffffffffff\r\n",
        b"-1\r\n",
        b"5\r\nhel",
        b"0;" + b"x" * 50_000,
        b"zz\r\n\r\n",
    )
    return [
        request(b"", Transfer_Encoding="chunked", Content_Length="").replace(b"Content-Length: \r\n", b"")
        + rng.choice(sizes)
    ]


def no_http(rng: random.Random) -> list[bytes]:
    lines = (b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01" + rng.randbytes(200), b"GET " + b"/" * 70_000, b"\r\n" * 5_000)
    headers = b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"".join(b"X-%d: y\r\n" % i for i in range(20_000)) + b"\r\n"
    paths = b"GET /static/%2e%2e/%2e%2e/app.py HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    return [rng.choice((*lines, headers, paths))]


KINDS: dict[Callable[[random.Random], list[bytes]], int] = {
    **{damaged: 55, huge: 8, slow: 8, wrong_length: 8},
    **{form: 10, chunked: 5, no_http: 6},
}
"""What is sent, and its share in per cent."""


def send(port: int, pieces: list[bytes], pause: float) -> str:
    """The status of the answer, or `closed`."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause)
            answer = connection.recv(64)
        except (ConnectionError, TimeoutError) as error:
            return "timeout" if isinstance(error, TimeoutError) else "closed"
    return answer[9:12].decode("latin-1") or "closed"


def cases(count: int, port: int) -> Iterator[tuple[str, str]]:
    kinds = random.Random(0).choices(list(KINDS), list(KINDS.values()), k=count)

    def run(seed: int) -> tuple[str, str]:
        kind = kinds[seed]
        return kind.__name__, send(port, kind(random.Random(seed)), 0.05 if kind is slow else 0)

    with ThreadPoolExecutor(THREADS) as pool:
        yield from pool.map(run, range(count))


def good_answer(port: int) -> bytes:
    """What is answered for a good image, less the time."""
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8)).save(stream, "PNG")
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(request(stream.getvalue()))
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.1 200"), answer[:500]
    return answer.partition(b"\r\n\r\n")[2].partition(b'"milliseconds"')[0]


def main(port: int, count: int) -> None:
    before = good_answer(port)
    counted = Counter(cases(count, port))
    for (kind, status), n in sorted(counted.items()):
        print(f"{kind:<14} {status:<8} {n}")
    assert good_answer(port) == before, "another answer than before"
    failed = sum(n for (_, status), n in counted.items() if status in ("500", "timeout"))
    print(
        f"{count} requests; {failed} answered with 500 or not at all within a minute; a good image is answered as before"
    )
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
