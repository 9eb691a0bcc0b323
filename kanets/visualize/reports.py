"""Pictures of where a model errs: matrix, bars, mistakes; Pillow only."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

MOST_CLASSES = 30  # of a matrix
MOST_BARS = 40
_INK, _GREY, _LINE = (33, 37, 41), (108, 116, 125), (222, 226, 230)
_RIGHT, _WRONG = (28, 100, 170), (205, 62, 30)
_GAP = 20  # around everything
_TEXT, _SMALL, _TITLE = 16, 14, 22  # pixels
_LONGEST, _LONGEST_NOTE = 190, 420  # pixels of a name, of a note
_BAR, _BAR_LENGTH = 26, 340
_TILE, _COLUMNS = 168, 6


def confusion_matrix(counts, class_names, path):
    """Draws which class was taken for which, as a PNG.

    Right answers are blue, mistakes red, the darker the larger their share of
    the row. Of more than 30 classes those of the most confused pairs are
    drawn, and what was said besides is one more column; a sentence says so.
    Counts of five digits are drawn as percentages of their row.

    Args:
        counts: int array (classes, classes), truth by what was said.
        class_names: sequence of str; row and column i are of the i-th.
        path: the PNG to write.

    Returns:
        `Path` of the picture.

    Raises:
        ValueError: another shape.

    Cost: O(classes²) time and memory.
    """
    counts = np.asarray(counts)
    if counts.shape != (len(class_names), len(class_names)):
        raise ValueError(
            "counts must have a row and a column for each class. Received: "
            f"shape {counts.shape} for {len(class_names)} class names"
        )
    shown = _most_confused(counts)
    columns = names = [class_names[i] for i in shown]
    table = counts[np.ix_(shown, shown)]
    totals = counts[shown].sum(1)
    lines = []
    if len(shown) < len(class_names):
        table = np.column_stack([table, totals - table.sum(1)])
        columns = [*names, "(another)"]
        lines.append(
            f"{len(shown)} of {len(class_names)} classes: those of the most "
            "confused pairs. All are in report.json."
        )
    shares = table / np.maximum(totals, 1)[:, None]
    numbers, what = table, "counts"
    if counts.max() >= 10_000:
        numbers, what = np.round(100 * shares).astype(int), "percent of the row"
    lines.insert(
        0,
        "Each row is a true class, each column what the model said; numbers "
        f"are {what}.",
    )
    return _save(_matrix(shares, numbers, names, columns, lines), path)


def class_bars(rows, path, title, whole=None):
    """Draws a figure of each class as a bar, the weakest first, as a PNG.

    Of more than 40 classes the weakest 40 are drawn, and a sentence says so.

    Args:
        rows: list of `(class name, figure, note)`; a figure is in 0..1, a
            note is written after it.
        path: the PNG to write.
        title: what the figure is, str.
        whole: the figure of all classes together, drawn as a line, or None.

    Returns:
        `Path` of the picture.
    """
    rows = sorted(rows, key=lambda row: row[1])
    shown = rows[:MOST_BARS]
    lines = []
    if whole is not None:
        lines.append(f"The line is at {_percent(whole)}: all classes.")
    if len(shown) < len(rows):
        lines.append(
            f"The weakest {len(shown)} of {len(rows)} classes; the others "
            f"reach {_percent(shown[-1][1])} or more. All are in report.json."
        )
    labels = [_cut(name, _font(_TEXT), _LONGEST) for name, _, _ in shown]
    notes = [
        _cut(f"{_percent(x)}   {note}".rstrip(), _font(_SMALL), _LONGEST_NOTE)
        for _, x, note in shown
    ]
    left = _GAP + _widest(labels, _TEXT) + 10
    width = left + _BAR_LENGTH + 12 + _widest(notes, _SMALL) + _GAP
    top = _GAP + _head_height(lines)
    sheet, draw = _sheet(width, top + _BAR * len(shown) + _GAP, title, lines)
    for place, ((_, figure, _), label, note) in enumerate(
        zip(shown, labels, notes, strict=True)
    ):
        y = top + _BAR * place
        middle = y + _BAR // 2
        draw.text((left - 10, middle), label, _INK, _font(_TEXT), "rm")
        right = left + _BAR_LENGTH
        draw.rectangle((left, y + 4, right, y + _BAR - 5), _LINE)
        if figure > 0:
            end = left + figure * _BAR_LENGTH
            draw.rectangle((left, y + 4, end, y + _BAR - 5), _RIGHT)
        draw.text((right + 12, middle), note, _GREY, _font(_SMALL), "lm")
    if whole is not None:
        x = left + whole * _BAR_LENGTH
        draw.line((x, top, x, top + _BAR * len(shown)), _WRONG, 2)
    return _save(sheet, path)


def mistakes_sheet(mistakes, path, title):
    """Draws pictures with what they are and what was said, as a PNG.

    Args:
        mistakes: list of `(picture, class name, what was said, place)`, a
            uint8 array (H, W, 3) of any size and three str.
        path: the PNG to write.
        title: of the sheet, str.

    Returns:
        `Path` of the picture.
    """
    columns = min(_COLUMNS, max(3, len(mistakes)))
    step, line = _TILE + 14, 20
    height = _TILE + 3 * line + 16
    rows = -(-len(mistakes) // columns)
    top = _GAP + _head_height([""])
    sheet, draw = _sheet(
        _GAP + columns * step - 14 + _GAP,
        top + rows * height,
        title,
        ["Blue: what it is. Red: how surely the model said what."],
    )
    for place, (picture, truth, said, name) in enumerate(mistakes):
        x = _GAP + place % columns * step
        y = top + place // columns * height
        draw.rectangle((x, y, x + _TILE - 1, y + _TILE - 1), _LINE)
        image = ImageOps.contain(_image(picture), (_TILE, _TILE))
        left, above = ((_TILE - side) // 2 for side in image.size)
        sheet.paste(image, (x + left, y + above))
        y += _TILE + 4
        for text, colour, size in (
            (truth, _RIGHT, _TEXT),
            (said, _WRONG, _TEXT),
            (name, _GREY, _SMALL),
        ):
            text = _cut(text, _font(size), _TILE)
            draw.text((x, y), text, colour, _font(size))
            y += line
    return _save(sheet, path)


def _most_confused(counts):
    """Rows of the classes to draw, in order."""
    if len(counts) <= MOST_CLASSES:
        return list(range(len(counts)))
    mistakes = counts - np.diag(np.diag(counts))
    chosen = {}
    for place in np.argsort(-mistakes, axis=None, kind="stable"):
        chosen |= dict.fromkeys(map(int, np.divmod(place, len(counts))))
        if len(chosen) >= MOST_CLASSES:
            break
    return sorted(list(chosen)[:MOST_CLASSES])


def _matrix(shares, numbers, names, columns, lines):
    """The picture of a matrix; shares are the colours, numbers written."""
    digits = _widest(map(str, numbers.ravel()), _TEXT)
    cell = int(np.interp(len(columns), [4, 30], [84, 30]))
    cell = max(cell, digits + 8)
    font = _font(_TEXT if cell > 32 else _SMALL)
    labels, heads = (
        [_cut(name, font, _LONGEST) for name in some]
        for some in (names, columns)
    )
    flat = all(font.getlength(head) <= cell - 6 for head in heads)
    head = 24 if flat else int(max(map(font.getlength, heads))) + 12
    left = _GAP + int(max(map(font.getlength, labels))) + 10
    width = left + cell * len(columns) + _GAP
    width = max(width, _widest(lines, _SMALL) + 2 * _GAP)
    top = _GAP + _head_height(lines) + head
    height = top + cell * len(names) + _GAP
    sheet, draw = _sheet(width, height, "Confusion matrix", lines)
    for place, text in enumerate(heads):
        x = left + cell * place + cell // 2
        if flat:
            draw.text((x, top - 6), text, _INK, font, "mb")
        else:
            turned = _turned(text, font)
            sheet.paste(turned, (x - turned.width // 2, top - turned.height))
    for row, text in enumerate(labels):
        y = top + cell * row
        draw.text((left - 10, y + cell // 2), text, _INK, font, "rm")
        for column in range(len(columns)):
            x = left + cell * column
            colour = _RIGHT if row == column else _WRONG
            fill = _tint(colour, shares[row, column])
            draw.rectangle((x, y, x + cell, y + cell), fill, _LINE)
            if number := numbers[row, column]:
                ink = "white" if sum(fill) < 420 else _INK
                middle = (x + cell // 2, y + cell // 2)
                draw.text(middle, str(number), ink, font, "mm")
    return sheet


def _tint(colour, share):
    """White to the colour; a small share is seen, too."""
    share = float(share) ** 0.5
    return tuple(round(255 + share * (part - 255)) for part in colour)


def _turned(text, font):
    """A text that reads upward, on white."""
    size = int(font.getlength(text)) + 10, int(font.size * 1.4)
    image = Image.new("RGB", size, "white")
    middle = (6, size[1] // 2)
    ImageDraw.Draw(image).text(middle, text, _INK, font, "lm")
    return image.transpose(Image.Transpose.ROTATE_90)


def _sheet(width, height, title, lines):
    """A white sheet with its title, and what draws on it."""
    texts = _widest(lines, _SMALL), _widest([title], _TITLE)
    width = max(int(width), *(size + 2 * _GAP for size in texts))
    sheet = Image.new("RGB", (width, int(height)), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, _GAP), title, _INK, _font(_TITLE))
    for place, line in enumerate(lines):
        y = _GAP + 34 + 20 * place
        draw.text((_GAP, y), line, _GREY, _font(_SMALL))
    return sheet, draw


def _head_height(lines):
    return 46 + 20 * len(lines)


def _font(size):
    return ImageFont.load_default(size)


def _widest(texts, size):
    font = _font(size)
    return int(max((font.getlength(text) for text in texts), default=0)) + 1


def _cut(text, font, width):
    """The text, without its end where it is too wide."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text.rstrip(' ,')}..."


def _percent(figure):
    """Rounded down, so that only what is whole is 100 %."""
    return f"{np.floor(100 * figure + 1e-9):.0f} %"


def _image(picture):
    return Image.fromarray(np.ascontiguousarray(picture))


def _save(sheet, path):
    path = Path(path)
    sheet.save(path, "PNG", optimize=True)
    return path
