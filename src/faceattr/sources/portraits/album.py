"""The album of the sample source: which pictures there are and what each shows, and drawing them all at once."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import count, islice
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from faceattr.errors import FaceattrError
from faceattr.sources.portraits.drawing import draw_to
from faceattr.sources.portraits.people import images_of, invent, pose

POOL_FROM = 400  # pictures; fewer are drawn before a pool has started


def list_faces(n: int, seed: int) -> pd.DataFrame:
    """A row per picture: whose it is (`group`), which of theirs (`number`), and what it shows."""
    return pd.DataFrame(islice(_rows(seed), n))


def _rows(seed: int) -> Iterator[dict[str, Any]]:
    for identity in count():
        person = invent(identity, seed)
        for number in range(images_of(identity, seed)):
            shot = pose(person, identity, number, seed)
            yield {
                "group": str(identity),
                "number": number,
                "gender": person.gender,
                "age": person.age,
                "age_class": person.age_class,
                "skin_tone": person.skin_tone,
                "hair_length": person.hair_length,
                "grey": round(person.grey, 3),
                "beard": person.beard,
                "earrings": person.earrings,
                "glasses": person.glasses if shot.glasses else "none",
                "smile": round(shot.smile, 3),
                "yaw": round(shot.yaw, 3),
                "blur": round(shot.blur, 3),
                "noise": round(shot.noise, 3),
            }


def draw_faces(faces: pd.DataFrame, files: list[Path], size: tuple[int, int], seed: int) -> None:
    """Draws every row of `faces` into its file, `size` = (width, height); in several processes where there are many.

    The processes are spawned, since a fork of a process with threads (torch, Lightning) can hang; so a script that
    comes here must start under `if __name__ == "__main__":`.
    """
    whose = zip(faces["group"], faces["number"], files, strict=True)
    jobs = [(int(identity), int(number), seed, *size, str(file)) for identity, number, file in whose]
    workers = min(os.cpu_count() or 1, 8)
    with tqdm(total=len(jobs), desc="drawing sample faces", unit="image", disable=len(jobs) <= 500) as bar:
        if len(jobs) < POOL_FROM or workers == 1:
            for job in jobs:
                draw_to(*job)
                bar.update()
            return
        try:
            with ProcessPoolExecutor(workers, get_context("spawn"), _leave_with_parent) as pool:
                for _ in pool.map(draw_to, *zip(*jobs, strict=True), chunksize=32):
                    bar.update()
        except BrokenProcessPool as error:
            raise FaceattrError(
                "a process that draws the sample faces died: out of memory, or a script of yours "
                'without `if __name__ == "__main__":` around what it starts'
            ) from error


def _leave_with_parent() -> None:
    """A pool's processes outlive a killed parent; these do not."""

    def watch() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
