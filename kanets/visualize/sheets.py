"""Tables of captioned pictures, as small PNG files; Pillow only."""

import functools
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

WIDTH = 960  # pixels of a sheet, unless its file gets too large
LARGEST_FILE = 400_000  # bytes
LUMA = np.array([0.299, 0.587, 0.114])  # of red, green and blue
_NARROWEST = 64  # pixels of a panel
_READABLE = 96  # pixels below a class name
_GAP = 6
_LINE = 18
_FONT_SIZE = 13


def save_sheet(rows, path, legend=()):
    """Writes rows of pictures, each below its caption, as a PNG.

    Panels are made smaller until the file is below 400 kB, but not below 64
    pixels.

    Args:
        rows: list of rows of pairs `(caption, panel)`. A panel is a function
            from its width to a picture of that width; the heights of a row
            are equal. A row of empty captions has no line for them.
        path: the PNG to write.
        legend: pairs `(name, (red, green, blue))`, written below the rows.

    Returns:
        `Path` of the picture.
    """
    path = Path(path)
    width = WIDTH // max(map(len, rows)) - _GAP
    data = _encoded(_drawn(rows, width, legend), legend)
    while len(data) > LARGEST_FILE and width > _NARROWEST:
        width = max(_NARROWEST, int(0.85 * width))
        data = _encoded(_drawn(rows, width, legend), legend)
    path.write_bytes(data)
    return path


def save_pictures(pictures, columns, path, captions=()):
    """Writes pictures side by side as a PNG; see `save_sheet`.

    Args:
        pictures: (n, H, W, 3), pixels 0..255.
        columns: how many a row.
        path: the PNG to write.
        captions: of the columns, above the first row.

    Returns:
        `Path` of the picture.
    """
    return save_sheet(_in_rows(pictures, columns, captions), path)


def captioned(pictures, columns, captions):
    """Pictures side by side below their captions, pixel by pixel.

    Args:
        pictures: (n, H, W, 3), pixels 0..255.
        columns: how many a row.
        captions: of the first pictures, or of all.

    Returns:
        uint8 array (height, width, 3). A pixel of a picture that is too
        narrow for a caption is a square of several.
    """
    width = np.shape(pictures)[2]
    width *= -(-_READABLE // width)
    rows = _in_rows(pictures, columns, captions)
    return np.asarray(_drawn(rows, width, ()))


def _in_rows(pictures, columns, captions):
    """Rows for `save_sheet`."""
    panels = [
        (
            captions[number] if number < len(captions) else "",
            functools.partial(resized, picture),
        )
        for number, picture in enumerate(pictures)
    ]
    firsts = range(0, len(panels), columns)
    return [panels[n : n + columns] for n in firsts]


def resized(pixels, width):
    """Pixels 0..255 in another width: cells stay sharp, details average."""
    height = max(1, round(pixels.shape[0] * width / pixels.shape[1]))
    pixels = np.ascontiguousarray(np.round(np.clip(pixels, 0, 255)), "uint8")
    image = Image.fromarray(pixels)
    return image.resize((width, height), Image.Resampling.BOX)


def _drawn(rows, width, legend):
    font = ImageFont.load_default(_FONT_SIZE)
    rows = [[(text, panel(width)) for text, panel in row] for row in rows]
    columns = max(map(len, rows))
    sheet_width = _GAP + columns * (width + _GAP)
    heights = [
        (_LINE if any(text for text, _ in row) else 0) + row[0][1].height + _GAP
        for row in rows
    ]
    swatches, legend_height = _legend(legend, sheet_width, font)
    height = _GAP + sum(heights) + legend_height
    sheet = Image.new("RGB", (sheet_width, height), "white")
    draw = ImageDraw.Draw(sheet)
    top = _GAP
    for row, row_height in zip(rows, heights, strict=True):
        for column, (text, image) in enumerate(row):
            left = _GAP + column * (width + _GAP)
            draw.text((left, top), text, "black", _caption_font(text, width))
            sheet.paste(image, (left, top + row_height - image.height - _GAP))
        top += row_height
    _draw_legend(draw, legend, swatches, top, font)
    return sheet


def with_legend(pixels, legend):
    """A picture with names and their colours on white below it.

    Args:
        pixels: uint8 array (H, W, 3).
        legend: pairs `(name, (red, green, blue))`.

    Returns:
        uint8 array: the picture at the top left, and as much below it, and
        beside it where a name is longer, as the legend takes.
    """
    font = ImageFont.load_default(_FONT_SIZE)
    height, width = pixels.shape[:2]
    longest = max((_length(name, font) for name, _ in legend), default=0)
    sheet_width = max(width, _GAP + longest)
    swatches, below = _legend(legend, sheet_width, font)
    sheet = Image.new("RGB", (sheet_width, height + below), "white")
    sheet.paste(Image.fromarray(pixels), (0, 0))
    top = height + _GAP
    _draw_legend(ImageDraw.Draw(sheet), legend, swatches, top, font)
    return np.asarray(sheet)


def _draw_legend(draw, legend, swatches, top, font):
    for (name, colour), (left, line) in zip(legend, swatches, strict=True):
        y = top + line * _LINE
        draw.rectangle((left, y + 2, left + 12, y + 14), tuple(colour))
        draw.text((left + 18, y), name, "black", font)


def _length(name, font):
    """Pixels that a name takes in a legend, with its colour."""
    return 18 + int(font.getlength(name)) + 14


def _legend(legend, sheet_width, font):
    """Where each name goes, (left, line), and the height of all."""
    places, left, line = [], _GAP, 0
    for name, _ in legend:
        length = _length(name, font)
        if left > _GAP and left + length > sheet_width:
            left, line = _GAP, line + 1
        places.append((left, line))
        left += length
    return places, (line + 1) * _LINE + _GAP if legend else 0


def _caption_font(text, width):
    """The largest font, of 13 at most, in which a caption fits a panel."""
    size = _FONT_SIZE
    while ImageFont.load_default(size).getlength(text) > width and size > 6:
        size -= 1
    return ImageFont.load_default(size)


def _encoded(image, legend):
    """PNG with a palette, a third of RGB's bytes; exact in the legend."""
    exact = [colour for _, colour in legend]
    exact = list(dict.fromkeys([(0, 0, 0), (255, 255, 255), *exact]))[:256]
    colours = [channel for colour in exact for channel in colour]
    if len(exact) < 256:
        colours += image.quantize(256 - len(exact)).getpalette()
    palette = Image.new("P", (1, 1))
    palette.putpalette(colours)
    buffer = io.BytesIO()
    image = image.quantize(palette=palette, dither=Image.Dither.NONE)
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
