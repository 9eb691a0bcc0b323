"""The pictures that travel with the package, to try things on."""

import zipfile
from pathlib import Path

from kanets.files import whole

SAMPLE = Path(__file__).parent.parent / "sample" / "cifar10_jpeg_sample.zip"


def unpack_sample(directory):
    """Unpacks the embedded sample of CIFAR-10 (JPEG), 110 pictures a class.

    Args:
        directory: path of a new or empty folder, or of an earlier unpacking,
            which is left as it is. It gets `train/<class>/*.jpg` and
            `val/<class>/*.jpg`, all of it or nothing.

    Returns:
        Path of the folder, a source for `load`.

    Raises:
        ValueError: the folder holds something else.
    """
    directory = Path(directory)
    with zipfile.ZipFile(SAMPLE) as archive:
        files = {i.filename: i.file_size for i in archive.infolist()}
        if directory.exists() and (
            not directory.is_dir() or any(directory.iterdir())
        ):
            for name, size in files.items():
                file = directory / name
                if not file.is_file() or file.stat().st_size != size:
                    raise ValueError(
                        "`directory` must be new, empty or an unpacked "
                        f"sample. Received: directory={str(directory)!r} "
                        f"without a whole {name!r}"
                    )
            return directory
        directory.parent.mkdir(parents=True, exist_ok=True)
        with whole(directory, sum(files.values())) as fresh:
            fresh.mkdir()
            archive.extractall(fresh)
    return directory
