"""Batches and rows of answers: every subject once, in order, whatever the batch, and the columns that rows have."""

import numpy as np
import pytest

from faceattr.data.faces.detect import Face
from faceattr.data.photo_reader import NO_FACE, Subject
from faceattr.errors import FaceattrError
from faceattr.training.prediction_rows import RowFormat, SubjectBatches

FACE = Face(1.004, 2, 30, 40, tuple((float(i), float(i + 1)) for i in range(5)), 0.87654)


def subject(place: int, value: int | None) -> Subject:
    """With pixels of one value, brighter on the left; None: unreadable."""
    if value is None:
        return Subject(place, reason="broken")
    pixels = np.full((2, 2, 3), value, np.uint8)
    pixels[:, 0] += 10
    return Subject(place, pixels=pixels)


def left(batch: np.ndarray) -> np.ndarray:
    """The network of these tests: the brightness of the left pixel, and 1."""
    return np.stack([batch[:, 0, 0, 0], np.ones(len(batch))], 1).astype(np.float32)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 10])
@pytest.mark.parametrize("ahead", [False, True])
def test_subject_batches_hands_on_every_subject_with_its_scores_in_order(batch_size, ahead):
    values = [None, 1, 2, None, 3, 4, 5, None, None]
    received = []
    subjects = SubjectBatches(
        [subject(place, value) for place, value in enumerate(values)], batch_size, received.extend
    )
    waiting = []
    for batch in subjects.batches():  # as Lightning does it, which takes the next batch before it runs one
        waiting.append(batch)
        if len(waiting) > ahead:
            subjects.add(left(waiting.pop(0)))
    for batch in waiting:
        subjects.add(left(batch))
    subjects.finish()
    assert [subject.source for subject, _ in received] == list(range(9))
    assert [None if scores is None else scores[0] - 10 for _, scores in received] == values


def test_subject_batches_closed_early_closes_its_subjects():
    closed = []

    def read():
        try:
            yield from (subject(number, number) for number in range(9))
        finally:
            closed.append(True)

    reader = read()  # held here, as by a traceback
    batches = SubjectBatches(reader, 2, lambda part: None).batches()
    next(batches)
    batches.close()
    assert closed == [True]


def test_subject_batches_receives_as_soon_as_it_can():
    received = []
    subjects = SubjectBatches(
        [subject(place, value) for place, value in enumerate([1, None, 2, 3])], 2, received.extend
    )
    batches = subjects.batches()
    subjects.add(left(next(batches)))
    assert [subject.source for subject, _ in received] == [0, 1, 2]


def test_subject_batches_mirror_is_the_mean_of_both_views():
    received = []
    subjects = SubjectBatches([subject(0, 1), subject(1, 5)], 2, received.extend, mirror=True)
    for batch in subjects.batches():
        assert batch.shape == (4, 2, 2, 3)
        subjects.add(left(batch))
    assert [scores[0] for _, scores in received] == [(11 + 1) / 2, (15 + 5) / 2]


def test_row_format_has_the_columns_that_are_asked_for():
    whole = RowFormat(["a", "b"], False)
    assert whole.columns == ["path", "predicted", "probability_a", "probability_b"]
    faces = RowFormat(["a"], False, faces=True, times=True, reasons=True)
    assert faces.columns[:9] == ["path", "time", "face", "predicted", "probability_a", "x", "y", "width", "height"]
    assert faces.columns[9:12] == ["score", "left_eye_x", "left_eye_y"] and faces.columns[-1] == "reason"


def test_row_format_rows_have_a_value_for_each_column():
    rows = RowFormat(["a", "b"], False, faces=True, times=True, reasons=True)
    row = dict(zip(rows.columns, rows.row("x.mp4", Subject(0, 1.5, 2, FACE), np.float32([0.25, 0.75])), strict=True))
    assert (row["path"], row["time"], row["face"], row["predicted"]) == ("x.mp4", 1.5, 2, "b")
    assert (row["x"], row["height"], row["score"], row["nose_x"], row["reason"]) == (1.0, 40, 0.8765, 2.0, None)
    row = dict(zip(rows.columns, rows.row("x.jpg", Subject(0, reason=NO_FACE), None), strict=True))
    assert row.pop("path") == "x.jpg" and row.pop("reason") == NO_FACE and set(row.values()) == {None}


def test_row_format_abstains_below_the_probability():
    rows = RowFormat(["a", "b"], False, abstain=0.75)
    assert [rows.predicted(np.float32(p)) for p in ([0.2, 0.8], [0.75, 0.25], [0.3, 0.7])] == ["b", "a", "uncertain"]
    assert rows.caption(np.float32([0.3, 0.7])) == "uncertain 0.70"
    with pytest.raises(FaceattrError, match="attributes"):
        RowFormat(["a", "b"], True, abstain=0.75)
    with pytest.raises(FaceattrError, match="class named uncertain"):
        RowFormat(["a", "uncertain"], False, abstain=0.75)


def test_row_format_lists_the_attributes_that_are_there():
    rows = RowFormat(["Male", "Smiling"], True)
    assert [rows.predicted(np.float32(p)) for p in ([0.6, 0.9], [0.1, 0.2])] == ["Male, Smiling", ""]
    assert rows.caption(np.float32([0.1, 0.2])) == "none"
