"""One picture file -> one RGB array, read the same way everywhere.

Pillow and NumPy only: nothing here imports Keras or TensorFlow, so the same
rules serve training on any backend, the command line and a serving client.

Reading (`read_picture`): the first frame, turned upright by its EXIF
orientation (not a PNG), as 8-bit RGB. Grey is repeated over the three channels,
16-bit grey is scaled (not clipped), CMYK and palettes are converted, and
transparent pixels are laid on white.

Resizing (`fit_picture`): crop the centre to the target's aspect ratio in
whole pixels, then antialiased bilinear. `center_box` holds the arithmetic, in
integers, so that another implementation can repeat it exactly. A `PictureSize`
asks for timm's rule instead, resize and then crop: `scaled_box`.
"""

import contextlib
import io
import os
import struct

import numpy as np
from PIL import Image

# A photo of 50 megapixels passes; 12,000 x 12,000 pixels do not. Checked
# before anything is decoded, here and in exported bundles.
MAX_PIXELS = 50_000_000
# Content decides, not the suffix; formats that run programs (EPS) are out.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "PPM", "TIFF", "AVIF")
SUFFIXES = frozenset(
    ".jpg .jpeg .jfif .png .bmp .gif .webp .ppm .pgm .tif .tiff "
    ".avif .heic .heif".split()
)
# What phones write, by the brand after `ftyp`; read by `pillow_heif`.
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")

_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: np.rot90(image),
}


INTERPOLATIONS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


class PictureSize(tuple):
    """A (height, width) that says how pictures are brought to it.

    Args:
        size: (height, width), ints.
        crop: in (0, 1]; the picture is resized so that its shorter side is
            the size's by `crop`, rounded down, then the centre is cut out.
        interpolation: a key of `INTERPOLATIONS`, with antialiasing.
    """

    def __new__(cls, size, crop=1.0, interpolation="bicubic"):
        new = super().__new__(cls, size)
        new.crop, new.interpolation = crop, interpolation
        return new

    @property
    def scaled(self):
        """What the picture's shorter side is resized to, for each axis."""
        return tuple(int(side / self.crop) for side in self)


class PictureError(ValueError):
    """One picture cannot be read; the message is the reason, in a few words."""


def read_picture(path):
    """Reads one picture file as upright 8-bit RGB.

    JPEG is decoded with libjpeg's accurate integer transform, which
    `tf.io.decode_jpeg(dct_method="INTEGER_ACCURATE")` matches.

    Args:
        path: the file: a path, or an open binary file.

    Returns:
        uint8 array `(H, W, 3)`.

    Raises:
        PictureError: the file is empty, truncated, damaged, not a picture of
            a known format (`FORMATS`), holds values without a stated range,
            or states a size above `MAX_PIXELS`; that is not decoded, whatever
            Pillow's own limit.
    """
    try:
        if isinstance(path, str | os.PathLike) and not os.path.getsize(path):
            raise PictureError("empty file (0 bytes)")
        with contextlib.ExitStack() as stack:
            if isinstance(path, str | os.PathLike):
                path = stack.enter_context(open(path, "rb"))
            image = stack.enter_context(_open(path))
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise PictureError(
                    f"too large: {height} x {width} pixels, "
                    f"the limit is {MAX_PIXELS}"
                )
            image.load()
            pixels = _rgb(image)
            turn = _UPRIGHT.get(_orientation(image))
    except PictureError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as e:
        # Pillow's own, for a frame that is larger than its GIF.
        raise PictureError(f"too large: {e}") from e
    except Exception as e:  # Decoders raise whatever a damaged file provokes.
        raise PictureError(failure(e)) from e
    return np.ascontiguousarray(pixels if turn is None else turn(pixels))


def failure(error):
    """Why a file could not be read, in a few words."""
    if getattr(error, "errno", None) is None:
        return f"damaged: {error or type(error).__name__}"
    path = error.filename
    if isinstance(path, str | os.PathLike) and os.path.islink(path):
        return f"a link that leads to no file: {error.strerror}"
    return f"cannot be read: {error.strerror}"


