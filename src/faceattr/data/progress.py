"""The progress bar of reading many images."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(total: int, title: str) -> Iterator[Callable[[int], object]]:
    """A function that advances the bar by so many images. The bar is shown on a terminal; without a title there is none, and
    tqdm is not imported: an exported model needs no tqdm."""
    if not title:
        yield lambda count: None
        return
    from tqdm import tqdm

    with tqdm(total=total, desc=title, unit="img", disable=None, leave=False) as bar:
        yield bar.update
