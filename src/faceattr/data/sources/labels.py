"""From the cells of a table to labels: which class a text means; whether a number means yes, no or unknown. Nothing is assumed."""

import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd

from faceattr.config.key_annotation import Key
from faceattr.data.sources.table_file import cell_errors
from faceattr.errors import FaceattrError
from faceattr.message_text import listed

log = logging.getLogger(__name__)

MISSING = frozenset(
    {
        "",
        "nan",
        "na",
        "n/a",
        "n.a.",
        "#n/a",
        "<na>",
        "none",
        "null",
        "nil",
        "?",
        "-",
        "--",
        ".",
        "u",
        "unknown",
        "undefined",
    }
    | {"missing", "not available", "not applicable", "not known", "unk"}
)
"""Texts, in lower case, that mean that a label is not known (`u`: Adience)."""
WORDS = {"true": 1, "yes": 1, "y": 1, "false": 0, "no": 0, "n": 0}
CODES = {"1": 1, "0": 0, "-1": -1}
MOST_CLASSES = 1000
DATE = re.compile(
    r"\d{1,2}[-/. ](jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*|"
    r"(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*[-/. ]\d{1,4}|\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}",
    re.IGNORECASE,
)
Unknown = Annotated[
    str,
    Key(
        "With attributes: the number that means not known. auto: 0 where the file has -1, 0 and 1, none where it has two of them; "
        "none: 0 and -1 both mean no.",
        choices=("auto", "0", "-1", "none"),
    ),
]
"""Type of the key `data.unknown`."""


def plain(value: object) -> str:
    """A label as text. 0, "0", 0.0 and " 0 " give the same text, and so do the forms in which Unicode writes one letter."""
    return re.sub(r"^(-?\d+)\.0*$", r"\1", unicodedata.normalize("NFC", str(value)).strip())


def fold(text: str) -> str:
    """The text in lower case without blanks: the same for texts that differ only in case, blanks, a sign at their ends and what
    cannot be seen (characters without width, full-width letters)."""
    visible = "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf")
    return "".join(visible.casefold().split()).strip(".,;:'\"")


FOLDED_MISSING = frozenset(map(fold, MISSING))
NUMBER = re.compile(r"-?\d+([.,]\d+)?")


def to_classes(
    values: pd.Series,
    label_map: Mapping | None,
    classes: Sequence[str] | None,
    *,
    path: Path,
    key: str = "data.label_map",
    numbers_are_names: bool = False,
) -> pd.Series:
    """The class of each cell; None where the cell is empty or a marker such as `NA`. A value that fits no class stays as it is.

    `label_map` gives the class of a value; else the value is the name of its class, in any case and with any blanks. If
    neither `label_map` nor `classes` is given, the values are the classes: those that differ only in case or blanks become
    one class, under their commonest spelling, with a warning. `key` is the config key that gives a value another class;
    `numbers_are_names`: a number is the name of a class, as of a folder.

    Raises FaceattrError: numbers that neither `label_map` nor `classes` explains, alone or beside words; a class whose name
    abbreviates another's; more than `MOST_CLASSES` classes.
    """
    mapped = {plain(value): str(name) for value, name in (label_map or {}).items()}
    names = list(dict.fromkeys([*map(str, classes or ()), *mapped.values()]))
    by_fold = _unambiguous(list(mapped.items())) | _unambiguous([(name, name) for name in names])
    counts = Counter(values.map(plain))
    class_of = {value: mapped.get(value, by_fold.get(fold(value))) for value in counts}
    unexplained = {
        value: n for value, n in counts.items() if class_of[value] is None and fold(value) not in FOLDED_MISSING
    }
    if (
        unexplained
        and not numbers_are_names
        and not label_map
        and not any(class_of.values())
        and all(map(NUMBER.fullmatch, unexplained))
    ):
        raise _bare_numbers(path, str(values.name), unexplained, list(map(str, classes or ())), key)
    if not names:
        if not numbers_are_names and any(map(NUMBER.fullmatch, unexplained)):
            words_first = dict(sorted(unexplained.items(), key=lambda item: bool(NUMBER.fullmatch(item[0]))))
            raise FaceattrError(
                f"{path}: column {str(values.name)!r} has numbers beside words: {_with_counts(words_first)}. "
                f"Are the numbers codes? Say what they mean with {key}, or name all classes in data.classes. "
                "Are they quantities? Mend the words, and divide the numbers with data.bins."
            )
        spelling_of = _join_spellings(unexplained)
        images_of = Counter(dict.fromkeys(spelling_of.values(), 0))
        for value, images in unexplained.items():
            images_of[spelling_of[value]] += images
        _check_classes(path, str(values.name), images_of, key)
    else:
        spelling_of = dict(zip(unexplained, unexplained, strict=True))
    missing = {
        value: n for value, n in counts.items() if value and class_of[value] is None and value not in unexplained
    }
    if missing:
        log.warning("%s: in column %r no label: %s", path, values.name, _with_counts(missing))
    return values.map(lambda value: class_of[plain(value)] or spelling_of.get(plain(value)))


