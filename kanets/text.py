"""Text files that people write: names of classes, one on each line."""

from pathlib import Path


def read_text(path):
    """Reads a text file in UTF-8, with or without a byte order mark.

    Args:
        path: the file.

    Returns:
        The text, with a newline at the end of each line.

    Raises:
        ValueError: another encoding; the file and the line are named.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ValueError(
            "A text file must be in UTF-8: save it again in that encoding. "
            f"Received: {str(path)!r}, where line {line} is not ({error})"
        ) from error
