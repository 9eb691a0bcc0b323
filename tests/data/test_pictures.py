"""One picture: read right whatever its mode, and resized by the one rule."""

import gc
import io
import struct
import sys
import types
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps, features

from kanets.data import pictures
from kanets.data.pictures import (
    PictureError,
    PictureSize,
    center_box,
    fit_picture,
    read_picture,
)


def photo(height, width, seed=0):
    """A smooth random picture: noise, enlarged."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3))
    image = Image.fromarray(small.astype(np.uint8))
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def save(path, image, **kwargs):
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    image.save(path, **kwargs)
    return path


def test_png_is_read_exactly(tmp_path):
    image = photo(13, 29)
    read = read_picture(save(tmp_path / "a.png", image))
    assert read.dtype == np.uint8 and read.flags.c_contiguous
    np.testing.assert_array_equal(read, image)


def test_suffix_does_not_matter(tmp_path):
    image = photo(13, 29)
    save(tmp_path / "a.png", image).rename(tmp_path / "a.jpg")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.jpg"), image)


def test_open_file(tmp_path):
    data = save(tmp_path / "a.png", photo(5, 7)).read_bytes()
    assert read_picture(io.BytesIO(data)).shape == (5, 7, 3)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("size", [(37, 61), (32, 32), (160, 91)])
def test_jpeg_matches_tensorflow(tmp_path, size, subsampling):
    import tensorflow as tf

    path = tmp_path / "a.jpg"
    save(path, photo(*size), quality=90, subsampling=subsampling)
    theirs = tf.io.decode_jpeg(
        path.read_bytes(), channels=3, dct_method="INTEGER_ACCURATE"
    )
    np.testing.assert_array_equal(read_picture(path), theirs)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["tif", "webp", "jpg"])
def test_exif_orientation(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    save(path, photo(11, 19), exif=exif)
    with Image.open(path) as image:
        image.load()
        upright = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(read_picture(path), upright)
    assert upright.shape[:2] == ((11, 19) if orientation < 5 else (19, 11))


def test_what_an_export_does_not_read_does_not_turn(tmp_path):
    pixels = photo(11, 19)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "a.png", pixels, exif=exif)
    np.testing.assert_array_equal(read_picture(path), pixels)
    xmp = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf='
        b'"http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
        b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
        b"</rdf:RDF></x:xmpmeta>"
    )
    path = save(tmp_path / "a.jpg", pixels, xmp=xmp)
    with Image.open(path) as image:
        assert image.getexif()[0x0112] == 6  # Pillow itself asks the XMP
    assert read_picture(path).shape == pixels.shape


def test_grey_and_palette(tmp_path):
    grey = photo(9, 14)[..., 0]
    read = read_picture(save(tmp_path / "g.png", grey))
    np.testing.assert_array_equal(read, np.repeat(grey[..., None], 3, -1))
    flat = np.zeros((6, 8, 3), np.uint8)
    flat[:, 4:] = [200, 30, 90]
    palette = Image.fromarray(flat).quantize(8)
    assert palette.mode == "P"
    np.testing.assert_array_equal(
        read_picture(save(tmp_path / "p.png", palette)), flat
    )
    bits = Image.fromarray(flat[..., 0]).convert("1")
    read = read_picture(save(tmp_path / "b.png", bits))
    assert set(np.unique(read)) <= {0, 255}


def test_16_bit_grey_that_is_not_seen_is_white(tmp_path):
    values = np.array([[0, 7, 65535], [7, 6, 8]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png", transparency=7)
    read = read_picture(tmp_path / "a.png")
    np.testing.assert_array_equal(read[..., 0], [[0, 255, 255], [255, 0, 0]])


def test_16_bit_grey_is_scaled(tmp_path):
    values = np.array([[0, 128, 257, 32768], [65535, 65406, 1000, 60000]])
    read = read_picture(save(tmp_path / "a.png", values.astype(np.uint16)))
    expected = np.round(values / 257).astype(np.uint8)
    np.testing.assert_array_equal(read[..., 0], expected)
    assert read.shape == (2, 4, 3) and read.max() == 255


def test_transparency_is_laid_on_white(tmp_path):
    rgba = np.zeros((2, 3, 4), np.uint8)
    rgba[0] = [10, 20, 30, 255]
    rgba[1] = [10, 20, 30, 0]
    read = read_picture(save(tmp_path / "a.png", rgba))
    assert (read[0] == [10, 20, 30]).all() and (read[1] == 255).all()
    grey = Image.fromarray(np.zeros((2, 3), np.uint8))
    read = read_picture(save(tmp_path / "t.png", grey, transparency=0))
    assert (read == 255).all()
    palette = Image.fromarray(rgba[..., :3]).quantize(2)
    save(tmp_path / "p.png", palette, transparency=bytes([0, 0]))
    assert (read_picture(tmp_path / "p.png") == 255).all()


def test_cmyk_jpeg(tmp_path):
    # Pillow writes CMYK inverted with an Adobe marker, as Photoshop does.
    red = np.zeros((16, 24, 3), np.uint8)
    red[...] = [220, 40, 30]
    cmyk = Image.fromarray(red).convert("CMYK")
    path = save(tmp_path / "a.jpg", cmyk, quality=95)
    assert b"Adobe" in path.read_bytes()
    assert np.abs(read_picture(path).astype(int) - red).max() <= 4


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_animation_gives_its_first_frame(tmp_path, suffix):
    colors = ([250, 0, 0], [0, 250, 0], [0, 0, 250])
    frames = [np.full((8, 9, 3), c, np.uint8) for c in colors]
    frames = [Image.fromarray(frame) for frame in frames]
    path = tmp_path / f"a.{suffix}"
    lossless = {"lossless": True} if suffix == "webp" else {}
    save(path, frames[0], save_all=True, append_images=frames[1:], **lossless)
    with Image.open(path) as image:
        assert image.n_frames == 3
    assert (read_picture(path) == colors[0]).all()


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp", "bmp", "tif"])
@pytest.mark.parametrize("part", [0.02, 0.5, 0.9])
def test_truncated(tmp_path, suffix, part):
    path = save(tmp_path / f"a.{suffix}", photo(64, 96))
    data = path.read_bytes()
    path.write_bytes(data[: max(3, int(len(data) * part))])
    with pytest.raises(PictureError, match="damaged|not a picture"):
        read_picture(path)


def test_empty_and_foreign(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"")
    with pytest.raises(PictureError, match=r"empty file \(0 bytes\)"):
        read_picture(path)
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(PictureError, match="not a picture of a known format"):
        read_picture(path)
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(PictureError, match="not a picture of a known format"):
        read_picture(path)
    with pytest.raises(PictureError, match="No such file"):
        read_picture(tmp_path / "none.jpg")


def png_that_claims(height, width, interlaced=False, animated=False):
    """A PNG file that is whole but for its pixels: there are 1000 zeros."""

    def chunk(kind, body):
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, interlaced)
    data = chunk(b"IHDR", header)
    if animated:
        frame = struct.pack(">IIIIIHHBB", 0, 1, 1, 0, 0, 1, 1, 0, 0)
        data += chunk(b"acTL", struct.pack(">II", 2, 0)) + chunk(b"fcTL", frame)
    data += chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + data + chunk(b"IEND", b"")


def jpeg_that_claims(height, width):
    """A small JPEG file whose header states another size."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG")
    data = bytearray(buffer.getvalue())
    frame = data.index(b"\xff\xc0") + 5
    data[frame : frame + 4] = struct.pack(">HH", height, width)
    return bytes(data)


