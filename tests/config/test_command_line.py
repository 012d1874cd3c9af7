"""Commands are shown as they are typed here: as a script, a module or the installed command."""

import shlex
import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from faceattr.config.command_line import argument, quoted, this_command, typed, value_of

PATHS = [
    "runs/a-1/x_y.ckpt",
    "größe/a.ckpt",
    "epoch=3.ckpt",
    "a,b/c",
    "it's/x",
    'say "x"/y',
    "a b/c",
    "[x]/{y}",
    "a\\b",
    "x\\",
]
PATHS += ["null", "1e5", "~/x", "a\\'b/c", "${oc.env:HOME}/x", "a\\${b}/x", "tab\there/x", "(a)/#b!/$c/*?;&|<>`x`"]


@pytest.mark.parametrize(
    ("started", "train", "leaks"),
    [
        ("train.py", "python train.py ckpt=a", "faceattr leaks"),
        ("/repo/evaluate.py", "python train.py ckpt=a", "faceattr leaks"),
        ("/venv/bin/faceattr", "faceattr train ckpt=a", "faceattr leaks"),
        ("C:/venv/Scripts/faceattr.exe", "faceattr train ckpt=a", "faceattr leaks"),
        ("/site-packages/faceattr/__main__.py", "python -m faceattr train ckpt=a", "python -m faceattr leaks"),
        ("/site-packages/ipykernel/__main__.py", "faceattr train ckpt=a", "faceattr leaks"),
    ],
)
def test_typed_shows_commands_as_this_process_was_started(monkeypatch, started, train, leaks):
    monkeypatch.setattr(sys, "argv", [started, "seed=1"])
    assert typed("train", "ckpt=a") == train
    assert typed("leaks") == leaks


@pytest.mark.parametrize(
    ("started", "expected"),
    [
        ("train.py", "python train.py 'data.classes=[a, b]'"),
        ("/venv/bin/faceattr", "faceattr 'data.classes=[a, b]'"),
        ("/x/faceattr/__main__.py", "python -m faceattr 'data.classes=[a, b]'"),
    ],
)
def test_this_command_can_be_typed_again(monkeypatch, started, expected):
    monkeypatch.setattr(sys, "argv", [started, "data.classes=[a, b]"])
    assert this_command() == expected


def test_typed_quotes_as_windows_wants_it(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    assert typed("leaks", r"data.root=C:\my faces") == r'faceattr leaks "data.root=C:\my faces"'


@pytest.mark.parametrize("path", PATHS)
def test_argument_and_typed_can_be_pasted(path):
    """The shell gives Hydra one word, and Hydra gives the config the path."""
    *_, word = shlex.split(typed("train", argument("ckpt", path)))
    value = OverridesParser.create().parse_override(word).value()
    assert OmegaConf.create({"ckpt": value}).ckpt == path
    assert value_of("ckpt", ["seed=1", word, "-m"]) == path


def test_argument_leaves_an_ordinary_path_without_quotes():
    assert argument("ckpt", "/runs/2026-01-02_03-04/checkpoints/last.ckpt").count("'") == 0


def test_quoted_writes_lists_and_numbers_as_hydra_reads_them():
    values = ["a", "it's", None, 1, 2.5, True, ["b", "c,d"]]
    assert OverridesParser.create().parse_override(f"key={quoted(values)}").value() == values


def test_value_of_takes_the_last_argument_and_leaves_what_hydra_will_refuse():
    assert value_of("ckpt", ["ckpt=a", "ckpt='b=c'"]) == "b=c"
    assert value_of("ckpt", ["ckpt=epoch=3.ckpt"]) == "epoch=3.ckpt"
    assert value_of("ckpt", ["ckpt=null"]) is None and value_of("ckpt", ["data.ckpt=a"]) is None
