"""Reads an image from a request: `multipart/form-data` with a file `image`, or the image's bytes as they are. In memory only."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from http import HTTPStatus

from PIL import Image
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from faceattr.commands.serving.http_errors import Problem, without_addresses
from faceattr.data.decode import UnreadableImage, open_image, orientation

FORM_BYTES = 65_536
"""What a form may hold besides the image."""


@dataclass(frozen=True)
class Upload:
    """An image file's content, and the further fields of the form or of the address."""

    image: bytes
    options: dict[str, str]


class _InMemoryParser(MultiPartParser):
    """Starlette writes larger files of a form into a temporary file; this one never does."""

    spool_max_size = 2**40


async def read_upload(request: Request, max_bytes: int, seconds: float) -> Upload:
    """Raises Problem: no image, too many bytes, a form that cannot be read, or a body that takes more than `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            body = await _body(request, max_bytes + FORM_BYTES)
    except TimeoutError:
        detail = f"The request was not there after {seconds:g} seconds."
        raise Problem(HTTPStatus.REQUEST_TIMEOUT, detail, {"Connection": "close"}) from None
    image, fields = body, dict[str, str]()
    if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        image, fields = await _parts(request, body)
    if not image:
        raise Problem(HTTPStatus.BAD_REQUEST, "No image: send it as the body, or as the file `image` of a form.")
    if len(image) > max_bytes:
        raise _too_large(max_bytes)
    return Upload(image, dict(request.query_params) | fields)


async def _body(request: Request, most: int) -> bytes:
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most:
        raise _too_large(most - FORM_BYTES)
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise _too_large(most - FORM_BYTES)
    return bytes(body)


def _too_large(max_bytes: int) -> Problem:
    return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The image has more than {max_bytes:,} bytes, the most here.")


async def _parts(request: Request, body: bytes) -> tuple[bytes, dict[str, str]]:
    """The file `image` of a form, and the form's other fields."""

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = _InMemoryParser(request.headers, stream(), max_files=1, max_fields=8, max_part_size=FORM_BYTES)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Problem(HTTPStatus.BAD_REQUEST, f"The form cannot be read: {error.message}") from error
    file = form.get("image")
    image = await file.read() if isinstance(file, UploadFile) else b""
    return image, {name: value for name, value in form.items() if isinstance(value, str)}


def upright_size(image: bytes, max_pixels: int) -> tuple[int, int]:
    """(width, height) of the image as it is shown, from its head. Raises Problem: no image, or too many pixels."""
    try:
        with open_image(image) as opened:
            width, height = opened.size
            turned = width * height <= max_pixels and _orientation(opened) in (5, 6, 7, 8)
    except UnreadableImage as error:
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, _sentence(str(error))) from error
    except Exception as error:  # Pillow's readers raise many kinds
        raise unreadable(str(error) or type(error).__name__) from error
    if width * height > max_pixels:
        detail = f"The image has {width}×{height} pixels; the most here are {max_pixels:,}."
        raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)
    return (height, width) if turned else (width, height)


def unreadable(reason: str) -> Problem:
    """An image that is damaged, or of a kind that cannot be decoded."""
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, _sentence(f"the image cannot be read: {without_addresses(reason)}"))


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _orientation(image: Image.Image) -> int:
    if image.format == "PNG" and "exif" not in image.info:  # Pillow would decode the pixels to look behind them
        return 1
    return orientation(image)
