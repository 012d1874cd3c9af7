"""The checks of a composed config against the schema: unknown keys, types, choices, bounds.

The keys of an open group (`data`, `model`, `optim`, `logger`) are those that its options share and the parameters of the
function that its `_target_` names, so that a new data set or model needs no schema.
"""

import functools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass, make_dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from faceattr.config.allowed_targets import target_function
from faceattr.config.key_annotation import Key, Parameter, declared_keys, kinds_of, takes_any_key
from faceattr.config.schema import LIBRARY, OPEN_GROUPS, SCHEMAS, SHARED
from faceattr.errors import FaceattrError
from faceattr.message_text import did_you_mean

GIVEN_BY_CODE = {"model": {"num_logits"}, "optim": {"params"}}
"""Parameters of a group's functions that are no keys."""
PLAIN = {bool, int, float, str}


def validate(cfg: DictConfig) -> DictConfig:
    """`cfg` with every interpolation resolved, every key, type, choice and bound checked, and paths made absolute.

    Raises a FaceattrError that names the key, its value and what would be right.
    """
    return OmegaConf.create(_checked_node(_complete(cfg), "", _top_level(cfg)))


def check_before_imports(cfg: DictConfig) -> None:
    """As `validate`, but imports nothing: of an open group only its shared keys are checked."""
    node, keys = _complete(cfg), _top_level(cfg)
    groups = [name for name in OPEN_GROUPS if name in keys and not is_dataclass(keys[name].type)]
    for group in groups:
        shared, values = declared_keys(SHARED[group]) if group in SHARED else {}, node.pop(group, None) or {}
        _checked_node({name: value for name, value in values.items() if name in shared}, group, shared)
    _checked_node(node, "", keys)


def _complete(cfg: DictConfig) -> dict[str, Any]:
    """`cfg` in plain containers. Raises FaceattrError: a key that is required is missing, or quirks without a study."""
    _check_study(cfg)
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise FaceattrError(f"Required and not given: {', '.join(missing)}. Give it as {missing[0]}=…")
    node: Any = OmegaConf.to_container(cfg, resolve=True)
    return node


def _top_level(cfg: DictConfig) -> dict[str, Parameter]:
    """The keys of the command that `cfg` was composed for; of every command, where that is not known."""
    schema = OmegaConf.get_type(cfg)
    schemas = [schema] if schema in SCHEMAS.values() else SCHEMAS.values()
    return {name: key for schema in schemas for name, key in declared_keys(schema).items()}


def validate_group(node: Mapping[str, Any], group: str) -> dict[str, Any]:
    """An open group's keys, checked as `validate` does."""
    if not node and group == "logger":  # logger=csv needs none
        return {}
    plain: Any = OmegaConf.to_container(node) if isinstance(node, DictConfig) else dict(node)
    function = target_function(plain, group)
    keys = group_keys(function, group)
    target = {"_target_": plain.pop("_target_")}
    return target | _checked_node(plain, group, keys, others=takes_any_key(function))


def validate_settings(node: Mapping[str, Any], group: str, schema: type) -> dict[str, Any]:
    """A closed group's keys, checked as `validate` does."""
    return _checked_node(node, group, declared_keys(schema))


def group_keys(function: Any, group: str) -> dict[str, Parameter]:
    """Every key that an option of an open group takes: those its function has, and those that the group shares."""
    own_keys = {k: p for k, p in declared_keys(function).items() if k not in GIVEN_BY_CODE.get(group, ())}
    library = declared_keys(LIBRARY[group]) if group in LIBRARY else {}
    shared = declared_keys(SHARED[group]) if group in SHARED else {}
    return own_keys | {name: key for name, key in library.items() if name in own_keys} | shared


def _checked_node(
    node: Mapping[str, Any], prefix: str, keys: Mapping[str, Parameter], *, others: bool = False
) -> dict[str, Any]:
    """The items of `node`, each checked; `others` lets keys pass that are not in `keys`."""
    checked: dict[str, Any] = {}
    for name, value in node.items():
        full = f"{prefix}.{name}".lstrip(".")
        if name not in keys and not others:
            raise FaceattrError(unknown_key(full, list(keys)))
        parameter = keys.get(name, Parameter(Any, None, Key()))
        if is_dataclass(parameter.type):
            checked[name] = _checked_node(_typed(full, value, dict), full, declared_keys(parameter.type))
        elif full in OPEN_GROUPS:
            checked[name] = validate_group(value or {}, full)
        else:
            checked[name] = _checked_value(full, _typed(full, value, parameter.type), parameter.key)
    return checked


