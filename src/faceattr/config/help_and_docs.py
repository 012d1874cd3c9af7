"""The reference of all groups, options and keys, made from the schema: docs/config.md, and what `--help` prints.

`python -m faceattr.config.help_and_docs` writes docs/config.md of a checkout anew.
"""

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, NamedTuple, get_args, get_origin

import yaml
from omegaconf import OmegaConf

from faceattr.config.allowed_targets import target_function
from faceattr.config.conf_folder import compose_conf, config_folder, groups
from faceattr.config.key_annotation import REQUIRED, Parameter, declared_keys
from faceattr.config.quote_for_hydra import quoted
from faceattr.config.schema import LIBRARY, OPEN_GROUPS, OWN_GROUPS, SCHEMAS, SHARED
from faceattr.config.validate_keys import GIVEN_BY_CODE

INTRODUCTION = """# Config reference

Made by `python -m faceattr.config.help_and_docs` from `src/faceattr/config/schema.py`, the functions that `_target_` names, and
`conf/`; do not edit. An option is chosen by `group=option`, a key is set by `key=value`: `faceattr train model=vgg16
optim.lr=1e-4`. `null` is no value; lists are `[1,2]`, dicts `{a: 1}` (quoted in a shell). Numbers are finite.
"""


class Row(NamedTuple):
    """A key in words."""

    key: str
    type: str
    default: str
    values: str
    meaning: str


def reference() -> str:
    """The text of docs/config.md. Imports every source and model."""
    parts = [INTRODUCTION, "## Groups and options", *_options()]
    parts += ["## Keys of `train`, `preview` and `leaks`", _table(rows("", declared_keys(SCHEMAS["train"])))]
    for group, parameter in declared_keys(SCHEMAS["train"]).items():
        if group in OPEN_GROUPS:
            parts += [f"### {group}", *_open_group(group)]
        elif is_dataclass(parameter.type):
            parts += [f"### {group}", _table(rows(group, declared_keys(parameter.type)))]
    for command in ("evaluate", "predict", "export", "serve"):
        keys = declared_keys(SCHEMAS[command])
        own_groups = [(group, key) for group, key in keys.items() if key.type in OWN_GROUPS]
        listed = [*rows("", keys), *(row for group, key in own_groups for row in rows(group, declared_keys(key.type)))]
        parts += [f"## Keys of `{command}`", _table(listed)]
    parts.append(
        "`evaluate` takes the groups `data`, `faces`, `trainer` and `evaluate` too, `predict` takes `faces` and `trainer`, "
        "`serve` takes `faces`."
    )
    return "\n\n".join(part.strip() for part in parts) + "\n"


def rows(group: str, keys: Mapping[str, Parameter]) -> Iterator[Row]:
    """The keys in words, those of a nested dataclass in its place; groups are left out."""
    for name, parameter in keys.items():
        full = f"{group}.{name}".lstrip(".")
        if is_dataclass(parameter.type):
            yield from rows(full, declared_keys(parameter.type)) if group else ()
        elif full not in OPEN_GROUPS:
            default = "required" if parameter.default is REQUIRED else _plain(parameter.default)
            values = ", ".join(parameter.key.choices) or parameter.key.bounds
            yield Row(full, _type_name(parameter.type), default, values, parameter.key.meaning)


def help_text(command: str, config: str, overrides: Sequence[str] = (), own_folder: str | None = None) -> str:
    """What `faceattr <command> --help` prints: groups with their options, then every key of the composed config with its
    value, meaning and bounds. `config` is the command's file in conf/, `own_folder` the user's `--config-dir`. Imports neither
    torch nor a source."""
    folders = [config_folder(), *([Path(own_folder).absolute()] if own_folder else [])]
    search = [f"hydra.searchpath=[{quoted(f'file://{folders[1]}')}]"] if own_folder else []
    cfg: Any = OmegaConf.to_container(compose_conf(config, [*search, *overrides]))
    own_groups = {name for name, key in declared_keys(SCHEMAS[config]).items() if key.type in OWN_GROUPS}
    listed = {
        group: options
        for group, options in groups(*folders).items()
        if config == "train" or (group in cfg and group not in own_groups)
    }
    lines = [f"usage: {command} [group=option …] [key=value …]", "", "Groups and their options:"]
    for group, options in listed.items():
        lines += textwrap.wrap(f"{group + ':':<16}{' '.join(options)}", 110, subsequent_indent=" " * 16)
    lines += ["", "Keys, with the value they have now; docs/config.md lists those of every option:"]
    explained = {row.key: row for row in _schema_rows(config)}
    for key, value in _leaves(cfg):
        row = explained.get(key, Row(key, "", "", "", ""))
        meaning = f"{row.meaning} ({row.values})" if row.values else row.meaning
        lines += [
            f"  {key}={_plain(value)}",
            *textwrap.wrap(meaning, 104, initial_indent=" " * 6, subsequent_indent=" " * 6),
        ]
    return "\n".join([*lines, "", "--cfg job prints the config as YAML; --hydra-help lists Hydra's own options."])


