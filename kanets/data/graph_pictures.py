"""The reading and resizing rules of `kanets.data.pictures` as TensorFlow ops.

For TensorFlow Datasets and for exported bundles, where there is no Pillow. To
resize as Pillow does, each axis is resized and rounded to whole levels, first
columns, then rows; hardly a value then differs from Pillow's, and none by
more than one level. A single `tf.image.resize` changes one in six.
"""

from kanets.data.pictures import MAX_PIXELS, PictureSize, half_to_even

JPEG = b"\xff\xd8\xff"
PNG = b"\x89PNG\r\n\x1a\n"
_OTHERS = {
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"RIFF": "WebP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}
_IHDR = b"\0\0\0\rIHDR"  # of 13 bytes; of a PNG file the first chunk
_COARSE_GREY = (b"\x01\x00", b"\x02\x00", b"\x04\x00")
_EXIF = int.from_bytes(b"Exif")
_EXIF_WITHIN = 1 << 18  # bytes; the segment comes early and is below 1 << 16


def decode_pictures(image_bytes, image_size):
    """Decodes JPEG or PNG files to fitted pixels.

    Args:
        image_bytes: string tensor (B,), the files.
        image_size: pair of int, H and W.

    Returns:
        float32 tensor (B, H, W, 3), whole numbers 0..255.

    Raises:
        InvalidArgumentError: as the graph runs, if a file is none of the two
            formats, is damaged or truncated, or its header states more than
            `kanets.data.pictures.MAX_PIXELS`; those are not decoded. Also if
            `image_bytes` has another rank.
    """
    import tensorflow as tf

    # A server does not compare what it is sent with the signature's shapes.
    image_bytes = tf.ensure_shape(image_bytes, (None,))
    is_known = _starts_with(image_bytes, JPEG) | _starts_with(image_bytes, PNG)
    check = tf.debugging.Assert(
        tf.reduce_all(is_known),
        [
            "image_bytes must hold JPEG or PNG pictures. Received something "
            "else at these positions of the batch:",
            tf.where(~is_known)[:, 0],
            "which begins like:",
            tf.boolean_mask(_name_format(image_bytes), ~is_known),
        ],
        summarize=8,
    )

    def decode_png(encoded):
        # Depth and colour type. Below 8 bits of grey the operation adds an
        # alpha of the wrong scale, so those are read without.
        header = tf.strings.substr(encoded, 0, 26) + bytes(26)
        header = tf.strings.substr(header, 24, 2)
        is_coarse_grey = tf.reduce_any(header == _COARSE_GREY)
        return tf.cond(
            is_coarse_grey,
            lambda: tf.io.decode_png(encoded, channels=3),
            lambda: _on_white(tf.io.decode_png(encoded, channels=4)),
        )

    def decode_jpeg(encoded):
        picture = tf.io.decode_jpeg(
            encoded, channels=3, dct_method="INTEGER_ACCURATE"
        )
        return _turn_upright(picture, _exif_orientation(encoded))

    def decode(inputs):
        encoded, position = inputs
        with tf.control_dependencies([_check_size(encoded, position)]):
            encoded = tf.identity(encoded)
        picture = tf.cond(
            _starts_with(encoded, PNG),
            lambda: decode_png(encoded),
            lambda: decode_jpeg(encoded),
        )
        picture = tf.ensure_shape(picture, (None, None, 3))
        return fit_pictures(picture[None], image_size)[0]

    with tf.control_dependencies([check]):
        image_bytes = tf.identity(image_bytes)
    positions = tf.range(tf.size(image_bytes, tf.int64))
    pixels = tf.TensorSpec((*image_size, 3), tf.float32)
    return tf.map_fn(
        decode, (image_bytes, positions), fn_output_signature=pixels
    )


def _on_white(picture):
    """Pixels with alpha (H, W, 4), uint8, over white."""
    import tensorflow as tf

    picture = tf.cast(picture, tf.uint16)  # 255 * 255 + 127 fits
    pixels, alpha = picture[..., :3], picture[..., 3:]
    blended = pixels * alpha + 255 * (255 - alpha)
    return tf.cast((blended + 127) // 255, tf.uint8)


def _starts_with(encoded, magic):
    import tensorflow as tf

    return tf.strings.substr(encoded, 0, len(magic)) == magic


def _name_format(encoded):
    """Names what is neither JPEG nor PNG, for the error."""
    import tensorflow as tf

    name = tf.where(encoded == b"", "an empty file", "no picture")
    for magic, other in _OTHERS.items():
        name = tf.where(_starts_with(encoded, magic), other, name)
    return name


def _check_size(encoded, position):
    """Refuses a file of too many pixels by its header; nothing is decoded."""
    import tensorflow as tf

    height, width = tf.cond(
        _starts_with(encoded, PNG),
        lambda: _png_size(encoded, position),
        lambda: _jpeg_size(encoded),
    )
    capped_height = tf.minimum(height, MAX_PIXELS + 1)
    capped_width = tf.minimum(width, MAX_PIXELS + 1)  # no product overflows
    return tf.debugging.Assert(
        capped_height * capped_width <= MAX_PIXELS,
        [
            f"image_bytes must hold pictures of at most {MAX_PIXELS} pixels. "
            "Received (position in the batch, height, width):",
            tf.stack([position, height, width]),
        ],
    )


def _jpeg_size(encoded):
    import tensorflow as tf

    shape = tf.io.extract_jpeg_shape(encoded)
    height, width, _ = tf.unstack(tf.cast(shape, tf.int64), num=3)
    return height, width


def _png_size(encoded, position):
    """Reads height and width, int64, where the decoder will find them.

    It would pass over an unknown chunk before the header, so a file that does
    not begin with the header is refused.
    """
    import tensorflow as tf

    header = tf.strings.substr(encoded, 0, 24) + bytes(24)
    check = tf.debugging.Assert(
        tf.strings.substr(header, len(PNG), len(_IHDR)) == _IHDR,
        [
            "image_bytes holds a damaged PNG picture, without a header. "
            "Received it at this position of the batch:",
            position,
        ],
    )
    with tf.control_dependencies([check]):
        sides = tf.io.decode_raw(tf.strings.substr(header, 16, 8), tf.uint8)
    digits = tf.reshape(tf.cast(sides, tf.int64), (2, 4))
    width, height = tf.unstack(
        tf.reduce_sum(digits * [1 << 24, 1 << 16, 1 << 8, 1], axis=1)
    )
    return height, width


def _exif_orientation(encoded):
    """Returns the EXIF orientation of a JPEG file, 1 where it has none."""
    import tensorflow as tf

    head = tf.strings.substr(encoded, 0, _EXIF_WITHIN)
    return tf.cond(
        # \C is any byte. A search of many small operations costs more than
        # a small picture's decoding.
        tf.strings.regex_full_match(head, r"\C*Exif\C*"),
        lambda: _orientation_in(head),
        lambda: 1,
    )


def _orientation_in(head):
    """The same of a file's first bytes.

    A JPEG file is a chain of segments (0xFF, marker, length, data). The one
    that starts with "Exif" holds a TIFF header, of either byte order, and a
    table of 12-byte entries, of which tag 0x0112 is the orientation. Reading
    past the end gives zeros, which end every search.
    """
    import tensorflow as tf

    data = tf.io.decode_raw(head, tf.uint8)
    data = tf.pad(tf.cast(data, tf.int32), [[0, 1]])
    end = tf.size(data) - 1

    def number(offset, shifts):
        offsets = tf.expand_dims(offset, -1) + tf.range(len(shifts))
        digits = tf.gather(data, tf.clip_by_value(offsets, 0, end))
        return tf.reduce_sum(digits * [1 << shift for shift in shifts], -1)

    def is_exif(segment):
        is_app1 = number(segment, (8, 0)) == 0xFFE1
        return is_app1 & (number(segment + 4, (24, 16, 8, 0)) == _EXIF)

    def is_other(segment):
        is_segment = number(segment, (0,)) == 0xFF
        is_last = number(segment + 1, (0,)) == 0xDA  # pixels follow
        return is_segment & ~is_last & ~is_exif(segment)

    (segment,) = tf.while_loop(
        is_other,
        lambda segment: (segment + 2 + number(segment + 2, (8, 0)),),
        [tf.constant(2)],
    )
    tiff = segment + 10
    is_big_endian = number(tiff, (0,)) == ord("M")

    def integer(offset, *shifts):
        big, little = number(offset, shifts), number(offset, shifts[::-1])
        return tf.where(is_big_endian, big, little)

    table = tiff + integer(tiff + 4, 24, 16, 8, 0)
    entries = table + 2 + 12 * tf.range(integer(table, 8, 0))
    is_orientation = is_exif(segment) & (integer(entries, 8, 0) == 0x0112)
    found = tf.boolean_mask(integer(entries + 8, 8, 0), is_orientation)
    return tf.concat([found, [1]], axis=0)[0]


def _turn_upright(picture, orientation):
    """Turns a picture (h, w, 3); values outside 2..8 leave it as it is."""
    import tensorflow as tf

    def step(*mirrored):
        return tf.where(tf.reduce_any(orientation == mirrored), -1, 1)

    picture = tf.cond(
        (orientation >= 5) & (orientation <= 8),
        lambda: tf.transpose(picture, (1, 0, 2)),
        lambda: picture,
    )
    return picture[:: step(3, 4, 7, 8), :: step(2, 3, 6, 7)]


def fit_pictures(pictures, image_size):
    """Fits uint8 pictures (B, h, w, 3) to (B, H, W, 3).

    The arithmetic of `kanets.data.pictures.center_box`, of a `PictureSize`
    that of `scaled_box`, in integers. The result is float32 and holds whole
    numbers 0..255.
    """
    import tensorflow as tf

    height, width = image_size
    pictures = tf.ensure_shape(pictures, (None, None, None, 3))
    shape = tf.shape(pictures)
    check = tf.debugging.Assert(
        (shape[1] > 0) & (shape[2] > 0),
        ["pictures must have at least one pixel. Received: shape=", shape],
        summarize=4,
    )
    with tf.control_dependencies([check]):
        rows, columns = shape[1], shape[2]
    if isinstance(image_size, PictureSize):
        fitted = tf.cond(
            (rows == height) & (columns == width),
            lambda: tf.cast(pictures, tf.float32),
            lambda: _fit_scaled(pictures, rows, columns, image_size),
        )
    else:
        fitted = _fit_centre(pictures, rows, columns, image_size)
    return tf.ensure_shape(fitted, (None, height, width, 3))


def _fit_centre(pictures, rows, columns, image_size):
    import tensorflow as tf

    height, width = image_size
    # Products of a long side and a target's may pass 2**31.
    rows, columns = (tf.cast(side, tf.int64) for side in (rows, columns))
    crop_rows = (2 * columns * height + width) // (2 * width)
    crop_rows = tf.clip_by_value(crop_rows, 1, rows)
    crop_columns = (2 * rows * width + height) // (2 * height)
    crop_columns = tf.clip_by_value(crop_columns, 1, columns)
    rows, columns, crop_rows, crop_columns = (
        tf.cast(side, tf.int32)
        for side in (rows, columns, crop_rows, crop_columns)
    )
    top, left = (rows - crop_rows) // 2, (columns - crop_columns) // 2
    crop = pictures[:, top : top + crop_rows, left : left + crop_columns]
    # Only here float: a large picture would take four times its memory.
    return tf.cond(
        (crop_rows == height) & (crop_columns == width),
        lambda: tf.cast(crop, tf.float32),
        lambda: _resize(
            _resize(crop, (crop_rows, width), "bilinear"),
            image_size,
            "bilinear",
        ),
    )


def _fit_scaled(pictures, rows, columns, size):
    import tensorflow as tf

    # Products of a long side and a target's may pass 2**31.
    high, wide, rows, columns = (
        tf.cast(side, tf.int64) for side in (*size.scaled, rows, columns)
    )
    is_wide = columns * high > rows * wide
    new_rows = tf.where(is_wide, high, wide * rows // columns)
    new_columns = tf.where(is_wide, high * columns // rows, wide)
    check = tf.debugging.Assert(
        new_rows * new_columns <= MAX_PIXELS,
        [
            "pictures must not be so narrow that they are resized to more "
            f"than {MAX_PIXELS} pixels. Received (height, width):",
            tf.stack([rows, columns]),
        ],
    )
    with tf.control_dependencies([check]):
        rows, new_rows, new_columns = (
            tf.cast(side, tf.int32) for side in (rows, new_rows, new_columns)
        )
    scaled = _resize(pictures, (rows, new_columns), size.interpolation)
    scaled = _resize(scaled, (new_rows, new_columns), size.interpolation)
    height, width = size
    top, left = (
        half_to_even(new_rows - height),
        half_to_even(new_columns - width),
    )
    return scaled[:, top : top + height, left : left + width]


def _resize(pixels, size, interpolation):
    import tensorflow as tf

    pixels = tf.image.resize(pixels, size, interpolation, antialias=True)
    return tf.clip_by_value(tf.floor(pixels + 0.5), 0.0, 255.0)
