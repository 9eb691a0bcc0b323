"""Files of this machine or of a cloud, as Apache Beam opens them."""

import contextlib
import hashlib
import logging
import re
import shutil
import tempfile
import uuid
from pathlib import Path

from kanets import files
from kanets.data.pictures import PictureError, failure
from kanets.evaluation.finding import inside
from kanets.evaluation.sources import MAX_BYTES, Source, check_size


def beam():
    """The package `apache_beam`.

    Raises:
        ImportError: it is not installed.
    """
    logging.disable(logging.WARNING)  # of clouds that are not installed
    try:
        import apache_beam
    except ImportError:
        raise ImportError(
            'Many pictures need Apache Beam: pip install "kanets[beam]".'
        ) from None
    finally:
        logging.disable(logging.NOTSET)
    return apache_beam


def file_systems():
    """`FileSystems` of Beam."""
    beam()
    from apache_beam.io.filesystems import FileSystems

    return FileSystems


def is_here(path):
    """Whether a path is one of this machine, and no address of a cloud."""
    return file_systems().get_scheme(str(path)) is None


def join(folder, name):
    """The path of a file in a folder, wherever that is."""
    return file_systems().join(str(folder), name)


def found(pattern):
    """The sorted paths of the files that a pattern names, which may be none.

    `*` stops at a folder's end and `**` does not; `**/` may be no folder. On
    this machine a file is also named by its own path, whatever is in it.
    """
    if is_here(pattern):
        return _found_here(Path(pattern))
    [match] = file_systems().match([str(pattern)])
    return sorted(metadata.path for metadata in match.metadata_list)


def _found_here(pattern):
    if pattern.is_file():
        return [str(pattern)]
    from apache_beam.io.filesystem import FileSystem

    folder = Path(re.match(r"[^*?[]*", str(pattern))[0] + "*").parent
    expression = FileSystem.translate_pattern(str(pattern))
    fits = re.compile(expression.replace(".*/", "(.*/)?")).match
    return sorted(filter(fits, map(str, inside(folder))))


def names_in(folder):
    """The names of the files in a folder, a set; none of one that is not."""
    if is_here(folder):
        return {path.name for path in Path(folder).glob("*")}
    paths = found(join(folder, "*"))
    return {file_systems().split(path)[1] for path in paths}


def opened(path):
    """A binary file to read, as it is, whatever its suffix."""
    return file_systems().open(str(path), compression_type="uncompressed")


@contextlib.contextmanager
def whole(path):
    """Gives a local path to write at, which becomes a file elsewhere, whole.

    Two processes may write the same file: the last one stays.

    Args:
        path: str, of this machine or of a cloud. The local path has its
            suffixes.
    """
    systems = file_systems()
    folder, name = systems.split(path)
    with tempfile.TemporaryDirectory() as room:
        local = Path(room, name)
        yield local
        fresh = join(folder, f"{files.TEMPORARY}{name}-{uuid.uuid4().hex}")
        with (
            local.open("rb") as source,
            systems.create(fresh, compression_type="uncompressed") as target,
        ):
            shutil.copyfileobj(source, target)
    systems.rename([fresh], [path])


class Opened(Source):
    """A picture file, wherever it is."""

    def __init__(self, path):
        super().__init__(path, Path(path).stem)

    def content(self):
        try:
            with opened(self.name) as file:
                data = file.read(MAX_BYTES + 1)
        except OSError as error:  # those of Beam, too
            raise PictureError(failure(error)) from error
        if not data:
            raise PictureError("empty file (0 bytes)")
        check_size(len(data))
        return data


@contextlib.contextmanager
def as_folder(path):
    """Gives a folder of this machine with the files of one of a cloud.

    A folder of this machine is given as it is.
    """
    if is_here(path):
        yield Path(path)
        return
    root = str(path).rstrip("/")
    with tempfile.TemporaryDirectory() as room:
        for source in found(f"{root}/**"):
            local = Path(room, source.removeprefix(f"{root}/"))
            local.parent.mkdir(parents=True, exist_ok=True)
            with opened(source) as file, local.open("wb") as copy:
                shutil.copyfileobj(file, copy)
        yield Path(room)


def sha256(folder):
    """Hex digest of the names and the bytes of the files in a local folder."""
    digest = hashlib.sha256()
    for path in sorted(inside(folder)):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            digest.update(f"{name}\0{files.sha256(path)}\n".encode())
    return digest.hexdigest()