def _open(file):
    """Opens a picture: reads its header, as `Image.open` does.

    Without the limit of `Image.open`, which warns where it does not refuse,
    and which is a global that any program may change.
    """
    try:
        file.seek(0)
    except (AttributeError, io.UnsupportedOperation):
        file = io.BytesIO(file.read())
    prefix = file.read(16)
    for name in FORMATS:
        for import_plugins in (Image.preinit, Image.init):
            if name not in Image.OPEN:
                import_plugins()
        opens, accepts = Image.OPEN[name]
        try:
            accepted = not accepts or accepts(prefix)
            # A string says why this build of Pillow cannot.
            if accepted and not isinstance(accepted, str):
                file.seek(0)
                return opens(file, "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue
    if prefix[4:8] == b"ftyp" and prefix[8:12] in _HEIC_BRANDS:
        return _open_heic(file)
    raise PictureError("not a picture of a known format")


def _open_heic(file):
    try:
        import pillow_heif
    except ImportError:
        raise PictureError(
            'HEIC is read by pip install "kanets[heic]"'
        ) from None
    file.seek(0)
    return pillow_heif.open_heif(file).to_pillow()


def _orientation(image):
    """Returns the EXIF orientation; damaged EXIF counts as upright.

    A PNG is as it is, and a JPEG's XMP is not asked, so that an export, which
    reads neither, sees the same pictures as training.
    """
    try:
        if image.format == "PNG":
            return 1
        if image.format == "JPEG":
            exif = Image.Exif()
            exif.load(image.info.get("exif", b""))
        else:
            exif = image.getexif()
        return exif.get(_EXIF_ORIENTATION, 1)
    except Exception:
        return 1


def _rgb(image):
    """Converts a loaded Pillow image of any mode to a uint8 RGB array."""
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.int64)
        rgb = _rgb_from_16_bit(grey)
        clear = image.info.get("transparency")
        if isinstance(clear, int):  # a PNG's one grey that is not seen
            rgb[grey == clear] = 255
        return rgb
    if image.mode == "F":
        raise PictureError("floating-point pixels have no stated range")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.asarray(image.convert("RGB"))


def _rgb_from_16_bit(grey):
    """Scales 0..65535 to 0..255, to nearest, on three channels."""
    if grey.min() < 0 or grey.max() > 65535:
        raise PictureError("32-bit integer pixels have no stated range")
    grey = ((grey * 255 + 32767) // 65535).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=-1)


def center_box(height, width, image_size):
    """Finds the largest centred box with the aspect ratio of `image_size`.

    With target `(h, w)`: a picture too wide (`width * h > height * w`) keeps
    its height and `round(height * w / h)` columns, otherwise its width and
    `round(width * h / w)` rows; halves round up, at least 1; the odd pixel
    left over is cut at the right or bottom.

    Args:
        height: int, rows of the picture.
        width: int, columns of the picture.
        image_size: `(h, w)`, the size it will be resized to.

    Returns:
        `(top, left, rows, columns)`, ints.
    """
    h, w = image_size
    rows, columns = height, width
    if width * h > height * w:
        columns = max(1, (2 * height * w + h) // (2 * h))
    else:
        rows = max(1, (2 * width * h + w) // (2 * w))
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def scaled_box(height, width, size):
    """Where a `PictureSize` lies in a picture that is resized for it.

    Integers throughout, as torchvision's `Resize` and `CenterCrop`: the
    longer side is rounded down, and the half pixel of an odd margin to the
    even number.

    Args:
        height: int, rows of the picture.
        width: int, columns of the picture.
        size: the `PictureSize`.

    Returns:
        `(rows, columns, top, left)`, ints: the size it is resized to, and
        where the centre begins.

    Raises:
        PictureError: it is so narrow that this is above `MAX_PIXELS`.
    """
    rows, columns = size.scaled
    if width * rows > height * columns:
        columns = rows * width // height
    else:
        rows = columns * height // width
    if rows * columns > MAX_PIXELS:
        raise PictureError(
            f"too narrow: {height} x {width} pixels, resized {rows} x "
            f"{columns}, the limit is {MAX_PIXELS}"
        )
    return (
        rows,
        columns,
        *map(half_to_even, (rows - size[0], columns - size[1])),
    )


def check_fits(image, image_size):
    """Raises a PictureError for what `fit_picture` would refuse."""
    if isinstance(image_size, PictureSize):
        scaled_box(*image.shape[:2], image_size)


def half_to_even(margin):
    """Half of an int, or of a tensor of them, rounded to the even number."""
    return margin // 2 + margin % 2 * (margin // 2 % 2)


def fit_picture(image, image_size):
    """Crops the centre to the target's shape, then resizes.

    The rule of the whole package: `center_box`, then bilinear with
    antialiasing (a triangle filter as wide as the scale when shrinking), as
    `tf.image.resize(..., "bilinear", antialias=True)` does on the crop. 8-bit
    pictures are rounded to 8 bits.

    Args:
        image: uint8 or float32 array `(H, W, 3)`.
        image_size: `(h, w)`; a `PictureSize` has its own rule.

    Returns:
        Array `(h, w, 3)` of the same dtype; a picture that already has the
        size is returned as it is.

    Raises:
        PictureError: as `scaled_box`.
    """
    h, w = image_size
    if image.shape[:2] == (h, w):
        return image
    if isinstance(image_size, PictureSize):
        rows, columns, top, left = scaled_box(*image.shape[:2], image_size)
        image = _resized(image, (rows, columns), image_size.interpolation)
        return image[top : top + h, left : left + w]
    top, left, rows, columns = center_box(*image.shape[:2], image_size)
    image = image[top : top + rows, left : left + columns]
    return _resized(image, (h, w), "bilinear")


def _resized(image, size, interpolation):
    if image.dtype == np.uint8:
        return _plane(image, size, interpolation)
    planes = [
        _plane(image[:, :, c].astype(np.float32), size, interpolation)
        for c in range(3)
    ]
    return np.stack(planes, axis=-1).astype(image.dtype)


def _plane(pixels, size, interpolation):
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize(size[::-1], INTERPOLATIONS[interpolation]))
