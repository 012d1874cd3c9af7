"""Decoding: every format and mode comes out as upright RGB at the network's size, and nothing unreadable gets through."""

import ast
import os
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile
from PIL.PngImagePlugin import PngInfo

import faceattr
from faceattr.config.key_annotation import declared_keys
from faceattr.config.schema import Model
from faceattr.data.decode import InputSpec, UnreadableImage, decode, read, read_many
from faceattr.data.image_files import FORMATS

BLOCKS = np.kron(  # 16 rows x 24 columns of flat 8x8 blocks, all different: survives JPEG, shows any turn
    np.array(
        [[[250, 10, 10], [10, 240, 10], [10, 10, 250]], [[250, 250, 20], [128, 128, 128], [20, 20, 20]]], np.uint8
    ),
    np.ones((8, 8, 1), np.uint8),
)
NOISE = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
WHITE = [255, 255, 255]
INTERPOLATIONS = declared_keys(Model)["interpolation"].key.choices


def pixels(path: Path) -> np.ndarray:
    image = decode(path)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def saved(path: Path, array: np.ndarray, mode: str | None = None, **options: object) -> Path:
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def write_png(path: Path, header: tuple[int, int, int, int], rows: bytes) -> Path:
    """A PNG as the standard says, in modes that Pillow cannot write: `header` is width, height, bit depth, colour type."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *header, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("x.png", {}),
        ("x.bmp", {}),
        ("x.webp", {"lossless": True}),
        ("x.jpg", {"quality": 95, "subsampling": 0}),
        ("progressive.JPEG", {"quality": 95, "subsampling": 0, "progressive": True}),
        ("png_called.jpg", {"format": "PNG"}),
    ],
)
def test_decode_gives_the_pixels_of_each_format(tmp_path, name, options):
    decoded = pixels(saved(tmp_path / name, BLOCKS, **options))
    assert decoded.shape == BLOCKS.shape
    assert np.abs(decoded - BLOCKS).max() <= (8 if options.get("quality") else 0)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
def test_decode_greyscale_gives_three_equal_channels(tmp_path, suffix):
    grey = np.kron(np.array([[0, 90], [180, 255]], np.uint8), np.ones((8, 8), np.uint8))
    decoded = pixels(saved(tmp_path / f"x.{suffix}", grey))
    assert (decoded == decoded[..., :1]).all()
    assert np.abs(decoded[..., 0] - grey).max() <= 2


def test_decode_one_bit_gives_black_and_white(tmp_path):
    bits = np.array([[True, False, True], [False, False, True]])
    for suffix in ("png", "bmp"):
        decoded = pixels(saved(tmp_path / f"x.{suffix}", bits))
        assert (decoded == bits[..., None] * 255).all()


def test_decode_palette_gives_its_colours(tmp_path):
    palette = Image.fromarray(BLOCKS).quantize(6)
    for suffix in ("png", "bmp"):
        palette.save(tmp_path / f"x.{suffix}")
        with Image.open(tmp_path / f"x.{suffix}") as stored:
            assert stored.mode == "P"
        assert (pixels(tmp_path / f"x.{suffix}") == np.asarray(palette.convert("RGB"))).all()


def test_decode_palette_transparency_is_white(tmp_path):
    image = Image.new("P", (4, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2, 1])
    image.save(tmp_path / "index.png", transparency=1)
    assert pixels(tmp_path / "index.png").tolist() == [[[255, 0, 0], WHITE, [0, 0, 255], WHITE]]
    image.save(tmp_path / "alphas.png", transparency=bytes([255, 0, 51]))  # blue at a fifth
    assert pixels(tmp_path / "alphas.png").tolist() == [[[255, 0, 0], WHITE, [204, 204, 255], WHITE]]


@pytest.mark.parametrize(("mode", "suffix"), [("RGBA", "png"), ("RGBA", "webp"), ("LA", "png")])
def test_decode_blends_alpha_with_white(tmp_path, mode, suffix):
    alpha = np.array([[0, 51, 128, 255]], np.uint8)
    colour = np.array([[[200, 100, 0]]], np.uint8) if mode == "RGBA" else np.array([[[60, 60, 60]]], np.uint8)
    stored = np.concatenate([np.repeat(colour, 4, 1)[..., : len(mode) - 1], alpha[..., None]], 2)
    options = {"lossless": True, "exact": True} if suffix == "webp" else {}
    decoded = pixels(saved(tmp_path / f"x.{suffix}", stored, **options))
    expected = 255 + (colour.astype(float) - 255) * alpha[..., None] / 255
    assert decoded[0, 0].tolist() == WHITE
    assert np.abs(decoded - expected).max() <= 1


def test_decode_transparent_colour_is_white(tmp_path):
    rgb = np.array([[[1, 2, 3], [9, 8, 7]]], np.uint8)
    assert pixels(saved(tmp_path / "rgb.png", rgb, transparency=(1, 2, 3))).tolist() == [[WHITE, [9, 8, 7]]]
    grey = np.array([[5, 6]], np.uint8)
    assert pixels(saved(tmp_path / "grey.png", grey, transparency=5)).tolist() == [[WHITE, [6, 6, 6]]]


def test_decode_cmyk_gives_its_colours(tmp_path):
    path = saved(tmp_path / "x.jpg", BLOCKS, "CMYK", quality=95, subsampling=0)
    with Image.open(path) as stored:
        assert stored.mode == "CMYK"
    assert np.abs(pixels(path) - BLOCKS).max() <= 12


def test_decode_scales_16_bit_grey(tmp_path):
    values = np.array([[0, 256, 257, 128 * 257, 255 * 257]], np.uint16)
    decoded = pixels(saved(tmp_path / "x.png", values))
    assert decoded[0, :, 0].tolist() == [0, 1, 1, 128, 255]
    assert (decoded == decoded[..., :1]).all()


def test_decode_scales_16_bit_colour(tmp_path):
    values = np.array([[[0, 128 * 257, 65535], [300, 40_000, 20_000]]], ">u2")
    path = write_png(tmp_path / "x.png", (2, 1, 16, 2), b"\0" + values.tobytes())
    assert np.abs(pixels(path) - values.astype(float) / 257).max() <= 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 255]], np.uint16), [0, 255]),  # 8 bits in 16
        (np.array([[0, 2048, 4095]], np.uint16), [0, 128, 255]),  # 12 bits in 16
        (np.array([[0, 1, 1]], np.uint16), [0, 255, 255]),  # 1 bit in 16
        (np.array([[0, 8192, 16383]], np.uint16), [0, 128, 255]),
        (np.array([[0, 128, 255]], np.int32), [0, 128, 255]),
        (np.array([[0, 65535]], np.int32), [0, 255]),
        (np.array([[0, 0.5, 1]], np.float32), [0, 128, 255]),
        (np.array([[0.6, 128.2, 255]], np.float32), [1, 128, 255]),
    ],
)
def test_decode_scales_grey_values_by_their_own_range(tmp_path, values, expected):
    saved(tmp_path / "x.tif", values)
    assert pixels(tmp_path / "x.tif")[0, :, 0].tolist() == expected


@pytest.mark.parametrize(
    "values",
    [
        np.array([[-1, 200]], np.int32),
        np.array([[0, 70_000]], np.int32),
        np.array([[0, 1e9]], np.float32),
        np.array([[-0.5, 0.5]], np.float32),
        np.array([[np.nan, 0.5]], np.float32),
    ],
)
def test_decode_refuses_values_of_unknown_scale(tmp_path, values):
    with pytest.raises(UnreadableImage, match=r"values from .* expected 0 to"):
        decode(saved(tmp_path / "x.tif", values))


def test_decode_refuses_12_bits_in_16_bit_colour(tmp_path):
    values = np.array([[[0, 100, 4095], [300, 4000, 2000]]], ">u2")
    with pytest.raises(UnreadableImage, match="16 bits for each colour, of which 12 are used"):
        decode(write_png(tmp_path / "x.png", (2, 1, 16, 2), b"\0" + values.tobytes()))
    black = write_png(tmp_path / "black.png", (1, 1, 16, 2), bytes(7))
    assert pixels(black).max() == 0


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_decode_turns_every_exif_orientation_upright(tmp_path, suffix):
    across = BLOCKS.swapaxes(0, 1)
    stored = {  # EXIF 2.3, tag 0x112: where the stored row 0 and column 0 are in the upright picture
        1: BLOCKS,
        2: BLOCKS[:, ::-1],
        3: BLOCKS[::-1, ::-1],
        4: BLOCKS[::-1],
        5: across,
        6: across[::-1],
        7: across[::-1, ::-1],
        8: across[:, ::-1],
    }
    for orientation, array in stored.items():
        exif = Image.Exif()
        exif[0x112] = orientation
        path = saved(tmp_path / f"{orientation}.{suffix}", array, exif=exif, quality=95, **_exact(suffix))
        decoded = pixels(path)
        assert decoded.shape == BLOCKS.shape, orientation
        assert np.abs(decoded - BLOCKS).max() <= (8 if suffix == "jpg" else 0), orientation


def _exact(suffix: str) -> dict[str, object]:
    return {"jpg": {"subsampling": 0}, "png": {}, "webp": {"lossless": True}}[suffix]


@pytest.mark.parametrize(("typ", "count"), [(2, 1), (5, 1), (12, 1), (3, 40_000)])
def test_decode_accepts_unusual_exif(tmp_path, typ, count):
    """Orientation 6 beside an image width (tag 0x100) of a type or a length that no camera should write."""
    entries = struct.pack("<HHII", 0x100, typ, count, 50) + struct.pack("<HHIHH", 0x112, 3, 1, 6, 0)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + bytes(64)
    path = saved(tmp_path / "x.jpg", BLOCKS, exif=exif)
    assert decode(path).size == (16, 24)


def test_decode_accepts_unreadable_exif(tmp_path):
    info = PngInfo()
    info.add_text("Raw profile type exif", "\nexif\n    2\nno hex")
    path = saved(tmp_path / "x.png", BLOCKS, pnginfo=info)
    with Image.open(path) as stored, pytest.raises(ValueError, match="hex"):
        stored.getexif()
    assert (pixels(path) == BLOCKS).all()


def test_decode_ignores_icc_profiles(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert (pixels(saved(tmp_path / "x.png", NOISE, icc_profile=profile)) == NOISE).all()


def test_read_resizes_as_the_spec_says():
    """A wide image: a red third, a green one, a blue one."""
    image = np.zeros((20, 60, 3), np.uint8)
    for part in range(3):
        image[:, 20 * part : 20 * part + 20, part] = 255
    spec = InputSpec(30, 30, "nearest", "unit")
    stretched, cropped, boxed = (read(image, replace(spec, resize=how)) for how in ("stretch", "crop", "letterbox"))
    assert [tuple(stretched[15, x]) for x in (5, 15, 25)] == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    assert (cropped == (0, 255, 0)).all() and cropped.shape == (30, 30, 3)
    assert (boxed[10:20] == stretched[10:20]).all() and (boxed[:10] == 114).all() and (boxed[20:] == 114).all()


@pytest.mark.parametrize("how", ["stretch", "crop", "letterbox"])
def test_read_resizes_an_image_of_the_inputs_shape_alike(how):
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    spec = InputSpec(20, 30, "bilinear", "unit")
    assert np.array_equal(read(image, replace(spec, resize=how)), read(image, spec))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "gif", "tif", "avif"])
@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_decode_refuses_truncated_files(tmp_path, suffix, share):
    path = saved(tmp_path / f"x.{suffix}", NOISE)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UnreadableImage, match=r"\w"):
        decode(path)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_decode_takes_the_bytes_of_a_file_as_the_file(tmp_path, suffix):
    file = tmp_path / f"x.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)).save(file)
    content = file.read_bytes()
    assert np.array_equal(np.asarray(decode(content)), np.asarray(decode(file)))
    with pytest.raises(UnreadableImage):
        decode(content[: int(0.95 * len(content))] + b"\xff\xd9")
    with pytest.raises(UnreadableImage, match="not an image file: it is a PDF document"):
        decode(b"%PDF-1.7")


def test_decode_gives_a_reason_for_what_is_no_image(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.png").write_text("path,label\n1.jpg,male\n")
    (tmp_path / "folder.jpg").mkdir()
    corrupt = saved(tmp_path / "corrupt.png", NOISE)
    corrupt.write_bytes(corrupt.read_bytes()[:-60] + bytes(60))
    reasons = {
        "empty.jpg": "not an image file: it is empty",
        "text.png": "not an image file: it is text",
        "folder.jpg": "directory",
        "missing.jpg": "No such file",
        "corrupt.png": r"\w",
    }
    for name, reason in reasons.items():
        with pytest.raises(UnreadableImage, match=reason):
            decode(tmp_path / name)


@pytest.mark.parametrize("name", ["eps.jpg", "x.psd", "x.ico", "x.pcx", "x.tga", "x.jp2"])
def test_decode_refuses_formats_that_are_not_meant(tmp_path, name):
    """PostScript under another suffix started Ghostscript."""
    if name == "eps.jpg":
        (tmp_path / name).write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    elif name == "x.psd":
        (tmp_path / name).write_bytes(b"8BPS\0\1" + bytes(6) + b"\0\3\0\0\0\1\0\0\0\1\0\x08\0\3" + bytes(40))
    else:
        saved(tmp_path / name, NOISE)
    with pytest.raises(UnreadableImage, match="not an image file"):
        decode(tmp_path / name)


def test_no_other_place_opens_images():
    """With `Image.open`, that is; a file of any of Pillow's formats would come in there."""
    package = Path(faceattr.__file__).parent
    calls = (
        (f, node.func)
        for f in package.rglob("*.py")
        for node in ast.walk(ast.parse(f.read_text("utf-8")))
        if isinstance(node, ast.Call)
    )
    opening = {f.relative_to(package).as_posix() for f, function in calls if ast.unparse(function) == "Image.open"}
    assert sorted(opening) == ["data/damaged_images.py", "data/decode.py"]
    assert "EPS" not in FORMATS


