"""The detector's file: given, cached or downloaded, and never another one than expected. No file of the real one is needed."""

import hashlib

import pytest

from faceattr.data.faces import detector_file
from faceattr.errors import FaceattrError

CONTENT = b"a detector"


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A file with the expected sum, a cache of its own, and the model zoo as that file's address."""
    monkeypatch.setenv("FACEATTR_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "zoo.onnx"
    file.write_bytes(CONTENT)
    monkeypatch.setattr(detector_file, "SHA256", hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setattr(detector_file, "URL", file.as_uri())
    return file


def test_detector_file_given_is_used_and_found_later_without_being_given(source):
    assert detector_file.detector_file(str(source)) == source
    source.unlink()
    assert detector_file.detector_file().read_bytes() == CONTENT


def test_detector_file_is_downloaded_once(source):
    assert detector_file.detector_file() == detector_file.cached_file()
    source.unlink()
    assert detector_file.detector_file().read_bytes() == CONTENT


def test_detector_file_damaged_in_the_cache_is_downloaded_again(source):
    detector_file.detector_file()
    detector_file.cached_file().write_bytes(CONTENT[:5])
    assert detector_file.detector_file().read_bytes() == CONTENT


def test_detector_file_without_network_says_where_to_get_it_and_where_to_put_it(source):
    source.unlink()
    with pytest.raises(FaceattrError) as refused:
        detector_file.detector_file()
    for part in (source.as_uri(), detector_file.SHA256, "faces.weights=FILE", str(detector_file.cached_file())):
        assert part in str(refused.value)
    assert "\n" not in str(refused.value) and not detector_file.cached_file().exists()


@pytest.mark.parametrize("content", [CONTENT[:5], b"another model"])
def test_detector_file_given_damaged_or_another_is_refused(source, tmp_path, content):
    wrong = tmp_path / "wrong.onnx"
    wrong.write_bytes(content)
    with pytest.raises(FaceattrError, match=f"faces.weights={wrong}: damaged, or another model"):
        detector_file.detector_file(str(wrong))
    source.write_bytes(content)
    with pytest.raises(FaceattrError, match="gives another file than expected"):
        detector_file.detector_file()
    assert not detector_file.cached_file().exists()


def test_detector_file_given_absent_is_refused(source, tmp_path):
    with pytest.raises(FaceattrError, match="no such file"):
        detector_file.detector_file(str(tmp_path / "absent.onnx"))


def test_the_expected_file_is_the_one_of_the_model_zoo(weights):
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == detector_file.SHA256
    assert detector_file.URL.endswith(detector_file.NAME)
