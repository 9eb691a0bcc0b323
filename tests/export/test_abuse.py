"""What malformed requests get from a bundle: an error of their own, no more.

Through TensorFlow's C library (`kanets.export.runtimes`), which TensorFlow
Serving is built on. `serve` and `serve_images` pass on whatever they are
given, as a server does, which compares neither shapes nor dtypes with the
signature.
"""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from kanets.data import graph_pictures
from kanets.data.pictures import MAX_PIXELS
from kanets.export import export_savedmodel, runtimes
from tests.backends import BACKEND
from tests.data.test_pictures import (
    BOMBS,
    jpeg_that_claims,
    png_that_claims,
)
from tests.export.test_savedmodel import (
    NAMES,
    converted,
    encode,
    make_model,
    make_picture,
    train_view,
)

pytestmark = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="exporting needs the TensorFlow backend"
)
GOOD = encode(make_picture(71, 97, 1), quality=90)
PNG = encode(make_picture(71, 97, 1), "PNG")
IHDR = PNG[8:33]


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    directory = tmp_path_factory.mktemp("abuse") / "insects"
    return export_savedmodel(model, directory, NAMES)


@pytest.fixture(scope="module")
def bundle(folder):
    return runtimes.load(folder)


@pytest.fixture(scope="module")
def serve(bundle):
    """A function from files, or what is sent in their place, to outputs."""

    def serve(files):
        if not isinstance(files, np.ndarray):
            files = np.array(files, object)
        return bundle._run({"image_bytes": files})

    return serve


@pytest.fixture(scope="module")
def serve_images(folder):
    bundle = runtimes.load(folder, signature="serve_images")
    return lambda images: bundle._run({"images": images})


@pytest.fixture(autouse=True)
def next_request(serve):
    """Before and after each test the same good request is answered alike."""
    before = serve([GOOD])
    yield
    after = serve([GOOD])
    for name in ("classes", "scores", "probabilities"):
        np.testing.assert_array_equal(after[name], before[name])


