"""What the texts and codes of real label files mean: never assumed, always said."""

import logging

import pandas as pd
import pytest

from faceattr.data.sources.labels import fold, to_classes, yes_or_no
from faceattr.errors import FaceattrError

MALE = "male"


def classes_of(*values: str, label_map=None, classes=None, column="Gender", path=None) -> list:
    labels = to_classes(pd.Series(values, name=column, dtype=object), label_map, classes, path=path)
    return [None if pd.isna(label) else label for label in labels]


@pytest.mark.parametrize("values", [("0", "1"), ("1.0", "0.0"), ("1", "2"), ("-1", "1")])
@pytest.mark.parametrize("column", ["Gender", "smiling"])
def test_to_classes_refuses_bare_numbers_with_a_map_to_paste(values, column):
    with pytest.raises(FaceattrError) as error:
        classes_of(*values, values[0], column=column)
    message = str(error.value)
    assert "nothing says what they mean" in message and "(2)" in message and "'data.label_map={" in message
    assert ("male" in message) == (column == "Gender")


def test_to_classes_takes_numbers_that_are_explained():
    assert classes_of("1.0", "0", "", label_map={0: "female", 1: MALE}) == [MALE, "female", None]
    assert classes_of("1.0", "0", classes=["0", "1"]) == ["1", "0"]
    assert classes_of("0", "7", label_map={0: MALE}) == [MALE, "7"]  # the check of the table reports it


def test_to_classes_suggests_bins_for_many_numbers():
    with pytest.raises(FaceattrError, match=r"data\.bins=\[30,50\]"):
        classes_of(*map(str, range(40)), column="age")


def test_to_classes_takes_missing_markers_for_no_label(caplog):
    with caplog.at_level(logging.WARNING):
        found = classes_of("m", "f", "u", "NA", "None", "nan", "N/A", "?", "")
    assert found == ["m", "f"] + [None] * 7
    assert "no label: u (1), NA (1), None (1)" in caplog.text
    assert classes_of("none", "glasses", classes=["none", "glasses"]) == ["none", "glasses"]


def test_to_classes_joins_spellings_and_says_so(caplog):
    with caplog.at_level(logging.WARNING):
        found = classes_of("male", "MALE", "male", " Female", "female", "female", "old  man", "old man", "old man")
    assert found == [MALE] * 3 + ["female"] * 3 + ["old man"] * 3
    assert "male (2), MALE (1)" in caplog.text
    assert classes_of("Male", "FEMALE", classes=[MALE, "female"]) == [MALE, "female"]
    assert classes_of("homme âgé".encode().decode(), "homme a\u0302ge\u0301", "x") == ["homme âgé"] * 2 + ["x"]


def test_to_classes_joins_what_differs_in_blanks_or_a_sign_at_the_end():
    assert classes_of("(25, 32)", "(25,32)", "(25, 32)", "old", "old.", "o ld", "old") == ["(25, 32)"] * 3 + ["old"] * 4
    assert classes_of("more than 70", "morethan70", classes=["0-2", "more than 70"]) == ["more than 70"] * 2


@pytest.mark.parametrize("values", [("male", "0"), ("0", "1", "female"), ("(25, 32)", "35")])
def test_to_classes_refuses_numbers_beside_words(values):
    with pytest.raises(
        FaceattrError, match=r"numbers beside words: [^0-9].*Say what they mean with data\.label_map.*data\.bins"
    ):
        classes_of(*values)
    assert classes_of(*values, classes=list(values)) == list(values)


def test_to_classes_refuses_an_abbreviation_beside_the_word():
    with pytest.raises(FaceattrError, match=r"Does 'F' mean 'Female'\? .*label_map=\{F: Female\}"):
        classes_of("male", "F", "Female")
    assert classes_of("male", "F", "Female", label_map={"F": "Female"}) == ["male", "Female", "Female"]


def test_to_classes_says_what_looks_like_a_date(caplog):
    with caplog.at_level(logging.WARNING):
        classes_of("03-Sep", "0-2", "10-19", "Sep-03")
    assert "look like dates: 03-Sep (1), Sep-03 (1)" in caplog.text


def test_to_classes_refuses_ten_thousand_classes_in_few_words():
    with pytest.raises(FaceattrError, match="10,000 different values") as error:
        classes_of(*(f"person {i}" for i in range(10_000)))
    assert len(str(error.value)) < 400


def attributes(text: str, unknown: str = "auto", names=("Male", "Young")):
    rows = [row.split(",") for row in text.split()]
    frame = pd.DataFrame(rows, columns=["Male", "Young", "Hat"], index=pd.RangeIndex(2, 2 + len(rows), name="line"))
    values, note = yes_or_no("x.csv", frame, list(names), unknown)
    return values.fillna(9).astype(int).to_numpy().tolist(), note


def test_yes_or_no_decides_by_what_the_file_holds():
    assert attributes("1,0,1 0,1,0")[0] == [[1, 0], [0, 1]]
    assert attributes("1,-1,1 -1,1,-1")[0] == [[1, 0], [0, 1]]
    found, note = attributes("1,-1,1 0,1,-1")
    assert found == [[1, 0], [9, 1]] and "0 not known (because -1, 0 and 1 all occur)" in note
    assert attributes("1,0,1 0,1,-1")[0] == [[1, 9], [9, 1]], "another column of the same file shows the code"
    assert attributes("1,0,1 0,1,-1", unknown="none")[0] == [[1, 0], [0, 1]]
    assert attributes("1,0,1 0,1,1", unknown="0")[0] == [[1, 9], [9, 1]]
    assert attributes("yes,no,x NA,,x")[0] == [[1, 0], [9, 9]]


def test_yes_or_no_gives_the_line_of_another_value():
    with pytest.raises(FaceattrError, match=r"1 cell of column 'Young', not 1, 0, .*: line 3: 'maybe'"):
        attributes("1,0,1 1,maybe,1")


def test_fold_ignores_what_cannot_be_seen():
    assert {fold(text) for text in ("Male", "male\u200b", "\ufeffmale ", "\u00a0MALE", "ｍａｌｅ")} == {"male"}
    assert fold("à") != fold("a")
