"""Mutated images, tables, command lines and checkpoints: an answer or one message, nothing written elsewhere, bounded memory.

    python tests/fuzz.py SECONDS [SEED]     `make fuzz` runs it for 30 minutes; tests/test_fuzz.py for a few seconds

Every case is made from a number: a failure is printed with it, and `python tests/fuzz.py tables 42` runs that case alone.
"""

import contextlib
import copy
import functools
import io
import logging
import os
import random
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from PIL import Image

from faceattr.commands.build_from_config import data_settings
from faceattr.commands.error_message import error_message
from faceattr.config.schema import Data
from faceattr.data.decode import UnreadableImage, decode
from faceattr.data.load_table import load_table
from faceattr.data.sources import csv
from faceattr.errors import FaceattrError
from faceattr.training import checkpoint_format

ROOT = Path(__file__).resolve().parents[1]
CHECKPOINT = ROOT / "tests" / "data_files" / "old_checkpoints" / "cnn" / "best.ckpt"
MOST_MEMORY = 2_000_000
"""kB that a case may add to what the process had before."""
NASTY: tuple[Any, ...] = (
    *(
        "",
        " ",
        "\0",
        "\n",
        '"',
        "'",
        ",",
        ";",
        "=1+1",
        "NA",
        "nan",
        "-inf",
        "1e999",
        "../../x",
        "/etc/passwd",
        "${oc.env:HOME}",
    ),
    *(
        "é" * 300,
        "x" * 20_000,
        "\u202e",
        "\ud83d\ude00",
        "None",
        "[",
        "{a: 1}",
        "0",
        "-1",
        "99999999999999999999",
        "1e-320",
    ),
    *(
        None,
        True,
        -1,
        0,
        2**63,
        1e308,
        float("nan"),
        float("inf"),
        [],
        {},
        [[[[1]]]],
        ["x"] * 50,
        {"_target_": "os.system"},
    ),
)
TABLE = "Filename,Gender,Age,split\n" + "".join(
    f"{i}.png,{'male' if i % 2 else 'female'},{20 + i},{'train' if i < 12 else 'val'}\n" for i in range(20)
)
KEYS = (
    *(
        "seed",
        "name",
        "loss",
        "data.batch_size",
        "data.fractions",
        "data.per_class",
        "data.max_images",
        "data.classes",
        "data.n",
    ),
    *(
        "model.image_size",
        "model.blocks",
        "model.head.hidden",
        "model.head.dropout",
        "finetune.train_from",
        "finetune.lr_decay",
    ),
    *(
        "augment.shift",
        "augment.zoom",
        "optim.lr",
        "optim.schedule",
        "trainer.max_epochs",
        "trainer.monitor",
        "trainer.precision",
    ),
    *("trainer.devices", "evaluate.slices", "report.paths", "data.unknown", "data.on_bad_label", "faces", "experiment"),
)


