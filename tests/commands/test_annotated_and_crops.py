"""The pictures beside predictions.csv are written while the network works."""

import numpy as np
import pytest
from PIL import Image

from faceattr.commands import annotated_and_crops
from faceattr.commands.annotated_and_crops import Pictures
from faceattr.data.decode import InputSpec
from faceattr.data.photo_reader import SubjectReader


def test_pictures_say_at_once_that_they_cannot_be_written(tmp_path, monkeypatch):
    """Not after the last of a million images."""
    monkeypatch.setattr(annotated_and_crops, "AHEAD", 0)
    file = tmp_path / "1.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file)
    reader = SubjectReader([file], InputSpec(8, 8, "bilinear", "unit"))
    (subject,) = reader
    pictures = Pictures(tmp_path / "out", reader, annotated=False, crops=True)
    try:
        pictures.add(str(file), subject, "")
        assert (tmp_path / "out" / "crops" / "1.png.png").exists()
        (tmp_path / "out" / "crops" / "1.png.png").unlink()
        (tmp_path / "out" / "crops" / "1.png.png").mkdir()
        with pytest.raises(OSError, match="directory"):
            pictures.add(str(file), subject, "")
    finally:
        pictures.close(finish=False)
