"""Files and folders: written whole or not at all, read in UTF-8, locked.

Imports nothing of the package, and may be imported by all of it.
"""

import contextlib
import errno
import hashlib
import os
import shutil
import socket
import uuid
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt

LABELS = "labels.txt"
LOCK = ".lock"
TEMPORARY = ".tmp-"
OLD = ".old"
_ROOM = 2**20  # With less than a MiB free, what fails fails for that.
# What a system says of a place, and of a lock, that another holds.
_TAKEN = {errno.EEXIST, errno.ENOTEMPTY}
_HELD = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK}


@contextlib.contextmanager
def whole(path, size=0, replace=True):
    """Gives a path to write at, which takes the place of `path` at the end.

    Whoever reads `path` finds the earlier one or the new one; of a folder, for
    the moment between two renames, none. Any number of processes may write at
    once: the last one wins. Nothing is left of a write that fails. One that is
    killed leaves `.tmp-<name>-<hex>`, with the suffixes of `path`; killed
    between the two renames, also the earlier folder, as `.<name>.<hex>.old`.
    `locked` clears the former and puts back the latter.

    Args:
        path: the file or folder; its parent must exist.
        size: about how many bytes will be written, where that is known:
            without room for them nothing is begun.
        replace: whether what is there may be replaced.

    Raises:
        OSError: the system refused or the disk is full; it names `path`.
        FileExistsError: something is there, and `replace` is False.
    """
    path = Path(path)
    stem, dot, suffixes = path.name.partition(".")
    name = f"{TEMPORARY}{stem}-{uuid.uuid4().hex}{dot}{suffixes}"
    fresh = path.with_name(name)
    try:
        if _room(path.parent) < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield fresh
        _move(fresh, path, replace)
    except FileExistsError:
        raise
    except Exception as error:
        full = _room(path.parent) < _ROOM
        if not isinstance(error, OSError) and not full:
            raise
        number = getattr(error, "errno", None) or (errno.ENOSPC if full else 0)
        reason = os.strerror(number) if number else str(error)
        failure = OSError(
            f"{str(path)!r} could not be written, and is as it was before: "
            f"{reason}. Make room or permit it, then repeat the command"
        )
        failure.errno = number or None
        raise failure from error
    finally:
        _remove(fresh)


def write_text(path, text):
    """Writes a text file in UTF-8, whole or not at all; see `whole`."""
    with whole(path) as fresh:
        fresh.write_text(text, encoding="utf-8")


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


def sha256(path):
    """Hex digest of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_labels(folder, labels):
    """Writes `labels.txt`, a label a line, where there are labels."""
    if text := "".join(f"{label}\n" for label in labels):
        (Path(folder) / LABELS).write_text(text, encoding="utf-8")


def read_labels(folder):
    """The labels that `write_labels` wrote, a tuple of strings, or None.

    Raises:
        ValueError: as `read_text`.
    """
    path = Path(folder) / LABELS
    if not path.exists():
        return None
    return tuple(read_text(path).removesuffix("\n").split("\n"))


@contextlib.contextmanager
def locked(folder):
    """Keeps a folder for this process, and clears up after killed ones.

    The lock is the operating system's, on a file `.lock` that also tells who
    holds it: it ends with the process, however that ends, and what a dead one
    left behind locks nothing. Where a file system has no locks, as some
    network drives, or the folder cannot be written to, nothing is locked.

    Args:
        folder: an existing folder.

    Raises:
        BlockingIOError: another process has it, which is named.
    """
    path = Path(folder) / LOCK
    file = _lock(path)
    if file is None:
        yield
        return
    try:
        for old in path.parent.glob(f".*{OLD}"):
            name = old.name[1:].removesuffix(OLD).rpartition(".")[0]
            _put_back(old, path.with_name(name))
        for pattern in (f".*{OLD}", f"{TEMPORARY}*"):
            for left in path.parent.glob(pattern):
                _remove(left)
        yield
    finally:
        # Before the lock ends; Windows refuses, and leaves an empty file.
        os.ftruncate(file, 0)
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(file)


def _lock(path):
    """The descriptor of a locked file, or None where there are no locks."""
    for _ in range(10):
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT)
        except OSError:
            return None
        try:
            _lock_file(file)
            if os.path.samestat(os.fstat(file), os.stat(path)):
                os.ftruncate(file, 0)
                holder = f"process {os.getpid()} on {socket.gethostname()}"
                os.write(file, holder.encode())
                return file
            # The one before removed it after it was opened here: once more.
        except FileNotFoundError:
            pass
        except OSError as error:
            os.close(file)
            if error.errno not in _HELD:
                _remove(path)
                return None
            raise BlockingIOError(
                f"This folder is in use by {_holder(path)}: let it end, or "
                f"choose another folder. Received: {str(path.parent)!r}"
            ) from None
        os.close(file)
    return None


def _lock_file(file):
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        # Windows keeps others from reading what is locked: far from the text.
        os.lseek(file, _ROOM, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        os.lseek(file, 0, os.SEEK_SET)


def _holder(path):
    try:
        return path.read_text(encoding="utf-8") or "another process"
    except (OSError, UnicodeDecodeError):
        return "another process"


def _room(folder):
    """Free bytes; endless where the file system does not tell."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return float("inf")
    return usage.free if usage.total else float("inf")


def _move(fresh, path, replace):
    if replace and fresh.is_dir():
        _replace_folder(fresh, path)
    elif replace:
        os.replace(fresh, path)
    else:
        # An empty folder would be replaced, one with files in it is not.
        try:
            fresh.rename(path)
        except OSError as error:
            if path.exists():
                raise FileExistsError(errno.EEXIST, "exists", path) from error
            raise


def _replace_folder(fresh, path):
    """No system replaces a folder in one step: the earlier one steps aside."""
    while True:
        old = path.with_name(f".{path.name}.{uuid.uuid4().hex}{OLD}")
        with contextlib.suppress(FileNotFoundError):
            path.rename(old)
        try:
            fresh.rename(path)
        except BaseException as error:
            if getattr(error, "errno", None) not in _TAKEN:
                _put_back(old, path)
                raise
            # Another process has put its own there in between: once more.
        else:
            return
        finally:
            _remove(old)


def _put_back(old, path):
    if old.exists() and not path.exists():
        old.rename(path)


def _remove(path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
