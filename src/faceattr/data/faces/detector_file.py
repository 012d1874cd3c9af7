"""Gets the file of the face detector: `faces.weights`, else the file in the cache, else a download from OpenCV's model zoo."""

import hashlib
import logging
from pathlib import Path

from faceattr.errors import FaceattrError
from faceattr.files import cache_folder, write_atomically

log = logging.getLogger(__name__)

NAME = "face_detection_yunet_2023mar.onnx"
SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
URL = f"https://github.com/opencv/opencv_zoo/raw/main/models/face_detection_yunet/{NAME}"
LARGEST = 10_000_000  # bytes that are read of a download
TIMEOUT = 10.0  # seconds to wait for the server


def detector_file(weights: str | None = None) -> Path:
    """The detector's file, its content checked against `SHA256`. `weights` is `faces.weights`; such a file is copied into the
    cache, so that later commands find it.

    Raises FaceattrError: a given file that is missing, damaged or another model; no file and no network.
    """
    cached = cached_file()
    if weights:
        file = Path(weights).expanduser()
        content = _read(file)
        if content is None:
            raise FaceattrError(f"faces.weights={file}: no such file, or it cannot be read.")
        if _sha256(content) != SHA256:
            raise FaceattrError(
                f"faces.weights={file}: damaged, or another model: its SHA-256 is {_sha256(content)}, that of {NAME} is {SHA256}."
            )
        if _read(cached) != content:
            _write(cached, content)
        return file
    if (content := _read(cached)) is not None and _sha256(content) == SHA256:
        return cached
    if content is not None:
        log.warning("%s is damaged; it is downloaded again", cached)
    _write(cached, _download(cached))
    return cached


def cached_file() -> Path:
    """Where the detector lies in the cache. `faceattr cache clear` does not remove it."""
    return cache_folder() / "detector" / NAME


def _read(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except OSError:
        return None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write(file: Path, content: bytes) -> None:
    """Writes the detector's file, in the cache."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(file) as stream:
            stream.write(content)
    except OSError as error:
        raise FaceattrError(
            f"Cannot write {file}: {error.strerror or error}. FACEATTR_CACHE names another folder."
        ) from error
    log.info("Face detector: stored in %s", file)


def _download(cached: Path) -> bytes:
    """The file from OpenCV's model zoo. Raises FaceattrError: no network, or a file with another checksum."""
    import urllib.request  # 40 ms, which only a download needs

    advice = f"Download this file elsewhere (its SHA-256 must be {SHA256}) and give faces.weights=FILE, or put it at {cached}"
    try:
        with urllib.request.urlopen(URL, timeout=TIMEOUT) as response:
            content: bytes = response.read(LARGEST)
    except Exception as error:  # urllib raises many kinds
        raise FaceattrError(f"The face detector cannot be downloaded from {URL} ({error}). {advice}") from error
    if _sha256(content) != SHA256:
        raise FaceattrError(f"{URL} gives another file than expected (SHA-256 {_sha256(content)}). {advice}")
    log.info("Face detector: downloaded from %s", URL)
    return content