def _typed(full: str, value: Any, annotation: Any) -> Any:
    """The value as OmegaConf converts it to the annotated type; as it is where OmegaConf does not know the type."""
    kinds = kinds_of(annotation)
    if dict in kinds and isinstance(value, str) and value.startswith("{"):  # quote_for_hydra writes it so
        value = yaml.safe_load(value)
    if list in kinds and isinstance(value, str | int | float):
        example = f"[{value},{value}]" if full == "model.image_size" else f"[{value}]"
        raise FaceattrError(f"{full}={value}: must be a list, such as {example}.")
    if (
        type(value) in {*PLAIN, type(None)} & kinds
    ):  # it has the type: OmegaConf, which would take a millisecond, is not asked
        return value
    schema = _schema_of(annotation)
    if schema is None:
        return value
    try:
        return OmegaConf.to_container(OmegaConf.merge(schema, {"value": value}))["value"]  # type: ignore[index, call-overload]
    except OmegaConfBaseException as error:
        within = str(error.full_key or "").removeprefix("value")
        raise FaceattrError(f"{full}{within}={value}: {type_message(str(error.msg or error))}") from error


@functools.cache
def _schema_of(annotation: Any) -> DictConfig | None:
    """A config with one key, `value`, of this type; None for a type that OmegaConf does not check."""
    try:
        return OmegaConf.structured(make_dataclass("Value", [("value", annotation)]))
    except Exception:  # whatever OmegaConf raises for an annotation that is not one of its types
        return None


def _checked_value(full: str, value: Any, key: Key) -> Any:
    """The value in the spelling of its choices, a path absolute; FaceattrError outside choices or bounds."""
    for number in _numbers(value):
        if not math.isfinite(number):
            raise FaceattrError(f"{full}={value}: must be a finite number.")
        if not key.admits(number):
            raise FaceattrError(f"{full}={value}: must be {key.bounds}.")
    if full == "model.scaling" and isinstance(value, list):
        check_mean_and_std(value)
    elif key.choices and value is not None:
        spelled = str(value).lower()
        if spelled == "false" and "off" in key.choices:  # YAML reads off as false
            spelled = "off"
        if spelled not in key.choices:
            raise FaceattrError(f"{full}={value}: choose one of {', '.join(key.choices)}.")
        return spelled
    if full == "model.image_size" and len(value) != 2:
        raise FaceattrError(f"{full}={value}: give [height, width], such as [128,128].")
    return str(Path(value).expanduser().absolute()) if key.is_path and value else value


def check_mean_and_std(value: list[Any]) -> None:
    """`model.scaling` as a list. Raises FaceattrError unless it is [mean, std], each a number or three; std above 0."""
    parts = [part if isinstance(part, list) else [part] * 3 for part in value]
    numbers = [number for part in parts for number in part]
    if [len(part) for part in parts] != [3, 3] or not all(isinstance(number, int | float) for number in numbers):
        raise FaceattrError(f"model.scaling={value}: give [mean, std], each a number or three, such as [0.5,0.5].")
    if min(parts[1]) <= 0:
        raise FaceattrError(f"model.scaling={value}: the standard deviation must be above 0.")


def _numbers(value: Any) -> Iterator[float]:
    """Every number in a value and in the lists and dicts that it holds; booleans are none."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _numbers(part)


def _check_study(cfg: DictConfig) -> None:
    """Refuse `quirks=corrected` without a study, and an incomplete published figure."""
    choices = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    if choices.get("quirks") == "corrected" and not cfg.get("published"):
        raise FaceattrError("quirks=corrected: nothing here was published. Give a study's preset too: experiment=…")
    for entry in cfg.get("published") or ():
        if not OmegaConf.is_dict(entry) or set(entry) != {"metric", "split", "value", "n", "source"}:
            raise FaceattrError(f"published: {entry} must have metric, split, value, n and source")


TYPES = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}
"""OmegaConf's names of types, as messages say them."""


def type_message(text: str) -> str:
    """What OmegaConf says of a value of another type, in plain words."""
    wrong = re.search(r"could not be converted to (\w+)", text)
    return f"must be {TYPES.get(wrong[1], wrong[1])}." if wrong else text.splitlines()[0]


def unknown_key(key: str, keys: list[str]) -> str:
    """The message for an unknown key: the nearest one, and all there are."""
    group, _, name = key.rpartition(".")
    prefix = f"{group}." if group else ""
    hint = did_you_mean(name, keys, prefix)
    where = f"Keys of {group}" if group else "Keys"
    return f"{key}: no such key.{hint}\n{where}: {', '.join(sorted(keys))}"
