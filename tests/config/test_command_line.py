"""Commands are shown as they are typed here: as a script, a module or the installed command."""

import sys

import pytest

from faceattr.config.command_line import this_command, typed


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