def test_decode_refuses_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "x.jpg")
    with pytest.raises(UnreadableImage, match="a pipe or a device"):
        decode(tmp_path / "x.jpg")


def test_decode_refuses_a_decompression_bomb_before_decoding(tmp_path, monkeypatch):
    """A whole file of 50 kB that unpacks to 1.2 GB of RGB."""
    side = 20_000
    path = write_png(tmp_path / "bomb.png", (side, side, 1, 0), bytes((side // 8 + 1) * side))
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("it is decoded"))
    with pytest.raises(UnreadableImage, match=r"20000x20000 pixels; the limit is 64,000,000"):
        decode(path)


def test_read_gives_height_by_width(tmp_path):
    left_red = np.zeros((20, 20, 3), np.uint8)
    left_red[:, :10, 0] = 255
    decoded = read(saved(tmp_path / "x.png", left_red), InputSpec(6, 10, "bilinear", "unit"))
    assert decoded.shape == (6, 10, 3)
    assert decoded.dtype == np.uint8
    assert (decoded[:, :4, 0] == 255).all()
    assert (decoded[:, 6:, 0] == 0).all()


@pytest.mark.parametrize("mode", INTERPOLATIONS)
def test_read_interpolates_as_pillow_does(tmp_path, mode):
    path = saved(tmp_path / "x.png", NOISE)
    expected = Image.fromarray(NOISE).resize((10, 6), Image.Resampling[mode.upper()])
    assert (read(path, InputSpec(6, 10, mode, "unit")) == np.asarray(expected)).all()


def test_read_interpolations_differ(tmp_path):
    path = saved(tmp_path / "x.png", NOISE)
    results = {read(path, InputSpec(6, 10, mode, "unit")).tobytes() for mode in INTERPOLATIONS}
    assert len(results) == len(INTERPOLATIONS)


def test_read_does_not_resample_an_image_of_the_right_size(tmp_path):
    assert (read(saved(tmp_path / "x.png", NOISE), InputSpec(40, 30, "bicubic", "unit")) == NOISE).all()


def test_read_many_equals_read_and_lists_unreadable_images(tmp_path, monkeypatch):
    monkeypatch.setattr("faceattr.data.decode.BLOCK", 2)
    spec = InputSpec(5, 7, "bilinear", "unit")
    rng = np.random.default_rng(1)
    paths = [str(saved(tmp_path / f"{i}.png", rng.integers(0, 256, (9 + i, 14, 3), dtype=np.uint8))) for i in range(17)]
    Path(paths[3]).write_text("no image")
    Path(paths[16]).unlink()
    out = np.zeros((17, 5, 7, 3), np.uint8)
    bad = read_many(paths, spec, out, workers=4, label="")
    assert list(bad) == [3, 16]
    assert bad[3] == "not an image file: it is text"
    assert "No such file" in bad[16]
    for row, path in enumerate(paths):
        assert (out[row] == (0 if row in bad else read(path, spec))).all(), row
    assert out[[0, 15]].any((1, 2, 3)).all()
    assert read_many(paths, spec, None, workers=1, label="") == bad