def picture(rng: random.Random) -> bytes:
    """A small image in one of the formats that are read."""
    image = Image.effect_noise((rng.randint(1, 60), rng.randint(1, 60)), 60).convert(rng.choice(("L", "RGB", "P", "1")))
    formats: tuple[tuple[str, dict[str, Any]], ...] = (
        *(
            ("JPEG", {}),
            ("JPEG", {"progressive": True}),
            ("JPEG", {"restart_marker_rows": 1}),
            ("PNG", {}),
            ("GIF", {}),
        ),
        *(("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {}), ("PPM", {})),
    )
    name, options = rng.choice(formats)
    stream = io.BytesIO()
    (image.convert("RGB") if name in ("JPEG", "WEBP", "PPM") else image).save(stream, name, **options)
    return stream.getvalue()


def mutated(raw: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, removed, repeated or cut off."""
    data = bytearray(raw)
    for _ in range(rng.choice((1, 1, 2, 5, 30))):
        at, n = rng.randrange(len(data) + 1), rng.choice((1, 1, 4, 50))
        kind = rng.randrange(6)
        if kind == 0:
            data[at : at + n] = rng.randbytes(n)
        elif kind == 1:
            data[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", bytes(4), b"\x7f\xff\xff\xff", b"\0\0\0\1"))
        elif kind == 2:
            del data[at : at + n]
        elif kind == 3:
            data[at:at] = data[at : at + n]
        elif kind == 4 and rng.random() < 0.3:
            del data[at:]
        elif at < len(data):
            data[at] ^= 1 << rng.randrange(8)
    return bytes(data)


def image_case(rng: random.Random, folder: Path) -> str:
    file = folder / f"x{rng.choice(('.jpg', '.png', '.tif'))}"
    file.write_bytes(mutated(picture(rng), rng))
    try:
        assert decode(file).mode == "RGB"
    except UnreadableImage:
        return "refused"
    return "read"


def table_case(rng: random.Random, folder: Path) -> str:
    images = folder / "images"
    images.mkdir(exist_ok=True)
    for i in range(20):
        (images / f"{i}.png").touch()
    text = rng.choice((TABLE, TABLE.replace("split", "part")))
    for _ in range(rng.choice((1, 2, 4))):
        at = rng.randrange(len(text))
        text = text[:at] + str(rng.choice(NASTY)) + text[at + rng.choice((0, 0, 1, 8)) :]
    raw = text.encode("utf-8", "surrogatepass")
    (folder / "results.csv").write_bytes(mutated(raw, rng) if rng.random() < 0.3 else raw)
    keys: dict[str, Any] = {"label_column": rng.choice(("Gender", "Gender", "Age", "Filename"))}
    keys |= rng.choice(({}, {"attributes": ["Age"]}, {"attributes": "all"}, {"label_map": {"male": "m", 1: "f"}}))
    keys |= rng.choice(({}, {"split_column": "split"}, {"group_column": "Age"}))
    settings = Data(
        root=str(folder), seed=0, on_bad_label=rng.choice(("error", "skip")), on_bad_image=rng.choice(("error", "skip"))
    )
    return _expect(lambda: load_table(csv.load(folder, **keys), settings), FaceattrError)


@functools.cache
def other_tables() -> dict[str, bytes]:
    """The table as files of other kinds, by suffix; without those whose package is missing."""
    table = pd.read_csv(io.StringIO(TABLE))
    files = {".txt": table.to_csv(sep=" ").encode(), ".jsonl": table.to_json(orient="records", lines=True).encode()}
    with contextlib.suppress(ImportError), io.BytesIO() as stream:
        table.to_excel(stream, index=False)
        files[".xlsx"] = stream.getvalue()
    with contextlib.suppress(ImportError):
        files[".parquet"] = bytes(table.to_parquet())
    return files


def other_table_case(rng: random.Random, folder: Path) -> str:
    for i in range(20):
        (folder / f"{i}.png").touch()
    suffix, raw = rng.choice(list(other_tables().items()))
    name = rng.choice((f"x{suffix}", f"x{suffix}", "x.csv", "x.json"))
    (folder / name).write_bytes(mutated(raw, rng) if rng.random() < 0.9 else raw)
    keys: dict[str, Any] = rng.choice(({}, {}, {"header": False, "image_column": "0", "label_column": "1"}))
    keys |= {"file": name, "image_dir": None}
    settings = Data(root=str(folder), seed=0, on_bad_label="skip", on_bad_image="skip")
    return _expect(lambda: load_table(csv.load(folder, **keys), settings), FaceattrError)


def override_case(rng: random.Random, folder: Path) -> str:
    from composing import compose_config

    overrides = [f"{rng.choice(KEYS)}={rng.choice(NASTY)}" for _ in range(rng.choice((1, 1, 2)))]
    try:
        data_settings(compose_config(f"data.root={folder}", *overrides))
    except Exception as error:
        message = error_message(error, "train", overrides)
        if message is None:
            raise
        assert message and "Traceback" not in message
        return "refused"
    return "read"


def checkpoint_case(rng: random.Random, folder: Path) -> str:
    file = folder / "x.ckpt"
    if rng.random() < 0.4:
        file.write_bytes(mutated(CHECKPOINT.read_bytes(), rng))
    else:
        content = copy.deepcopy(_content())
        for _ in range(rng.choice((1, 1, 3))):
            _change(content, rng)
        torch.save(content, file)

    def load() -> None:
        checkpoint_format.load(file)

    return _expect(load, FaceattrError)


def _content(stored: list[dict[str, Any]] = []) -> dict[str, Any]:  # noqa: B006  read once
    if not stored:
        stored.append(torch.load(CHECKPOINT, weights_only=True))
    return stored[0]


def _change(node: Any, rng: random.Random) -> None:
    """Replaces, removes or adds something at a random place."""
    while isinstance(node, dict) and node:
        key = rng.choice(list(node))
        child = node[key]
        if isinstance(child, dict) and child and rng.random() < 0.8:
            node = child
            continue
        if isinstance(child, torch.Tensor) and rng.random() < 0.7:
            node[key] = rng.choice(
                (child * float("nan"), child.reshape(-1)[:0], child.to(torch.int8), child[None], child.double())
            )
        elif rng.random() < 0.2:
            del node[key]
        elif rng.random() < 0.2:
            node[rng.choice(("defaults", "hydra", "_target_", "x"))] = rng.choice(NASTY)
        else:
            node[key] = rng.choice(NASTY)
        return


def _expect(function: Callable[[], object], refusal: type[Exception]) -> str:
    try:
        function()
    except refusal as error:
        assert len(str(error)) < 5000, f"a message of {len(str(error)):,} characters"
        return "refused"
    return "read"


CASES: dict[str, tuple[Callable[[random.Random, Path], str], int]] = {
    "images": (image_case, 40),
    "tables": (table_case, 12),
    "other tables": (other_table_case, 6),
    "command lines": (override_case, 1),
    "checkpoints": (checkpoint_case, 3),
}
"""Kind → its case, and how many of it are tried in a round."""


def run_case(kind: str, seed: int) -> str:
    """`read` or `refused`. Raises what a case must not raise, or AssertionError where something was written elsewhere."""
    with tempfile.TemporaryDirectory() as parent:
        around, folder = Path(parent, "around"), Path(parent, "around", "case")
        folder.mkdir(parents=True)
        had = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        before, here = Path.cwd(), os.listdir(".")  # noqa: PTH208
        result = CASES[kind][0](random.Random(seed), folder)
        assert os.listdir(around) == ["case"] and os.listdir(parent) == ["around"], "written outside"  # noqa: PTH208
        assert Path.cwd() == before and os.listdir(".") == here, "written into the working directory"  # noqa: PTH208
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - had
    assert memory < MOST_MEMORY, f"{memory:,} kB"
    return result


def fuzz(seconds: float, seed: int = 0) -> tuple[Counter[str], list[str]]:
    """Counts by kind and result, and a line with the traceback for each failure; rounds until the time is over."""
    counts: Counter[str] = Counter()
    failures: list[str] = []
    end = time.monotonic() + seconds
    while not counts or time.monotonic() < end:
        for kind, (_, times) in CASES.items():
            for _ in range(times):
                try:
                    counts[f"{kind}: {run_case(kind, seed)}"] += 1
                except Exception:
                    counts[f"{kind}: failed"] += 1
                    failures.append(f"{kind}, seed {seed}:\n{traceback.format_exc(limit=-4)}")
                seed += 1
    return counts, failures


def main(seconds: str, seed: str = "0") -> None:
    logging.disable(logging.CRITICAL)
    if seconds in CASES:
        print(run_case(seconds, int(seed)))
        return
    counts, failures = fuzz(float(seconds), int(seed))
    for failure in failures[:20]:
        print(failure)
    for name, n in sorted(counts.items()):
        print(f"{name:30} {n:8,}")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB; failures {len(failures)}")
    sys.exit(bool(failures))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests"))
    main(*sys.argv[1:])
