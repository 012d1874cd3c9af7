"""A key of the config is one annotated name: `lr: Annotated[float, Key("Learning rate.", above=0)] = 1e-3`.

Such a name is a field of a dataclass in `schema.py`, or a parameter of a function that `_target_` names. Its type, default,
choices, bounds and meaning stand there and nowhere else: `validate_keys.py` checks them, `help_and_docs.py` prints them.
"""

import inspect
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Key:
    """What a key means, and the values that it takes beyond its type; bounds hold for each number in a list or dict."""

    meaning: str = ""
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None
    is_path: bool = False

    @property
    def bounds(self) -> str:
        """The bounds in words: `from 1 to 4096`, `above 0`; empty where there are none."""
        if self.minimum is not None and self.maximum is not None:
            return f"from {self.minimum:,.10g} to {self.maximum:,.10g}"
        words = {"at least": self.minimum, "above": self.above, "at most": self.maximum, "below": self.below}
        return " and ".join(f"{word} {bound:,.10g}" for word, bound in words.items() if bound is not None)

    def admits(self, number: float) -> bool:
        """Whether a number lies within the bounds."""
        return not (
            (self.minimum is not None and number < self.minimum)
            or (self.maximum is not None and number > self.maximum)
            or (self.above is not None and number <= self.above)
            or (self.below is not None and number >= self.below)
        )


class Parameter(NamedTuple):
    """A key as it is declared; `default` is `REQUIRED` where there is none."""

    type: Any
    default: Any
    key: Key


REQUIRED = inspect.Parameter.empty


def declared_keys(described: Any) -> dict[str, Parameter]:
    """The keys that a dataclass's fields or a function's (or other class's) parameters declare, in their order."""
    if is_dataclass(described):
        hints = get_type_hints(described, include_extras=True)
        return {f.name: _parameter(hints[f.name], _default(f)) for f in fields(described)}
    signature = inspect.signature(described)
    try:
        hints = get_type_hints(described.__init__ if inspect.isclass(described) else described, include_extras=True)
    except (NameError, TypeError):  # an annotation that only a type checker can resolve
        hints = {}
    named = {name: p for name, p in signature.parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    return {name: _parameter(hints.get(name, Any), p.default) for name, p in named.items()}


def kinds_of(annotation: Any) -> set[Any]:
    """A type with its alternatives, and `list` for `list[int]`: of `list[int] | None`, among others `list` and `NoneType`."""
    alternatives = [annotation, *get_args(annotation)]
    return {*alternatives, *map(get_origin, alternatives)}


def takes_any_key(function: Any) -> bool:
    """Whether a function has `**keywords`."""
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())


def _default(field: Any) -> Any:
    if field.default is not MISSING:
        return REQUIRED if field.default == "???" else field.default
    return REQUIRED if field.default_factory is MISSING else field.default_factory()


def _parameter(hint: Any, default: Any) -> Parameter:
    if get_origin(hint) is not Annotated:
        return Parameter(hint, default, Key())
    key = next((part for part in get_args(hint)[1:] if isinstance(part, Key)), Key())
    return Parameter(get_args(hint)[0], default, key)
