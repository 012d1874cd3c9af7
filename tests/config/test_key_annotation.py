"""Keys as annotations: what is read from a dataclass and from a function."""

from dataclasses import dataclass
from typing import Annotated, Any

import pytest

from faceattr.config.key_annotation import REQUIRED, Key, declared_keys, takes_any_key


@dataclass
class Group:
    rate: Annotated[float, Key("A rate.", above=0, below=1)] = 0.5
    plain: int = 3


def function(
    root: str, *, count: Annotated[int | None, Key("How many.", minimum=1)] = None, other=2, **more: Any
) -> None:
    pass


def test_declared_keys_of_a_dataclass_are_its_fields():
    assert declared_keys(Group) == {
        "rate": (float, 0.5, Key("A rate.", above=0, below=1)),
        "plain": (int, 3, Key()),
    }


def test_declared_keys_of_a_function_have_type_default_and_key():
    assert declared_keys(function) == {
        "root": (str, REQUIRED, Key()),
        "count": (int | None, None, Key("How many.", minimum=1)),
        "other": (Any, 2, Key()),
    }
    assert takes_any_key(function) and not takes_any_key(Group)


@pytest.mark.parametrize(
    ("key", "words", "inside", "outside"),
    [
        (Key(minimum=1, maximum=8), "from 1 to 8", [1, 8], [0, 9]),
        (Key(above=0, below=1), "above 0 and below 1", [0.5], [0, 1]),
        (Key(minimum=0, below=1), "at least 0 and below 1", [0, 0.9], [-0.1, 1]),
        (Key(minimum=0, maximum=1_000_000), "from 0 to 1,000,000", [7], [-1, 1e7]),
        (Key(), "", [-1e9, 1e9], []),
    ],
)
def test_key_states_its_bounds_and_keeps_them(key, words, inside, outside):
    assert key.bounds == words
    assert all(map(key.admits, inside)) and not any(map(key.admits, outside))
