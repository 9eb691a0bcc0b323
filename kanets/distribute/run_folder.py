"""One run's folder for several processes, without a file system they share."""

import atexit
import contextlib
import io
import os
import sys
import tempfile
import zipfile
from pathlib import Path

from kanets.checks import one_line
from kanets.distribute.processes import broadcast, is_first, several
from kanets.files import locked

_LOST = (
    "All processes must go on, and one of them ended or cannot be reached: "
    "start all again with the same command"
)
_RESUMES = ", and the run continues from its last whole epoch"
# In what JAX says where a process is lost, and of no other error.
_SIGNS = ("gloo", "nccl", "connection", "coordination", "heartbeat", "peer")


@contextlib.contextmanager
def run_folder(directory, names):
    """The folder that a process trains in, locked.

    The first has the run's own. Each other one has a temporary folder with
    the same files in it to begin with, so that it goes the same way; it goes
    away at the end.

    Args:
        directory: the run's folder, new or not.
        names: list of str, the files in it that a training reads.

    Returns:
        A context manager that gives a `pathlib.Path`.

    Raises:
        what `kanets.files.locked` raises, in all processes.
        RuntimeError: another process ended. What leaves this context by an
            error ends the process without waiting for the others.
    """
    directory = Path(directory)
    if not several():
        directory.mkdir(parents=True, exist_ok=True)
        with locked(directory):
            yield directory
        return
    with together(_RESUMES), _shared(directory, names) as folder:
        yield folder


@contextlib.contextmanager
def together(resumes=""):
    """For what all processes do: if one cannot go on, all end.

    Args:
        resumes: str, what is said of their being started again.

    Raises:
        RuntimeError: another process ended. What leaves this context by an
            error ends the process without waiting for the others.
    """
    if not several():
        yield
        return
    from jax.errors import JaxRuntimeError

    try:
        yield
    except BaseException as error:
        # JAX would wait for the others, which may wait for this one.
        atexit.register(_leave)
        if isinstance(error, JaxRuntimeError) and any(
            sign in str(error).lower() for sign in _SIGNS
        ):
            raise RuntimeError(
                f"{_LOST}{resumes}. Received: {one_line(error)}"
            ) from error
        raise


@contextlib.contextmanager
def _shared(directory, names):
    with contextlib.ExitStack() as stack:
        data, failure = b"", None
        if is_first():
            try:
                directory.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(directory))
                data = b"+" + _packed(directory, names)
            except Exception as error:
                data, failure = b"-" + one_line(error).encode(), error
        data = broadcast(data)
        if failure is not None:
            raise failure
        if data[:1] == b"-":
            raise RuntimeError(
                "The first process must have the run's folder. Received: "
                f"{data[1:].decode()}"
            )
        if not is_first():
            temporary = tempfile.TemporaryDirectory(prefix="kanets-")
            directory = Path(stack.enter_context(temporary))
            with zipfile.ZipFile(io.BytesIO(data[1:])) as archive:
                archive.extractall(directory)
        yield directory


def _packed(directory, names):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", strict_timestamps=False) as archive:
        for name in names:
            if (directory / name).exists():
                archive.write(directory / name, name)
    return file.getvalue()


def _leave():
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