BOMBS = {
    "png": png_that_claims(12_000, 12_000),
    "png interlaced": png_that_claims(50_000, 1_001, interlaced=True),
    "png animated": png_that_claims(7_072, 7_072, animated=True),
    "png one row": png_that_claims(1, 2**31 - 1),
    "png as large as can be": png_that_claims(2**31 - 1, 2**31 - 1),
    "jpeg": jpeg_that_claims(12_000, 12_000),
    "jpeg just above": jpeg_that_claims(7_072, 7_072),
}


# None is no limit; at 100 million Pillow would warn of some, not refuse.
@pytest.mark.parametrize("pillows_own", [None, 100, 100_000_000])
@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_by_size(name, pillows_own, monkeypatch):
    def load(*_):
        raise AssertionError("decoded")

    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillows_own)
    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(
        PictureError,
        match=r"^too large: \d+ x \d+ pixels, the limit is 50000000$",
    ):
        read_picture(io.BytesIO(BOMBS[name]))


def test_a_frame_larger_than_its_gif_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    buffer = io.BytesIO()
    Image.new("P", (7, 5)).save(buffer, "GIF")
    gif = buffer.getvalue()
    # The screen stays 7 x 5; the frame (left, top, width, height) does not.
    frame = b"," + struct.pack("<HHHH", 0, 0, 7, 5)
    large = b"," + struct.pack("<HHHH", 0, 0, 9_000, 8_000)
    assert gif.count(frame) == 1
    with pytest.raises(PictureError, match="too large: 8000 x 9000 pixels"):
        read_picture(io.BytesIO(gif.replace(frame, large)))