def _unambiguous(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Folded text → class, of (text, class) pairs; without texts that belong to several classes."""
    classes_of: dict[str, set[str]] = {}
    for text, name in pairs:
        classes_of.setdefault(fold(text), set()).add(name)
    return {text: next(iter(names)) for text, names in classes_of.items() if len(names) == 1}


def _join_spellings(counts: Mapping[str, int]) -> dict[str, str]:
    """Value → its class: the commonest spelling of those that differ only in case or blanks."""
    spellings: dict[str, list[str]] = {}
    for value in sorted(counts, key=lambda value: (-counts[value], value)):
        spellings.setdefault(fold(value), []).append(value)
    for same in spellings.values():
        if len(same) > 1:
            log.warning(
                "One class, written in several ways: %s", _with_counts({value: counts[value] for value in same})
            )
    return {value: same[0] for same in spellings.values() for value in same}


def _check_classes(path: Path, column: str, counts: Counter[str], key: str) -> None:
    """Warns of classes that are probably dates; raises FaceattrError for too many classes, or an abbreviation of another."""
    if len(counts) > MOST_CLASSES:
        raise FaceattrError(
            f"{path}: column {column!r} has {len(counts):,} different values. Are they classes? Then name "
            "them in data.classes. Numbers are cut into classes by data.bins."
        )
    words = [name for name in counts if len(name) > 1]
    for letter in (name for name in counts if len(name) == 1 and name.isalpha()):
        if same := [word for word in words if word.casefold().startswith(letter.casefold())]:
            raise FaceattrError(
                f"{path}: column {column!r} has the classes {_with_counts(counts)}. Does {letter!r} mean {same[0]!r}? Then give "
                f"'{key}={{{letter}: {same[0]}}}'; else name the classes in data.classes."
            )
    if dates := {name: n for name, n in counts.items() if DATE.fullmatch(name)}:
        log.warning(
            "%s: column %r has labels that look like dates: %s. Spreadsheets write 3-9 so",
            path,
            column,
            _with_counts(dates),
        )


def _bare_numbers(path: Path, column: str, counts: Mapping[str, int], classes: list[str], key: str) -> FaceattrError:
    """The error for labels that are numbers of unknown meaning, with a `label_map` to paste."""
    values = sorted(counts, key=lambda text: float(text.replace(",", ".")))
    listed = _with_counts({value: counts[value] for value in values})
    problem = f"{path}: column {column!r} has numbers, and nothing says what they mean: {listed}."
    if len(values) > 12:
        return FaceattrError(f"{problem}\nCut them into classes: data.bins=[30,50] data.classes=[young,middle,old]")
    gender = re.search("gender|sex", column, re.IGNORECASE) and len(values) == 2
    names = classes if len(classes) == len(values) else ["male", "female"] if gender else [f"class_{v}" for v in values]
    example = ", ".join(f"{value}: {name}" for value, name in zip(values, names, strict=True))
    advice = " or the other way round: data sets differ" if gender else ", with your names"
    look = f"faceattr preview with data.classes=[{','.join(values)}] shows images of each number."
    return FaceattrError(f"{problem}\nSay it with '{key}={{{example}}}'{advice}. {look}")


def _with_counts(counts: Mapping[str, int]) -> str:
    """The first ten values with their counts."""
    return listed(f"{value[:40]} ({n:,})" for value, n in counts.items())


def yes_or_no(path: Path, frame: pd.DataFrame, names: list[str], unknown: str) -> tuple[pd.DataFrame, str]:
    """1, 0 or nan (not known) for each cell of the columns `names`, and a sentence that says what 0 and -1 mean.

    Raises FaceattrError: a cell that is neither yes, no nor a missing marker.
    """
    cells = frame[names].map(lambda cell: plain(cell).lower())
    words, values = (cells.map(meaning.get).astype(float) for meaning in (WORDS, CODES))
    for name in names:
        invalid = ~cells[name].isin([*WORDS, *CODES, *MISSING])
        if invalid.any():
            raise cell_errors(path, frame[name], invalid, "1, 0, -1, yes, no, true, false or empty")
    others = [column for column in frame if column not in names]
    coded = [c for c in others if frame[c].isin(["-1", "0", "1", ""]).all()]
    present = {code for column in coded for code in frame[column].unique()} & {"-1", "0", "1"}
    present |= {str(int(value)) for value in np.unique(values.to_numpy()) if not np.isnan(value)}
    codes, note = known_codes(values, present, unknown, where=Path(path).name)
    return codes.where(words.isna(), words), note


def known_codes(values: pd.DataFrame, present: set[str], unknown: str, *, where: str) -> tuple[pd.DataFrame, str]:
    """`values` of 1, 0, -1 and nan as 1, 0 and nan (not known), and a sentence that says what was decided.

    present: the codes that occur in the file.
    """
    code = unknown if unknown != "auto" else "0" if present >= {"-1", "0", "1"} else "none"
    no = [int(negative) for negative in ("0", "-1") if negative in present and negative != code]
    decided = (
        values.mask(values.isin(no), 0.0)
        if code == "none"
        else values.mask(values == int(code)).mask(values.isin(no), 0.0)
    )
    how = "because -1, 0 and 1 all occur" if unknown == "auto" else f"data.unknown={unknown}"
    no_text = " and ".join(map(str, no)) or "empty"
    text = f"{where}: 1 means yes, {no_text} no" + (f", {code} not known ({how})" if code != "none" else "")
    (log.warning if code != "none" and unknown == "auto" else log.info)("%s", text)
    return decided, text
