"""A process that signals itself in the midst of a write; which processes there are."""

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class SignalAt:
    """A signal that a process sends to itself at the first file it opens after a file of the glob `pattern`, below its folder,
    has more than `lines` lines; or to the processes that it has started, or `to` all of them. A test that watched from outside
    could come too late: on a busy machine it waits for a core."""

    by: signal.Signals
    pattern: str
    lines: int = -1
    to: Literal["itself", "children", "all"] = "itself"

    def arm(self) -> None:
        """In the process that is to be signalled."""
        process, folder, looking = os.getpid(), Path.cwd(), False

        def look(event: str, _: object) -> None:
            nonlocal looking
            if event != "open" or looking:  # reading what was written opens a file too
                return
            looking = True
            if any(self.lines < 0 or file.read_text().count("\n") > self.lines for file in folder.glob(self.pattern)):
                started = children(process) if self.to != "itself" else []
                for receiver in [*started, *([process] if self.to != "children" else [])]:
                    os.kill(receiver, self.by)  # `looking` stays: once is enough
            else:
                looking = False

        sys.addaudithook(look)


def children(process: int) -> list[int]:
    """The processes that it has started."""
    identifiers = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(_stat(file)[1]) == process:
                identifiers.append(int(file.parent.name))
    return identifiers


def runs(process: int) -> bool:
    """Whether it is there, and no zombie."""
    try:
        return _stat(Path(f"/proc/{process}/stat"))[0] != "Z"
    except OSError:
        return False


def _stat(file: Path) -> list[str]:
    """State, parent, … of a process: what comes after its name."""
    return file.read_text().rpartition(")")[2].split()


def kill_at(pattern: str, folder: Path, code: str) -> None:
    """Run `code` as a Python program in `folder`; it kills itself at the first file it opens after one of `pattern` is there."""
    armed = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from signal_at import SignalAt; "
    armed += f"SignalAt({int(signal.SIGKILL)}, {pattern!r}).arm()\n{code}"
    ended = subprocess.run([sys.executable, "-c", armed], cwd=folder, capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, f"it was not killed: {ended}"
