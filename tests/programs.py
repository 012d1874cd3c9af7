"""How tests start train.py, evaluate.py and predict.py.

`inside` needs no process, and is the quickest: for all that does not end its process. `quick` forks one from a server which has
trained once already (see warm.py): imports and first calls are most of a tiny run's time. `shell` is what a user does.
"""

import contextlib
import io
import logging
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from signal_at import SignalAt

from faceattr.commands import main
from faceattr.commands.hydra_app import own_hydra_state

ROOT = Path(__file__).resolve().parents[1]
FIGURES = "evaluate.report=figures"
TINY = ("data.n=60", "data.image_size=32", "model.image_size=[32,32]", "trainer=cpu", "trainer.precision=32", FIGURES)
S0_MAP = "data.label_map={0:male,1:female}"
"""What `Gender` means in the sample's layout `csv`."""
OFFLINE = {"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1"}


START_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
"""Windows cannot fork: there each process imports everything again."""
PATIENCE = 600
"""Seconds after which a process hangs, on the slowest machine."""


@dataclass(frozen=True)
class Ended:
    """How a process ended; `code` is minus the signal where one killed it."""

    code: int
    out: str
    err: str


def start(program: str, *arguments: object, cwd: Path, **env: str) -> subprocess.Popen[str]:
    """The process itself, for tests that signal it. SIGINT is restored: a shell ignores it for what runs behind `&`."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / f"{program}.py"), *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=None if os.name == "nt" else lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def shell(program: str, *arguments: object, cwd: Path, **env: str) -> Ended:
    """What a user types."""
    process = start(program, *arguments, cwd=cwd, **env)
    try:
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    return Ended(process.returncode, out, err)


def quick(
    program: str,
    *arguments: object,
    cwd: Path,
    largest_file: int | None = None,
    signal_at: SignalAt | None = None,
    meanwhile: Callable[[BaseProcess], None] | None = None,
    **env: str,
) -> Ended:
    """The same, forked from a process that has trained once. No file can grow past `largest_file` bytes. `meanwhile` is called
    with the process after its start."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = _forked(program, arguments, cwd, os.environ | env, out, err, largest_file, signal_at)
        if meanwhile:
            meanwhile(process)
        return Ended(_code(process), out.read_text(), err.read_text())


def ranks(world: int, program: str, *arguments: object, cwd: Path, **env: str) -> list[Ended]:
    """The same, `world` processes of one DDP run, as torchrun starts them."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(world)}
        free.close()
        files = [(Path(folder, f"out{rank}"), Path(folder, f"err{rank}")) for rank in range(world)]
        processes = [
            _forked(program, arguments, cwd, os.environ | env | place | {"LOCAL_RANK": str(rank)}, *files[rank])
            for rank in range(world)
        ]
        codes = [_code(process) for process in processes]
        return [Ended(code, *(file.read_text() for file in pair)) for code, pair in zip(codes, files, strict=True)]


def _forked(
    program: str,
    arguments: Sequence[object],
    cwd: Path,
    env: dict[str, str],
    out: Path,
    err: Path,
    largest_file: int | None = None,
    signal_at: SignalAt | None = None,
) -> BaseProcess:
    if START_METHOD == "forkserver":
        _start_server()
    script = ROOT / f"{program}.py"
    argv = [str(script), *map(str, arguments)] if script.exists() else ["faceattr", program, *map(str, arguments)]
    process = multiprocessing.get_context(START_METHOD).Process(
        target=_run, args=(argv, cwd, env, out, err, largest_file, signal_at)
    )
    process.start()
    return process


def _code(process: BaseProcess) -> int:
    process.join(PATIENCE)
    if process.is_alive():
        process.kill()
        process.join()
    assert process.exitcode is not None
    return process.exitcode


def inside(program: str, *arguments: object, cwd: Path, **env: str) -> Ended:
    """The command in this process, with its own output, environment and folder; all of them are as before afterwards."""
    out, err = io.StringIO(), io.StringIO()
    with _state_kept(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        os.environ.pop("HYDRA_FULL_ERROR", None)
        os.environ.update(env)
        os.chdir(cwd)
        sys.argv = [str(ROOT / f"{program}.py"), *map(str, arguments)]
        try:
            main.main(program)
        except SystemExit as end:
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        else:
            code = 0
    return Ended(code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def _state_kept() -> Iterator[None]:
    """What a command changes in its process: arguments, environment, folder, loggers, Hydra's state."""
    arguments, environment, folder, root = sys.argv, dict(os.environ), Path.cwd(), logging.getLogger()
    handlers, level, all_handlers = root.handlers[:], root.level, logging._handlerList[:]
    logging._handlerList.clear()  # Hydra and the end of a command close all: absl's then closes the stream of pytest
    try:
        with own_hydra_state():
            yield
    finally:
        sys.argv = arguments
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        root.handlers[:] = handlers
        logging._handlerList[:] = all_handlers
        root.setLevel(level)
        if hub := sys.modules.get("huggingface_hub"):
            hub.close_session()  # its connections keep the proxy of `OFFLINE`


def tiny_run(folder: Path, *arguments: object) -> Path:
    """A finished run of train.py on 60 sample faces of 32 pixels, in `folder`; without pictures unless evaluate.report=full."""
    ended = inside("train", *TINY, *arguments, f"hydra.run.dir={folder}", cwd=folder.parent)
    assert ended.code == 0, ended.err
    return folder


def _start_server() -> None:
    """Its first call starts the server. Python 3.11 gives a server's modules this process's PYTHONPATH only, not sys.path."""
    from multiprocessing import forkserver

    os.environ["OMP_NUM_THREADS"] = "1"
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *filter(None, [before])])
    try:
        multiprocessing.get_context("forkserver").set_forkserver_preload(["warm"])
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _run(
    argv: list[str],
    cwd: Path,
    env: dict[str, str],
    out: Path,
    err: Path,
    largest_file: int | None,
    signal_at: SignalAt | None,
) -> None:
    for file, descriptor in ((out, 1), (err, 2)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), descriptor)
    if largest_file is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what runs behind `&`
    sys.argv = argv
    sys.path[:0] = env["PYTHONPATH"].split(os.pathsep) if "PYTHONPATH" in env else []
    if signal_at:
        signal_at.arm()
    if argv[0] == "faceattr":
        runpy.run_module("faceattr", run_name="__main__", alter_sys=False)
    else:
        runpy.run_path(argv[0], run_name="__main__")
