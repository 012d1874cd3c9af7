"""How files are written: beside the target and then renamed, so that a reader never sees half of one."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


@contextmanager
def write_atomically(file: Path) -> Iterator[IO[bytes]]:
    """A stream for the content of `file`, which gets it when the block ends; after an error the previous file is whole."""
    part = file.with_name(f".{file.name}.part")
    try:
        with part.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """As UTF-8, two spaces deep."""
    with write_atomically(file) as stream:
        stream.write((json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(file: Path) -> dict[str, Any]:
    """What `write_json` wrote; empty where there is no such file, or it is damaged."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_csv(file: Path, table: "pd.DataFrame") -> None:
    """Without the index."""
    with write_atomically(file) as stream:
        table.to_csv(stream, index=False)
