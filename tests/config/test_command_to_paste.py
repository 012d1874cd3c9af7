"""Commands are shown as they are typed here: as a script, a module or the installed command."""

import sys

import pytest

from faceattr.config.command_to_paste import command_to_paste, this_command


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
def test_command_to_paste_shows_commands_as_this_process_was_started(monkeypatch, started, train, leaks):
    monkeypatch.setattr(sys, "argv", [started, "seed=1"])
    assert command_to_paste("train", "ckpt=a") == train
    assert command_to_paste("leaks") == leaks


@pytest.mark.parametrize(
    ("started", "expected"),
    [
        ("train.py", "python train.py 'data.classes=[a, b]'"),
        ("/venv/bin/faceattr", "faceattr 'data.classes=[a, b]'"),
        ("/x/faceattr/__main__.py", "python -m faceattr 'data.classes=[a, b]'"),
    ],
)
def test_this_command_can_be_typed_again(monkeypatch, started, expected):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys, "argv", [started, "data.classes=[a, b]"])
    assert this_command() == expected


def test_command_to_paste_quotes_as_windows_wants_it(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    assert command_to_paste("leaks", r"data.root=C:\my faces") == r'faceattr leaks "data.root=C:\my faces"'
