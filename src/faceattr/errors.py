"""`FaceattrError` means "the user can mend this"; `optional` marks what a run can do without."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)


class FaceattrError(Exception):
    """Says in one to three lines what is wrong, where (path, row, config key) and what would be right.

    Commands show the message alone, with exit code 1.
    """


@contextmanager
def optional(part: str) -> Iterator[None]:
    """A failure inside is one warning with its reason, and what comes after goes on: a chart must not cost the results.

    Errors of the disk and those that the user can mend are raised.

    >>> with optional("The chart of recalls"):
    ...     share = 1 / 0
    """
    try:
        yield
    except (OSError, FaceattrError):
        raise
    except Exception as error:
        reason = str(error).partition("\n")[0]
        log.warning("%s is missing: %s%s", part, type(error).__name__, f": {reason}" if reason else "")
        log.debug("%s", part, exc_info=True)