def test_the_largest_picture_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    monkeypatch.setattr(pictures, "MAX_PIXELS", 37 * 41)
    path = save(tmp_path / "a.png", photo(37, 41))
    assert read_picture(path).shape == (37, 41, 3)
    path = save(tmp_path / "b.png", photo(37, 42))
    with pytest.raises(PictureError, match="37 x 42 pixels, the limit is 1517"):
        read_picture(path)


class Stream:
    """A file that can only be read on, as a download is."""

    def __init__(self, data):
        self.read = io.BytesIO(data).read


def test_what_is_read_is_left_open_and_what_is_opened_closed(tmp_path):
    image = photo(5, 7)
    path = save(tmp_path / "a.webp", image, lossless=True)
    with open(path, "rb") as file:
        file.read(9)
        np.testing.assert_array_equal(read_picture(file), image)
        assert not file.closed
    stream = Stream(path.read_bytes())
    np.testing.assert_array_equal(read_picture(stream), image)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        read_picture(path)
        gc.collect()


@pytest.mark.skipif(
    not features.check("avif"),
    reason="this Pillow reads no AVIF",
)
def test_avif(tmp_path):
    red = np.full((16, 24, 3), (200, 30, 30), "uint8")
    Image.fromarray(red).save(tmp_path / "red.avif", quality=100)
    found = read_picture(tmp_path / "red.avif")
    assert np.abs(found.astype(int) - red).max() <= 3


def test_heic_is_read_where_its_package_is(tmp_path, monkeypatch):
    path = tmp_path / "photo.heic"
    path.write_bytes(b"\0\0\0\x1cftypheic" + bytes(100))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(PictureError, match=r"pip install \"kanets\[heic\]\""):
        read_picture(path)
    pixels = np.full((16, 24, 3), 7, "uint8")
    heif = types.SimpleNamespace(
        open_heif=lambda file: types.SimpleNamespace(
            to_pillow=lambda: Image.fromarray(pixels)
        )
    )
    monkeypatch.setitem(sys.modules, "pillow_heif", heif)
    np.testing.assert_array_equal(read_picture(path), pixels)


def test_values_without_a_range(tmp_path):
    save(tmp_path / "f.tif", np.ones((4, 5), np.float32))
    with pytest.raises(PictureError, match="floating-point pixels"):
        read_picture(tmp_path / "f.tif")
    save(tmp_path / "i.tif", np.full((4, 5), 70_000, np.int32))
    with pytest.raises(PictureError, match="32-bit integer pixels"):
        read_picture(tmp_path / "i.tif")


def test_center_box_by_hand():
    assert center_box(100, 200, (50, 50)) == (0, 50, 100, 100)
    assert center_box(200, 100, (50, 50)) == (50, 0, 100, 100)
    assert center_box(10, 15, (2, 3)) == (0, 0, 10, 15)
    assert center_box(7, 12, (1, 1)) == (0, 2, 7, 7)
    assert center_box(1, 100, (100, 1)) == (0, 49, 1, 1)
    # 5 * 3 / 2 = 7.5 columns: halves round up.
    assert center_box(5, 20, (2, 3)) == (0, 6, 5, 8)


SIZES = [
    ((61, 97), (32, 32)),
    ((97, 61), (13, 29)),
    ((500, 333), (160, 160)),
    ((20, 17), (53, 31)),
    ((1, 40), (7, 5)),
    ((33, 32), (32, 32)),
]


@pytest.mark.parametrize("size,target", SIZES)
def test_resize_matches_tensorflow(size, target):
    import tensorflow as tf

    from kanets.data.graph_pictures import fit_pictures

    image = photo(*size)
    ours = fit_picture(image, target)
    assert ours.shape == (*target, 3) and ours.dtype == np.uint8
    top, left, rows, columns = center_box(*size, target)
    crop = image[top : top + rows, left : left + columns]
    theirs = tf.image.resize(crop, target, "bilinear", antialias=True).numpy()
    difference = np.abs(ours - theirs)
    assert difference.mean() <= 0.5 and difference.max() <= 1.5
    graph = fit_pictures(tf.constant(image[None]), target)[0].numpy()
    assert np.abs(graph - ours).max() <= 1 and np.mean(graph != ours) < 0.05
    floats = fit_picture(image.astype(np.float32), target)
    assert floats.dtype == np.float32
    np.testing.assert_allclose(floats, theirs, atol=1e-2)


