"""Numbers and picture files, as the commands of the GANs take them."""

from pathlib import Path

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def check_at_least(least, **values):
    """Refuses a smaller value of an option."""
    for name, value in values.items():
        if value < least:
            flag = name.replace("_", "-")
            raise ValueError(
                f"--{flag} must be {least} or more. Received: {value}"
            )


def check_picture_file(path):
    """Refuses a path for `--to` that is no picture's."""
    if Path(path).suffix.lower() not in SUFFIXES:
        raise ValueError(
            f"--to must be a picture file, one of {', '.join(SUFFIXES)}. "
            f"Received: {str(path)!r}"
        )


def read_picture(path):
    """uint8 array (H, W, 3) of a picture file."""
    from kanets.data import pictures

    try:
        return pictures.read_picture(path)
    except pictures.PictureError as error:
        raise ValueError(
            f"The picture cannot be read: {error}. Received: {path!r}"
        ) from error


def save_picture(pixels, path):
    """Writes a uint8 array (H, W, 3) to a picture file."""
    from PIL import Image

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