FOREIGN = {
    "no picture": (b"<html>not found</html>", "no picture"),
    "zero bytes": (b"", "an empty file"),
    "one byte": (b"\xff", "no picture"),
    "gif": (encode(make_picture(9, 9), "GIF"), "GIF"),
    "bmp": (encode(make_picture(9, 9), "BMP"), "BMP"),
    "webp": (encode(make_picture(9, 9), "WEBP"), "WebP"),
    "tiff": (encode(make_picture(9, 9), "TIFF"), "TIFF"),
    "tiff, big-endian": (b"MM\0*" + bytes(9), "TIFF"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_other_than_jpeg_and_png(name, serve):
    file, format = FOREIGN[name]
    with pytest.raises(
        RuntimeError,
        match=r"image_bytes must hold JPEG or PNG pictures. Received something "
        r"else at these positions of the batch:\] \[1\] "
        rf"\[which begins like:\] \[{format}\]",
    ):
        serve([GOOD, file, PNG])


def test_several_are_named(serve):
    names = ("gif", "zero bytes", "no picture", "tiff")
    files = [FOREIGN[name][0] for name in names]
    with pytest.raises(
        RuntimeError,
        match=r"\[0 2 3 4\] .*\[GIF an empty file no picture TIFF\]",
    ):
        serve([files[0], GOOD, *files[1:]])


DAMAGED = {
    "jpeg": (GOOD[:-300], "Invalid JPEG data"),
    "jpeg, no frame": (GOOD[:20], "Invalid JPEG data"),
    "jpeg, three bytes": (GOOD[:3], "Invalid JPEG data"),
    "jpeg, no rows": (jpeg_that_claims(0, 10), "Invalid JPEG data"),
    "png": (PNG[:-40], "Invalid PNG data"),
    "png, no pixels": (PNG[:33], "Invalid PNG"),
    "png, half a header": (PNG[:20], "Invalid PNG"),
    "png, no header": (PNG[:8], r"damaged PNG.*without a header.*batch:\] \[1"),
    "png, no rows": (png_that_claims(0, 10), "Invalid PNG"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_truncated_and_damaged(name, serve):
    file, message = DAMAGED[name]
    with pytest.raises(RuntimeError, match=message):
        serve([GOOD, file])


SIZES = {
    "png": (12_000, 12_000),
    "png interlaced": (50_000, 1_001),
    "png animated": (7_072, 7_072),
    "png one row": (1, 2**31 - 1),
    "png as large as can be": (2**31 - 1, 2**31 - 1),
    "jpeg": (12_000, 12_000),
    "jpeg just above": (7_072, 7_072),
    "png, top bit": (5, 2**31 + 7),
    "png, all bits": (2**32 - 1, 2**32 - 1),
    "jpeg, the most it can state": (65_500, 65_500),
}
FILES = BOMBS | {
    "png, top bit": png_that_claims(*SIZES["png, top bit"]),
    "png, all bits": png_that_claims(*SIZES["png, all bits"]),
    "jpeg, the most it can state": jpeg_that_claims(65_500, 65_500),
}


@pytest.mark.parametrize("name", FILES)
def test_bombs_are_refused_by_size(name, serve):
    """By the size they state, not by what decoding them runs into."""
    height, width = SIZES[name]
    with pytest.raises(
        RuntimeError,
        match=rf"pictures of at most {MAX_PIXELS} pixels. Received \(position "
        rf"in the batch, height, width\):\] \[1 {height} {width}\]",
    ):
        serve([GOOD, FILES[name]])


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_the_limit_itself_is_allowed(format, monkeypatch):
    import tensorflow as tf

    monkeypatch.setattr(graph_pictures, "MAX_PIXELS", 37 * 41)
    largest = encode(make_picture(37, 41), format)
    decode = tf.function(
        lambda files: graph_pictures.decode_pictures(files, (37, 41)),
        autograph=False,
    )
    pixels = decode(tf.constant([largest] * 2))
    np.testing.assert_array_equal(pixels[1], train_view(largest, (37, 41)))
    larger = encode(make_picture(38, 41), format)
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"at most 1517 .*\[1 38 41\]"
    ):
        decode(tf.constant([largest, larger]))


def test_a_chunk_before_the_header_hides_no_bomb(serve):
    """The decoder passes over it and would take the size that follows."""
    small = IHDR.replace(b"IHDR", b"abCd")
    bomb = PNG[:8] + small + BOMBS["png"][8:]
    with pytest.raises(RuntimeError, match=r"without a header.*batch:\] \[0\]"):
        serve([bomb])


def test_a_second_header_hides_no_bomb(serve):
    with pytest.raises(RuntimeError, match="Invalid PNG"):
        serve([PNG[:33] + BOMBS["png"][8:]])


@pytest.mark.thorough
def test_a_bomb_takes_no_memory(folder):
    """In a process of its own: the peak grows by less than 40 MiB."""
    code = f"""
import resource, sys
import numpy as np
from kanets.export import runtimes
from tests.data.test_pictures import BOMBS
serve = runtimes.load({str(folder)!r})
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
def refuse(file):
    try:
        serve(image_bytes=[file])
    except RuntimeError as error:
        assert "of at most" in str(error), error
    else:
        raise AssertionError
refuse(BOMBS["jpeg"])
before = peak()
for file in BOMBS.values():
    refuse(file)
print(peak() - before)
"""
    grown = subprocess.run(
        [sys.executable, "-c", code],
        cwd=pathlib.Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(grown) * unit < 40 << 20


@pytest.mark.parametrize("mode", ["CMYK", "L", "RGB"])
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (71, 97)])
def test_unusual_pictures_are_answered_as_in_training(mode, size, serve, model):
    file = encode(converted(mode).resize(size[::-1]), quality=90)
    pixels = train_view(file)[None].astype("float32")
    expected = model.predict(pixels, verbose=0)
    outputs = serve([file])
    np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-3)


def test_empty_batches_are_answered(serve, serve_images):
    for outputs in (
        serve([]),
        serve_images(np.zeros((0, 50, 60, 3), np.uint8)),
    ):
        assert outputs["classes"].shape == outputs["scores"].shape == (0, 5)
        assert outputs["probabilities"].shape == (0, 7)


def test_wrong_dtypes(serve, serve_images):
    with pytest.raises(RuntimeError, match="string but int32 is provided"):
        serve(np.zeros(3, np.int32))
    with pytest.raises(RuntimeError, match="uint8 but float is provided"):
        serve_images(np.zeros((1, 9, 9, 3), np.float32))
    with pytest.raises(RuntimeError, match="uint8 but string is provided"):
        serve_images(np.array([GOOD], object))


@pytest.mark.parametrize("shape", [(), (1, 1)])
def test_wrong_rank_of_files(shape, serve):
    with pytest.raises(RuntimeError, match=r"\[(1,1)?\] is not compatible"):
        serve(np.array([GOOD], object).reshape(shape))


SHAPES = [(9, 9, 3), (1, 1, 9, 9, 3), (1, 9, 9, 4), (1, 9, 9, 1), ()]


@pytest.mark.parametrize("shape", SHAPES)
def test_wrong_shape_of_pixels(shape, serve_images):
    given = ",".join(map(str, shape))
    with pytest.raises(
        RuntimeError,
        match=rf"\[{given}\] is not compatible with .*\[\?,\?,\?,3\]",
    ):
        serve_images(np.zeros(shape, np.uint8))


def test_pictures_without_pixels(serve_images):
    with pytest.raises(RuntimeError, match=r"at least one pixel.*\[1 0 9 3\]"):
        serve_images(np.zeros((1, 0, 9, 3), np.uint8))


def test_what_the_client_refuses_already(bundle):
    with pytest.raises(ValueError, match="must be image_bytes. Received: imag"):
        bundle(images=[GOOD])
    with pytest.raises(ValueError, match="must be image_bytes. Received: none"):
        bundle()
    with pytest.raises(ValueError, match="must hold bytes. Received: str"):
        bundle(image_bytes=["bee.jpg"])
    with pytest.raises(ValueError, match=r"must have the shape \(None,\)"):
        bundle(image_bytes=np.array(GOOD, object))


def test_an_answer_is_the_same_next_to_others(bundle, serve):
    files = [GOOD, PNG]
    outputs = bundle(image_bytes=files)
    for row, file in enumerate(files):
        alone = serve([file])
        assert alone["classes"][0, 0] == outputs["classes"][row, 0]
        np.testing.assert_allclose(
            alone["scores"][0], outputs["scores"][row], rtol=1e-5
        )