def test_resize_keeps_a_fitting_picture():
    image = photo(12, 17)
    assert fit_picture(image, (12, 17)) is image


@pytest.mark.parametrize("crop, interpolation", [(0.875, "bicubic"), (1, None)])
@pytest.mark.parametrize("size", [(40, 60), (61, 37), (33, 32), (7, 19)])
def test_a_size_with_a_crop_is_torchvisions(size, crop, interpolation):
    """`Resize` of the shorter side, `CenterCrop`; in a graph, too."""
    import tensorflow as tf

    from kanets.data.graph_pictures import fit_pictures

    interpolation = interpolation or "bilinear"
    image, (height, width) = photo(*size), size
    side = int(32 / crop)
    scaled = [side, int(side * max(size) / min(size))]
    rows, columns = scaled if height <= width else scaled[::-1]
    resample = Image.Resampling[interpolation.upper()]
    expected = Image.fromarray(image).resize((columns, rows), resample)
    top, left = (int(round((n - 32) / 2)) for n in (rows, columns))
    expected = np.asarray(expected)[top : top + 32, left : left + 32]
    wanted = PictureSize((32, 32), crop, interpolation)
    np.testing.assert_array_equal(fit_picture(image, wanted), expected)
    floats = fit_picture(image.astype("float32"), wanted)
    assert np.abs(floats.clip(0, 255) - expected).max() < 1.5
    graph = tf.function(lambda x: fit_pictures(x, wanted))(image[None])
    assert np.abs(graph[0].numpy() - expected).max() <= 1
    assert fit_picture(expected, wanted) is expected


def test_a_size_with_a_crop_of_another_aspect():
    wanted = PictureSize((20, 30), 0.5, "bilinear")
    assert pictures.scaled_box(100, 200, wanted) == (40, 80, 10, 25)
    assert pictures.scaled_box(100, 50, wanted) == (120, 60, 50, 15)
    assert fit_picture(photo(100, 50), wanted).shape == (20, 30, 3)


@pytest.mark.parametrize("size", [(1, 4_000), (2_000, 1), (1, 12_000_000)])
def test_what_a_crop_would_make_too_large_is_refused(size, tmp_path):
    """A picture of few bytes is not resized to gigabytes before its crop."""
    import tensorflow as tf

    from kanets import data
    from kanets.data.graph_pictures import fit_pictures
    from kanets.evaluation.files import read

    wanted = PictureSize((224, 224), 0.875)
    narrow = np.zeros((*size, 3), np.uint8)
    with pytest.raises(PictureError, match="too narrow: .* the limit is 5000"):
        fit_picture(narrow, wanted)
    with pytest.raises(tf.errors.InvalidArgumentError, match="so narrow"):
        tf.function(lambda x: fit_pictures(x, wanted))(narrow[None])
    path = save(tmp_path / "narrow.png", narrow)
    with pytest.raises(data.BadPicturesError, match="narrow.png: too narrow"):
        read(path, wanted)
    assert read(path, (8, 8)).shape == (8, 8, 3)


def test_a_set_names_what_is_too_narrow(tmp_path, monkeypatch):
    from kanets.data import folders

    paths = [
        save(tmp_path / "a.png", photo(30, 40)),
        save(tmp_path / "b.png", np.zeros((1, 4_000, 3), np.uint8)),
    ]
    budgets = [folders.MEMORY_BUDGET, 0]  # kept, or read when asked for
    for budget in budgets:
        monkeypatch.setattr(folders, "MEMORY_BUDGET", budget)
        _, reasons, _ = folders.decode_pictures(paths, PictureSize((224, 224)))
        assert reasons[0] is None
        assert "too narrow: 1 x 4000" in reasons[1]


def test_a_long_picture_on_its_way_through_int32():
    """2 * 60_000 * 20_000 is beyond 2**31."""
    import tensorflow as tf

    from kanets.data.graph_pictures import fit_pictures

    image = np.zeros((3, 60_000, 3), np.uint8)
    image[1], image[2] = 100, 200
    expected = fit_picture(image, (20_000, 2))
    assert len(np.unique(expected)) > 3
    found = tf.function(lambda x: fit_pictures(x, (20_000, 2)))(image[None])
    assert np.abs(found[0].numpy() - expected).max() <= 1
