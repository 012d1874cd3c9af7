"""From an exception to the one message that the user sees."""

import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from faceattr.commands.hydra_app import own_hydra_state
from faceattr.config import schema
from faceattr.config.command_to_paste import for_shell
from faceattr.config.conf_folder import compose_conf
from faceattr.config.key_annotation import declared_keys, kinds_of
from faceattr.config.quote_for_hydra import quoted
from faceattr.config.schema import SCHEMAS, SHARED
from faceattr.config.validate_keys import type_message, unknown_key
from faceattr.errors import FaceattrError

ABSENT = ("torch", "torchvision", "torchmetrics", "pytorch_lightning", "matplotlib", "scipy", "timm", "safetensors")
"""Packages that an exported model does without, so that they may be missing (docs/export.md)."""


def error_message(error: BaseException, program: str, arguments: Sequence[str]) -> str | None:
    """One to three lines for the user, or None where the error is ours, and its traceback is worth seeing.

    `program` is the config of conf/ that was composed, with `arguments`.
    """
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, FaceattrError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and (package := (error.name or "").partition(".")[0]) in ABSENT:
        return f"This command needs the package {package}, which is not installed: install faceattr with all that it depends on."
    text = f"{error}\n{error.__cause__ or ''}"
    if unknown := re.search(r"Could not override '([^']+)'", text):
        key, beside = unknown[1], _keys_beside(unknown[1], program, arguments)
        if key.rpartition(".")[2] not in beside:
            return unknown_key(key, beside)
        known = _keys_beside(f"{key}.", program, arguments)  # the group was given a dictionary
        return unknown_key(f"{key}.{_first_unknown(key, known, arguments)}", known)
    if option := re.search(r"Could not find '([^']+)'", text):
        listed = re.findall(r"^\t(\S+)$", text, flags=re.MULTILINE)
        available = [name for name in listed if name not in ("_base", "from_checkpoint")]
        extra = ". faceattr's extra `sweeps` has optuna, joblib and ray" if option[1].startswith("hydra/") else ""
        return (
            f"{'='.join(option[1].rsplit('/', 1))}: no such option.\nAvailable: {', '.join(available) or 'none'}{extra}"
        )
    if several := re.match(r"Ambiguous value for argument '(.+?)=(.*)'", text):
        return _several_values(several[1], several[2], program)
    if field := re.search(r"Key '([^']+)' not in '(\w+)'\s+full_key: (\S+)", text):
        closed = getattr(schema, field[2], None)  # a group that is a dataclass there
        return unknown_key(field[3], [f.name for f in fields(closed)] if is_dataclass(closed) else [])
    if wrong := re.search(r"Value '(.*)' of type '\w+' could not be converted to (\w+)[\s\S]*full_key: (\S+)", text):
        return f"{wrong[3]}={wrong[1]}: {type_message(text)}"
    if refused := re.search(r"Error merging override (.+)\n(.*)", text):
        wrong = re.search(r"is not a valid (\w+)", refused[2])
        kinds = {"bool": "true or false", "int": "a whole number", "float": "a number", "str": "a text"}
        reason = f"must be {kinds[wrong[1]]}" if wrong and wrong[1] in kinds else refused[2].removesuffix(".")
        return f"{refused[1]}: {reason}."
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or _unnamed_file()}: {error.strerror}"
    if isinstance(error, YAMLError):
        return f"{getattr(error, 'problem', error)} {str(getattr(error, 'problem_mark', '')).strip()}"
    if isinstance(error, OverrideParseException):
        return _grammar_message(error.override, str(error))
    if isinstance(error, TypeError | ValueError) and "/hydra/" in _raised_in(
        error
    ):  # a group's option that is a number or a list
        return f"{' '.join(arguments)[:200]}: cannot be read: {str(error).splitlines()[0] if str(error) else error!r}"
    if type(error).__module__.split(".")[0] in ("hydra", "omegaconf") or isinstance(error, OmegaConfBaseException):
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        lines = [line for line in lines if not line.startswith(("object_type", "reference_type", "See http"))]
        return "\n".join([*dict.fromkeys(lines[:3]), *_references(arguments)][:4])
    return None


