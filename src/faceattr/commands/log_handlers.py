"""Where messages go, the terminal and a log file, when these cannot be written: the command goes on."""

import logging
import sys
from typing import Any


class TerminalHandler(logging.StreamHandler[Any]):
    """Messages on the terminal. A run goes on when nobody reads them any more (`train.py | head`): they are in its log file."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], BrokenPipeError):
            super().handleError(record)


class LogFile(logging.FileHandler):
    """A command's log file. Where it cannot be written, as on a full disk, the terminal has one line, not a traceback of each
    message."""

    _failed = False

    def __init__(self, filename: str, delay: bool = False) -> None:
        super().__init__(filename, encoding="utf-8", delay=delay)  # as every file that faceattr writes, on every system

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._failed:
            self._failed = True
            sys.stderr.write(f"Messages are missing in {self.baseFilename}: {error.strerror or error}\n")
