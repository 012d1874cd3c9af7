"""What a user types, as Hydra reads it: paths, lists, texts and sweeps; and values written for Hydra's grammar."""

import shlex
import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from faceattr.config.command_to_paste import command_to_paste
from faceattr.config.quote_for_hydra import argument, argument_value, quote_arguments, quoted

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


@pytest.mark.parametrize("path", PATHS)
def test_argument_can_be_pasted(path, monkeypatch):
    """The shell gives Hydra one word, and Hydra gives the config the path."""
    monkeypatch.setattr(sys, "platform", "linux")
    *_, word = shlex.split(command_to_paste("train", argument("ckpt", path)))
    value = OverridesParser.create().parse_override(word).value()
    assert OmegaConf.create({"ckpt": value}).ckpt == path
    assert argument_value("ckpt", ["seed=1", word, "-m"]) == path


def test_argument_leaves_an_ordinary_path_without_quotes():
    assert argument("ckpt", "/runs/2026-01-02_03-04/checkpoints/last.ckpt").count("'") == 0


def test_quoted_writes_lists_and_numbers_as_hydra_reads_them():
    values = ["a", "it's", None, 1, 2.5, True, ["b", "c,d"]]
    assert OverridesParser.create().parse_override(f"key={quoted(values)}").value() == values


def test_argument_value_takes_the_last_argument_and_leaves_what_hydra_will_refuse():
    assert argument_value("ckpt", ["ckpt=a", "ckpt='b=c'"]) == "b=c"
    assert argument_value("ckpt", ["ckpt=epoch=3.ckpt"]) == "epoch=3.ckpt"
    assert argument_value("ckpt", ["ckpt=null"]) is None and argument_value("ckpt", ["data.ckpt=a"]) is None


def read(text: str, *more: str):
    """The value that Hydra reads from an argument as it is typed."""
    (override,) = OverridesParser.create().parse_overrides([quote_arguments([text, *more])[0]])
    assert not override.is_sweep_override()
    value = override.value()
    return OmegaConf.to_container(OmegaConf.create({"value": value}))["value"]


@pytest.mark.parametrize(
    "path",
    [
        *(
            "photo (1).jpg",
            "a=b",
            "O'Brien/x.jpg",
            "set[1]/a.jpg",
            "[1]",
            "#1",
            "größe/日本.png",
            "~/x",
            "a,b",
            "1e5",
            "007",
        ),
        *("true", "a&b;c!d", 'say "x"', "C:\\my faces\\x.jpg", "photos/**/*.jpg", "x{1}.png", "100%", "a: b", "a\\"),
        *("[x].jpg", "{x}.jpg", "'tis.jpg", '"x".jpg', "'a"),
    ],
)
@pytest.mark.parametrize("key", ["input", "data.root", "ckpt", "model.weights", "hydra.run.dir"])
def test_quote_arguments_takes_paths_as_they_are_typed(key, path):
    assert read(f"{key}={path}") == path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("data.class_map={homme âgé: male}", "{homme âgé: male}"),
        ("data.classes=[jünger, 0-2, more than 70]", ["jünger", "0-2", "more than 70"]),
        ("data.classes=[(25, 32), (38, 43), more]", ["(25, 32)", "(38, 43)", "more"]),
        ("data.label_map={(25, 32): adult, x: y}", '{"(25, 32)": adult, x: y}'),
        ("data.file=[x].csv", "[x].csv"),
        ("data.label_column=Geschlecht (w/m)", "Geschlecht (w/m)"),
        ("data.pattern=(?P<age>\\d+)_", "(?P<age>\\d+)_"),
        ("data.label_map={0: weiß, 1: schwarz}", {0: "weiß", 1: "schwarz"}),
    ],
)
def test_quote_arguments_quotes_what_hydra_refuses(text, value):
    assert read(text) == value


@pytest.mark.parametrize(
    "text",
    [
        *(
            "seed=0,1",
            "optim.lr=interval(1e-4,1e-2)",
            "data.classes=[a,b]",
            "ckpt='a=b'",
            "data.root=null",
            "input=a/b.jpg",
        ),
        *(
            "~optim",
            "+x=1",
            "-m",
            "data.root=${oc.env:HOME}/x",
            "data.classes=[a",
            "name='a",
        ),
    ],
)
def test_quote_arguments_leaves_the_rest(text):
    assert quote_arguments([text]) == [text]


def test_quote_arguments_leaves_a_sweep_over_paths():
    assert quote_arguments(["-m", "data.root=a,b"]) == ["-m", "data.root=a,b"]
    assert quote_arguments(["data.root=a,b"]) == ["data.root='a,b'"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.file", "labels(1).csv"),
        ("data.file", "1e5"),
        ("data.label_column", "age(years)"),
        ("data.pattern", r"_(?P<label>[01])_1"),
        ("data.pattern", r"(\d+)_(?P<a>x|y),z{2}"),
        ("data.image_dir", "[1]"),
    ],
)
def test_quote_arguments_takes_text_that_looks_like_a_call_or_a_list_as_text(key, value):
    (given,) = quote_arguments([f"{key}={value}"])
    assert OmegaConf.create({"x": OverridesParser.create().parse_override(given).value()}).x == value


def test_quote_arguments_leaves_calls_of_hydras_functions():
    assert quote_arguments(["-m", "seed=range(0,3)", "optim.lr=choice(1,2)"])[1:] == [
        "seed=range(0,3)",
        "optim.lr=choice(1,2)",
    ]
    assert quote_arguments(["seed=range(0"]) == ["seed=range(0"], "Hydra says what is wrong"
