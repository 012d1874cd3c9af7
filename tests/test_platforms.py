"""Other systems than Linux: what only Linux has is taken away, and the results stay."""

import argparse
import ctypes
import multiprocessing
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from composing import compose_config
from programs import ROOT, TINY, inside, shell

import faceattr
from faceattr.commands.build_from_config import create_data, read_table
from faceattr.commands.hydra_app import hydra_parser
from faceattr.commands.run_folder import _claimed
from faceattr.data.array_file import RowArray
from faceattr.data.decode import InputSpec
from faceattr.data.disk_cache import get_or_create
from faceattr.data.parallel import cores
from faceattr.errors import FaceattrError
from faceattr.training.trainer import keep_freed_memory


@pytest.fixture
def own_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("FACEATTR_CACHE", str(tmp_path))
    return tmp_path


def ten_rows(name: str) -> RowArray:
    def compute(rows: RowArray) -> dict[str, int]:
        for row in range(10):
            rows[row] = np.full((3, 4), row, np.float32)
        return {}

    return get_or_create(name, (10, 3, 4), np.float32, compute, title=name)[0]


@pytest.mark.parametrize("absent", [("preadv", "pwrite"), ("preadv",), ("posix_fallocate",), ("O_BINARY",)])
def test_row_array_without_linux_functions_reads_what_was_written(own_cache, monkeypatch, absent):
    for name in absent:
        monkeypatch.delattr(os, name, raising=False)
    rows = ten_rows("a")
    assert rows[np.array([7, 0, 7])][:, 2, 3].tolist() == [7.0, 0.0, 7.0]
    os.truncate(rows.file, rows.file.stat().st_size - 50)
    with pytest.raises(FaceattrError, match="has been cut short"):
        rows[np.array([9])]


def test_row_array_closes_its_file_before_it_is_renamed(own_cache, monkeypatch):
    """As Windows demands: it renames no open file."""
    opened: list[RowArray] = []
    replace = Path.replace

    def strict(part: Path, target: Path) -> Path:
        assert all(rows._descriptor is None for rows in opened if rows.file == part), f"{part} is open"
        return replace(part, target)

    def compute(rows: RowArray) -> dict[str, int]:
        opened.append(rows)
        return {}

    monkeypatch.setattr(Path, "replace", strict)
    get_or_create("a", (2, 2), np.uint8, compute, title="a")
    assert opened


def test_a_refused_run_unlocks_its_folder_before_it_is_removed(tmp_path, monkeypatch):
    """As Windows demands: it removes no locked file."""
    rmtree, locked = shutil.rmtree, list[Path]()

    def strict(folder: Path, **options: bool) -> None:
        locked.extend(path for path in _claimed if path == folder.absolute())
        rmtree(folder, **options)

    monkeypatch.setattr(shutil, "rmtree", strict)
    assert inside("train", "data.n=0", cwd=tmp_path).code == 1
    with pytest.raises(FaceattrError, match=r"data\.n"):
        monkeypatch.chdir(tmp_path)
        faceattr.train("data.n=0")
    assert not locked and not list(tmp_path.iterdir())


def test_cores_are_those_that_the_process_may_use(monkeypatch):
    """A container's limit counts too: `loky.cpu_count` reads it, and this variable."""
    most = cores()
    assert 1 <= most <= os.cpu_count()
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    assert cores() == 1


def test_keep_freed_memory_without_glibc_does_nothing(monkeypatch):
    class WithoutMallopt:
        pass

    def absent(name: str) -> None:
        raise OSError(name)

    for library in (absent, lambda name: WithoutMallopt()):
        monkeypatch.setattr(ctypes, "CDLL", library)
        keep_freed_memory()


@pytest.mark.slow
def test_data_loader_workers_are_spawned_where_there_is_no_fork(own_cache, monkeypatch):
    cfg = compose_config(*TINY, "data.pack=off", "data.workers=1")
    data = create_data(cfg, read_table(cfg), InputSpec(32, 32, "bilinear", "unit"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("spawn")
    loader = data.split_dataloader("test")
    loader.multiprocessing_context = context
    (spawned,) = list(loader)
    data.settings.workers = 0
    (own,) = list(data.split_dataloader("test"))
    assert torch.equal(spawned.inputs, own.inputs) and torch.equal(spawned.rows, own.rows)


def test_hydra_parser_skips_the_check_of_help_texts_and_puts_it_back(monkeypatch):
    """As argparse of Python 3.14 checks them, on every Python."""

    def check(self: argparse.ArgumentParser, action: argparse.Action) -> None:
        if action.help and "%" in action.help:  # a TypeError where the help is no text
            raise ValueError("badly formed help string")

    monkeypatch.setattr(argparse._ActionsContainer, "_check_help", check, raising=False)
    assert hydra_parser().parse_args(["seed=1", "-m"]).overrides == ["seed=1"]
    assert argparse._ActionsContainer._check_help is check


def test_output_that_cannot_show_a_character_replaces_it(tmp_path):
    ended = shell("train", "modle=1", cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert ended.code == 1 and "Did you mean model?" in ended.err
    ended = shell("evaluate", cwd=tmp_path, PYTHONIOENCODING="ascii")  # the message holds an ellipsis
    assert ended.code == 1 and "ckpt is not given" in ended.err and "Traceback" not in ended.err
    assert not list(tmp_path.iterdir()), "something was left behind"


def test_names_of_files_are_fit_for_every_system():
    """No two that differ only by case, and none of the characters that Windows refuses."""
    try:
        listed = subprocess.run(["git", "-C", ROOT, "ls-files"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        pytest.skip("this is no git checkout")
    files = listed.splitlines()
    assert len({name.lower() for name in files}) == len(files)
    assert not [name for name in files if set(name) & set('<>:"\\|?*=')]