def _several_values(key: str, values: str, program: str) -> str:
    """`data.bins=30,50` where one value is expected."""
    group, _, name = key.rpartition(".")
    declared = declared_keys(SHARED[group]).get(name) if group in SHARED else None
    as_list = f'{key}={values}: several values. As a list: "{key}=[{values}]"'
    if declared and list in kinds_of(declared.type):
        return f"{as_list}."
    sweep = "for a run with each: add -m; " if program == "train" else ""
    return f"""{as_list}; {sweep}as one text: "{key}='{values}'\""""


def _unnamed_file() -> str:
    """For an error that names no file, such as that of a full disk when Hydra writes."""
    if not HydraConfig.initialized():
        return "writing a file"
    hydra = HydraConfig.get()
    return f"writing a file (this command writes into {hydra.sweep.dir if hydra.mode == RunMode.MULTIRUN else hydra.run.dir})"


def _raised_in(error: BaseException) -> str:
    """The file whose code raised the error, with `/`."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_filename.replace("\\", "/") if trace else ""


def _keys_beside(key: str, program: str, arguments: Sequence[str]) -> list[str]:
    """The keys that stand where `key` was looked for: composed again, without the values of the command line."""
    groups = [arg for arg in arguments if re.fullmatch(r"[\w/]+=[\w\-]+", arg) and arg.split("=")[0] != key]
    known_groups = [group for group in groups if group.split("=")[0] in SCHEMAS["train"].__dataclass_fields__]
    try:
        with own_hydra_state():
            node = OmegaConf.select(compose_conf(program, known_groups), key.rpartition(".")[0])
    except Exception:
        node = None
    top = SCHEMAS[program].__dataclass_fields__ if "." not in key else {}
    return [str(name) for name in (node if OmegaConf.is_dict(node) else top) if name != "_target_"]


def _first_unknown(group: str, known: Sequence[str], arguments: Sequence[str]) -> str:
    """The first key of the dictionary that `group` was given, such as `a` of model={a: 1}, which is not `known`."""
    given = next((text for text in reversed(arguments) if text.lstrip("+").startswith(f"{group}={{")), f"{group}={{}}")
    value = OverridesParser.create().parse_override(given).value()
    keys = map(str, value if isinstance(value, dict) else ())  # not where several are given, as in a sweep
    return next((key for key in keys if key not in known), "…")


def _references(arguments: Sequence[str]) -> list[str]:
    """How the first argument with `${` is typed if that is part of a text; for an error that names no argument."""
    assignment = next((text.partition("=") for text in arguments if "${" in text and "=" in text), None)
    if assignment is None:
        return []
    key, _, value = assignment
    return [
        f"In {''.join(assignment)[:200]}, ${{…}} is a reference. As text, in a shell: {for_shell([f'{key}={quoted(value)}'])}"
    ]


def _grammar_message(argument: str, problem: str) -> str:
    """An argument that Hydra's grammar refuses: where, and how it is typed."""
    key, equals, value = argument.partition("=")
    if not equals:
        return f"{argument}: give key=value, or an option such as -m."
    closing = {"[": "]", "{": "}"}.get(value[:1], "")
    if len(value) > 1 and closing and closing not in value:
        split = "A shell takes what follows a space for another argument; in quotes it is one"
        return f"{argument}: cannot be read: no {closing}. {split}: '{argument} …{closing}'"
    first, _, rest = problem.partition("\n")
    if first.startswith("LexerNoViableAltException: "):
        place = rest.partition("\n")[0].find("^") - len("LexerNoViableAltException: ")
        first = f"the sign {argument[place]!r} at place {place + 1}" if 0 <= place < len(argument) else "a sign in it"
    start = f"{argument}: cannot be read: {first}."
    if value[:1] in ("[", "{"):
        return f"{start}\nA list is [a,b], a dictionary {{a: 1}}; an item with other signs stands in quotes: ['(25, 32)','a b']"
    return f"{start}\nAs text, in a shell: {for_shell([f'{key}={quoted(value)}'])}"
