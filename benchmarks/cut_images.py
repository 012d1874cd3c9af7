"""How many damaged JPEG files are found: `python benchmarks/cut_images.py FOLDER N` damages N images of FOLDER at 4 places each.

Prints a line for each encoding and kind of damage: the files that `decode` refuses, those that Pillow alone refuses, of all.
"""

import io
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from faceattr.data.decode import UnreadableImage, decode

PLACES = (0.2, 0.5, 0.8, 0.95)
DAMAGE: dict[str, Callable[[bytes, int], bytes]] = {
    "cut": lambda raw, at: raw[:at],
    "cut, end marker behind": lambda raw, at: raw[:at] + b"\xff\xd9",
    "cut, filled with zeros": lambda raw, at: raw[:at] + bytes(len(raw) - at),
    "100 bytes lost": lambda raw, at: raw[: at - 100] + raw[at:],
}
ENCODINGS = {"baseline": {}, "progressive": {"progressive": True}, "restart": {"restart_marker_rows": 1}}


def encoded(raw: bytes, **options: bool) -> bytes:
    stream = io.BytesIO()
    Image.open(io.BytesIO(raw)).convert("RGB").save(stream, "JPEG", quality=90, **options)
    return stream.getvalue()


def pillow_refuses(file: Path) -> bool:
    try:
        with Image.open(file) as image:
            image.load()
    except OSError:
        return True
    return False


def decode_refuses(file: Path) -> bool:
    try:
        decode(file)
    except UnreadableImage:
        return True
    return False


def main(folder: str, n: str) -> None:
    files = sorted(file for file in Path(folder).rglob("*") if file.suffix.lower() in (".jpg", ".jpeg"))
    chosen = [file.read_bytes() for file in random.Random(0).sample(files, int(n))]
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "x.jpg")
        for encoding, options in ENCODINGS.items():
            images = [encoded(raw, **options) for raw in chosen]
            damaged = {"none": images}
            for name, damage in DAMAGE.items():
                damaged[name] = [damage(raw, max(800, int(len(raw) * at))) for raw in images for at in PLACES]
            for name, raws in damaged.items():
                found = {decode_refuses: 0, pillow_refuses: 0}
                for raw in raws:
                    file.write_bytes(raw)
                    for refuses in found:
                        found[refuses] += refuses(file)
                print(f"{encoding:12} {name:24} {found[decode_refuses]:5} {found[pillow_refuses]:5} {len(raws):5}")


if __name__ == "__main__":
    main(*sys.argv[1:])
