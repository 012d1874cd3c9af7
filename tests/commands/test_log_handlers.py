"""A message that cannot be written does not end a command."""

import errno
import io
import logging

import pytest

from faceattr.commands.log_handlers import LogFile, TerminalHandler


class FailingStream(io.StringIO):
    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error


@pytest.mark.parametrize(
    ("error", "message"), [(BrokenPipeError(errno.EPIPE, "x"), ""), (OSError(errno.ENOSPC, "disk full"), "disk full")]
)
def test_terminal_handler_is_silent_only_where_nobody_reads(capsys, error, message):
    TerminalHandler(FailingStream(error)).emit(logging.makeLogRecord({"msg": "epoch 1"}))
    written = capsys.readouterr().err
    assert message in written and bool(written) == bool(message)


def test_log_file_is_utf8_whatever_the_system_prefers(tmp_path):
    handler = LogFile(str(tmp_path / "x.log"))
    handler.emit(logging.makeLogRecord({"msg": "200 images → größe"}))
    handler.close()
    assert handler.encoding == "utf-8" and (tmp_path / "x.log").read_text("utf-8") == "200 images → größe\n"


def test_log_file_on_a_full_disk_is_one_line(capsys):
    handler = LogFile("/dev/full")
    for _ in range(2):
        handler.emit(logging.makeLogRecord({"msg": "epoch 1"}))
    assert capsys.readouterr().err == "Messages are missing in /dev/full: No space left on device\n"
