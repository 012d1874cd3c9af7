"""The command line: makes what a user types readable for Hydra.

`quote_arguments` quotes what Hydra's grammar would refuse or misread; `argument` and `quoted` write a value for that grammar.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from faceattr.config.key_annotation import declared_keys
from faceattr.config.schema import SCHEMAS, SHARED

PLAIN = re.compile(r"[A-Za-z0-9_.:@%+-]*/[A-Za-z0-9_./:@%+-]*")
"""A path in which neither Hydra nor a shell finds anything to interpret."""
KEY_VALUE = re.compile(r"(\+{0,2}[A-Za-z_][\w./@-]*)=(.*)", re.DOTALL)
"""An argument `key=value`."""
FUNCTION = re.compile(r"(choice|range|interval|glob|shuffle|sort|tag|int|float|str|bool|json_str|extend_list)\(")
"""How a call of one of Hydra's functions begins; `labels(1).csv` is a text."""
TEXT_KEYS = ("input", "hydra.run.dir", "hydra.sweep.dir", "data.pattern", "data.file", "data.image_dir")
"""Keys whose value is text, besides those whose `Key` has `is_path`."""


def quote_arguments(arguments: Sequence[str]) -> list[str]:
    """`arguments`, quoted so that Hydra reads what the user meant.

    Hydra refuses `photo (1).jpg`, `a=b`, `~/x` and letters that are not ASCII, and takes a file named `1e5` for a number and
    `a,b` for two values. So a path is quoted unless Hydra already reads it as this text. Any other value is quoted only if Hydra
    would refuse it; in lists and dictionaries, item by item. What cannot be read at all stays as it is: Hydra reports the error.
    """
    sweeps = bool({"-m", "--multirun"} & set(arguments))
    return [_readable(match, sweeps) if (match := KEY_VALUE.fullmatch(text)) else text for text in arguments]


def _readable(match: re.Match[str], sweeps: bool) -> str:
    text, key, value = match[0], match[1], match[2]
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException:
        if sweeps and "," in value:
            return text
        if key.lstrip("+") in path_keys() or re.fullmatch(r"\[.*\].*[^\]\s]\s*|\{.*\}.*[^}\s]\s*", value, re.DOTALL):
            return f"{key}={quoted(value)}"  # `[x].csv` begins like a list, and is none
        if value[:1] in ("'", '"') or FUNCTION.match(value):
            return text
        return f"{key}={_quoted_items(value) if value[:1] in ('[', '{') else quoted(value)}"
    if key.lstrip("+") not in path_keys() or (sweeps and override.is_sweep_override()):
        return text
    plain = not override.is_sweep_override() and isinstance(override.value(), str | QuotedString | None)
    return text if plain else f"{key}={quoted(value)}"


def _quoted_items(value: str) -> str:
    """A list or a dictionary, read as YAML reads it, with each text in quotes; `value` itself where it is neither.

    Hydra's grammar has no keys in quotes: a dictionary that needs them is one text, which `validate` reads.
    """
    value = WITH_PARENTHESES.sub(lambda item: json.dumps(item[0].strip(), ensure_ascii=False), value)
    try:
        read = yaml.load(value, yaml.BaseLoader)  # every item as the text that it is
    except yaml.YAMLError:
        return value
    if isinstance(read, dict) and not all(re.fullmatch(r"[\w.+ -]+", str(key), re.ASCII) for key in read):
        return quoted(value)
    if isinstance(read, dict):
        return f"{{{','.join(f'{_item(key)}:{_item(item)}' for key, item in read.items())}}}"
    return f"[{','.join(map(_item, read))}]"


WITH_PARENTHESES = re.compile(r"""[^,\[\]{}:'"()]*\([^()'"]*\)[^,\[\]{}:'"()]*""")
"""An item such as Adience's `(25, 32)`, whose comma separates no items."""


def _item(item: Any) -> str:
    """Numbers and what Hydra reads without quotes stay as they are."""
    text = str(item)
    return text if re.fullmatch(r"[\w.+-]+", text, re.ASCII) else quoted(text)


@cache
def path_keys() -> frozenset[str]:
    """The keys whose value is a path or other text, even if it looks like a number or a list."""
    keys = set(TEXT_KEYS)
    for schema in SCHEMAS.values():
        keys |= {name for name, parameter in declared_keys(schema).items() if parameter.key.is_path}
        for group, parameter in declared_keys(schema).items():
            described = SHARED.get(group, parameter.type)
            if is_dataclass(described):
                keys |= {f"{group}.{name}" for name, field in declared_keys(described).items() if field.key.is_path}
    return frozenset(keys)


def argument(key: str, value: str | Path) -> str:
    """`key=value` as Hydra reads it: `ckpt='runs/größe=3/last.ckpt'`; an ordinary path stays without quotes."""
    text = str(value)
    return f"{key}={text if PLAIN.fullmatch(text) else quoted(text)}"


def quoted(value: Any) -> str:
    """A value for Hydra's grammar: text in quotes, with everything in it escaped, `${` too."""
    if isinstance(value, list):
        return f"[{','.join(map(quoted, value))}]"
    if value is None or isinstance(value, int | float):
        return "null" if value is None else str(value)
    escaped = re.sub(r"(\\*)\$\{", lambda match: 2 * match[1] + r"\${", str(value))
    return QuotedString(escaped, Quote.single).with_quotes()


def argument_value(key: str, arguments: Sequence[str]) -> str | None:
    """The value of the last argument `key=…`, as text, read as Hydra reads it; None if there is no such argument."""
    matching = [text for text in arguments if text.startswith(f"{key}=")]
    if not matching:
        return None
    try:
        value = OverridesParser.create().parse_override(matching[-1]).value()
        return None if value is None else str(OmegaConf.create({key: value})[key])
    except (HydraException, OmegaConfBaseException):  # Hydra will say what is wrong
        return matching[-1].partition("=")[2]
