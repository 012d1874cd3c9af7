"""Damage that Pillow lets pass is found, and whole files pass."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceattr.data.damaged_images import jpeg_is_cut
from faceattr.data.decode import UnreadableImage, decode

EOI = b"\xff\xd9"
STYLES = {
    "baseline": {},
    "progressive": {"progressive": True},
    "restart": {"restart_marker_rows": 1},
    "subsampled": {"subsampling": 2},
}


def jpeg(mode: str = "RGB", seed: int = 0, **options: object) -> bytes:
    """Smooth colours with some noise, 60 x 45 pixels."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)).resize((60, 45), Image.Resampling.BICUBIC)
    noisy = np.asarray(coarse).astype(int) + rng.integers(-12, 13, (45, 60, 3))
    stream = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).convert(mode).save(stream, "JPEG", **options)
    return stream.getvalue()


def write(path: Path, raw: bytes) -> Path:
    path.write_bytes(raw)
    return path


def scan_start(raw: bytes) -> int:
    return raw.index(b"\xff\xda") + 14


@pytest.mark.parametrize("style", STYLES)
def test_decode_refuses_a_cut_jpeg_with_an_end_marker(tmp_path, style):
    """Pillow gives the rest of such a picture in grey, without a word."""
    raw = jpeg(**STYLES[style])
    start = scan_start(raw)
    for share in (0.1, 0.4, 0.7, 0.9):
        cut = raw[: start + int((len(raw) - start) * share)]
        with pytest.raises(UnreadableImage):
            decode(write(tmp_path / "x.jpg", cut + EOI))
        with pytest.raises(UnreadableImage):
            decode(write(tmp_path / "x.jpg", cut))


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_decode_accepts_whole_jpegs(tmp_path, style, mode):
    for seed in range(5):
        assert decode(write(tmp_path / "x.jpg", jpeg(mode, seed, **STYLES[style]))).size == (60, 45)


def test_decode_accepts_grey_corners_and_what_follows_the_data(tmp_path):
    grey = np.full((33, 47, 3), 128, np.uint8)
    grey[:10, :10] = (200, 30, 90)
    for name, options in STYLES.items():
        Image.fromarray(grey).save(tmp_path / f"{name}.jpg", quality=95, **options)
        decode(tmp_path / f"{name}.jpg")
    raw = jpeg()
    decode(write(tmp_path / "behind.jpg", raw + b"motion photo" + jpeg(seed=1)))
    decode(write(tmp_path / "padded.jpg", raw[:-2] + bytes(500)))


def test_jpeg_is_cut_where_no_scan_gives_a_part_of_the_picture():
    """A progressive file whose last scans are gone, with an end marker after the others: a whole picture, but a coarse one."""
    raw = jpeg(progressive=True)
    coarse = raw[: raw.rindex(b"\xff\xda")] + EOI
    for file, cut in ((raw, False), (coarse, True)):
        with Image.open(io.BytesIO(file)) as image:
            assert jpeg_is_cut(file, image) is cut


def test_jpeg_is_cut_where_the_picture_depends_on_what_follows():
    """Whether the same picture comes out is asked of the decoder; it may refuse the file with other data behind it."""
    raw = jpeg()
    grey = Image.new("RGB", (60, 45), (128, 128, 128))
    assert jpeg_is_cut(raw[: scan_start(raw) + 50], grey)
    header = raw[: raw.index(b"\xff\xda")].replace(b"\xff\xdb", b"\xff\xfe")  # without a table that it needs
    assert jpeg_is_cut(header + raw[raw.index(b"\xff\xda") :], grey)


def test_jpeg_is_cut_leaves_frames_that_it_does_not_know_to_the_decoder():
    raw = jpeg().replace(b"\xff\xc0", b"\xff\xc9")  # arithmetic-coded
    assert not jpeg_is_cut(raw[: scan_start(raw) + 50], Image.new("RGB", (60, 45), (128, 128, 128)))


def test_decode_refuses_a_png_whose_checksum_fails(tmp_path):
    """Pillow does not look at the checksum of the pixels' chunk."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(tmp_path / "x.png", compress_level=0)
    raw = bytearray((tmp_path / "x.png").read_bytes())
    raw[raw.index(b"IEND") - 6] ^= 1
    with Image.open(write(tmp_path / "x.png", bytes(raw))) as image:
        image.load()  # without a word
    with pytest.raises(UnreadableImage):
        decode(tmp_path / "x.png")


def test_decode_accepts_every_real_image(shared, tmp_path):
    """No false alarm; and of real files cut in the middle, all but a few are found."""
    files = sorted(shared("data", "celeba", "img_align_celeba").iterdir())[:60]
    files += sorted(shared("data", "faces", "Train").iterdir())[:120]
    missed = 0
    for file in files:
        decode(file)
        raw = file.read_bytes()
        start = raw.rindex(b"\xff\xda") + 14
        try:
            decode(write(tmp_path / "x.jpg", raw[: start + (len(raw) - start) * 3 // 5] + EOI))
        except UnreadableImage:
            continue
        missed += 1
    assert missed <= 2
