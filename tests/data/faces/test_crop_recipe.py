"""The recipe: which face stands for an image, and in which order faces are read."""

import pytest

from faceattr.config.schema import Faces
from faceattr.data.faces.crop_recipe import WHOLE_IMAGE, FaceRecipe, check_one_face, large_enough, pick, reading_order
from faceattr.data.faces.detect import Face
from faceattr.data.faces.detector_file import SHA256
from faceattr.errors import FaceattrError


def face(x: float, y: float, side: float = 20, score: float = 0.9) -> Face:
    return Face(x, y, side, side, ((0.0, 0.0),) * 5, score)


LARGE, CENTRAL, CERTAIN = face(0, 0, side=40, score=0.7), face(45, 45, side=10, score=0.8), face(80, 0, side=20)
FACES = [LARGE, CENTRAL, CERTAIN]


def test_from_config_none_has_one_recipe():
    assert FaceRecipe.from_config(Faces(margin=0.3, min_size=3)) == WHOLE_IMAGE
    recipe = FaceRecipe.from_config(Faces(mode="align", margin=0.3, pick="central", on_none="skip", weights="x"))
    assert (recipe.mode, recipe.margin, recipe.pick, recipe.on_none, recipe.detector) == (
        "align",
        0.3,
        "central",
        "skip",
        SHA256,
    )


@pytest.mark.parametrize(("how", "expected"), [("largest", LARGE), ("central", CENTRAL), ("certain", CERTAIN)])
def test_pick_takes_one_face(how, expected):
    assert pick(FACES, FaceRecipe("align", pick=how), 100, 100) is expected


def test_pick_ignores_faces_below_the_least_size():
    assert large_enough(FACES, FaceRecipe("align", min_size=20)) == [LARGE, CERTAIN]
    assert pick(FACES, FaceRecipe("align", min_size=41), 100, 100) is None
    assert pick([], FaceRecipe("align"), 100, 100) is None


def test_check_one_face_refuses_all():
    check_one_face(FaceRecipe("align", pick="certain"))
    with pytest.raises(FaceattrError, match=r"faces\.pick=all is for prediction"):
        check_one_face(FaceRecipe("align", pick="all"))


def test_every_face_and_search_leave_another_crop_the_detections():
    assert FaceRecipe("align", margin=0.2, min_size=30).search == FaceRecipe("square").search
    assert FaceRecipe("align", pick="central").search != FaceRecipe("align").search
    assert FaceRecipe("align", min_score=0.8).search != FaceRecipe("align").search


def test_reading_order_goes_by_rows():
    first, second, third, fourth = face(5, 12), face(50, 8), face(0, 60), face(90, 66)
    assert reading_order([fourth, second, third, first]) == [first, second, third, fourth]
