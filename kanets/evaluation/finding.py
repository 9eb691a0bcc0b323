"""What pictures there are: files, folders, addresses, a pipe, videos."""

import collections
import math
import numbers
import os
from pathlib import Path

from kanets.data.pictures import SUFFIXES
from kanets.evaluation.sources import SCHEMES, Address, StandardInput
from kanets.evaluation.videos import VIDEOS, Video


class Pictures:
    """Pictures to be looked at, one after the other; videos by their frames.

    Args:
        found: list of Path, `Source` and `Video`.

    Iterated, it gives paths and sources; its length is how many these are, a
    guess where there are videos.
    """

    def __init__(self, found):
        self.found = found

    def __len__(self):
        return sum(
            len(one) if isinstance(one, Video) else 1 for one in self.found
        )

    def __iter__(self):
        for one in self.found:
            if isinstance(one, Video):
                yield from one
            else:
                yield one

    def check_stems(self):
        """Raises a ValueError where files about pictures would be the same."""
        counts = collections.Counter(one.stem for one in self.found)
        twice = sorted(stem for stem, count in counts.items() if count > 1)
        if twice:
            raise ValueError(
                "The names of the pictures, without folder and suffix, must "
                f"differ. Received: {twice[:20]} more than once"
            )


def find_pictures(paths, every=1.0):
    """Finds pictures, of which none is read.

    Args:
        paths: of each, a picture file; a folder of them; an http or https
            address; "-", a picture on the standard input; or a video file,
            whose frames are the pictures.
        every: positive number, seconds from a frame to the next.

    Returns:
        `Pictures`; one that is given is returned as it is.

    Raises:
        FileNotFoundError: a path that does not exist.
        ValueError: a folder without pictures, an address of another kind,
            "-" twice, or seconds that are none.
    """
    if isinstance(paths, Pictures):
        return paths
    if (
        isinstance(every, bool)
        or not isinstance(every, numbers.Real)
        or not 0 < every < math.inf
    ):
        raise ValueError(
            f"`every` must be a positive number. Received: every={every!r}"
        )
    found = []
    for path in _several(paths):
        scheme, mark, _ = str(path).partition("://")
        if str(path) == "-":
            found.append(StandardInput())
        elif mark and scheme.lower() in SCHEMES:
            found.append(Address(str(path)))
        elif Path(path).suffix.lower() in VIDEOS and not mark:
            [file] = picture_files([path])
            found.append(Video(file, float(every)))
        else:
            found += picture_files([path])
    if sum(isinstance(one, StandardInput) for one in found) > 1:
        raise ValueError(
            "The standard input must be named once. Received: - more than once"
        )
    return Pictures(found)


def _several(paths):
    return [paths] if isinstance(paths, str | os.PathLike) else paths


def inside(path):
    """What is in a folder and in those below it, also behind links."""
    seen = set()
    for folder, below, names in os.walk(path, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link to where it is in
            below.clear()
            continue
        seen.add(real)
        yield from (Path(folder, name) for name in names)


def picture_files(paths):
    """The files, and those of the folders, among `paths`."""
    files = []
    for path in _several(paths):
        if "://" in str(path):
            raise ValueError(
                "A picture must be a file or folder on this machine: download "
                f"it first. Received: {str(path)!r}"
            )
        path = Path(path)
        if path.is_dir():
            found = sorted(
                p
                for p in inside(path)
                if p.suffix.lower() in SUFFIXES
                and not any(n[0] == "." for n in p.relative_to(path).parts)
            )
            if not found:
                raise ValueError(
                    f"The folder holds no pictures. Received: {str(path)!r}"
                )
            files += found
        elif path.is_file():
            files.append(path)
        else:
            raise FileNotFoundError(
                f"There is no such picture. Received: {str(path)!r}"
            )
    return files