def _schema_rows(config: str) -> Iterator[Row]:
    keys = declared_keys(SCHEMAS[config])
    yield from rows("", keys)
    for group, parameter in keys.items():
        if group in SHARED and parameter.type not in OWN_GROUPS:
            yield from rows(group, declared_keys(SHARED[group]))
        if group in LIBRARY:
            yield from rows(group, declared_keys(LIBRARY[group]))
        if is_dataclass(parameter.type):
            yield from rows(group, declared_keys(parameter.type))


def _leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Keys of groups and their values, without `_target_`."""
    for name, value in node.items():
        key = f"{prefix}.{name}".lstrip(".")
        if isinstance(value, dict) and (not prefix or key == "model.head"):
            yield from _leaves(value, key)
        elif name != "_target_":
            yield key, value


def _options() -> Iterator[str]:
    for group, options in groups().items():
        rendered = {option: summary.replace("<", r"\<") for option, summary in options.items()}
        listed = "\n".join(f"| `{option}` | {summary} |" for option, summary in rendered.items())
        yield f"`{group}`:\n\n| option | |\n|---|---|\n{listed}"


def _open_group(group: str) -> Iterator[str]:
    """Tables of the keys that all options share, and of each function's own."""
    shared = declared_keys(SHARED[group]) if group in SHARED else {}
    if shared:
        yield f"Keys of every option:\n\n{_table(rows(group, shared))}"
    if group in LIBRARY:
        further = _table(rows(group, declared_keys(LIBRARY[group])))
        yield f"Further keys, where the class that `_target_` names has them:\n\n{further}"
        return
    by_function: dict[str, list[str]] = {}
    for option in groups()[group]:
        text = (config_folder() / group / f"{option}.yaml").read_text(encoding="utf-8")
        by_function.setdefault(yaml.safe_load(text)["_target_"], []).append(option)
    for target, options in by_function.items():
        own = {k: p for k, p in declared_keys(target_function({"_target_": target}, group)).items() if k not in shared}
        own = {k: p for k, p in own.items() if k not in GIVEN_BY_CODE.get(group, ())}
        names = ", ".join(f"`{group}={option}`" for option in options)
        yield (
            f"{names} (`{target}`):\n\n{_table(rows(group, own))}" if own else f"{names} (`{target}`): no further keys."
        )


def _table(listed: Iterable[Row]) -> str:
    lines = [f"| `{row.key}` | {row.type} | {_code(row.default)} | {row.values} | {row.meaning} |" for row in listed]
    return "\n".join(["| key | type | default | values | meaning |", "|---|---|---|---|---|", *lines])


def _code(default: str) -> str:
    return default if default == "required" else f"`{default}`"


def _plain(value: Any) -> str:
    """A value as it is typed on a command line."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_plain, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_plain(part)}" for key, part in value.items()) + "}"
    return str(value)


def _type_name(annotation: Any) -> str:
    """A type in words: `list of int, or null`."""
    if isinstance(annotation, UnionType):
        named = [_type_name(part) for part in get_args(annotation) if part is not NoneType]
        return ", or ".join([*named, "null"] if NoneType in get_args(annotation) else named)
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is list:
        return f"list of {_type_name(inside[0])}"
    if origin is dict:
        return f"dict of {_type_name(inside[1])}"
    return "any" if annotation is Any else annotation.__name__


def main() -> None:
    """Write docs/config.md."""
    (config_folder().parent / "docs" / "config.md").write_text(reference(), encoding="utf-8")


if __name__ == "__main__":
    main()
