"""What TensorFlow's C++ says on standard error as it starts, left out."""

import contextlib
import os
import re
import sys
import threading

# News and warnings of its two loggers, and that there is no GPU.
_NOISE = re.compile(
    rb"[IW]\d{4} \d\d:|E\d{4} .*failed call to cuInit"
    rb"|\d{4}-\d\d-\d\d .*: [IW] (tensorflow|external)/"
    rb"|WARNING: All log messages before absl::InitializeLog"
    rb"|To enable the following instructions:"
)
_PATIENCE = 1.0  # seconds, for what a child process may still hold


@contextlib.contextmanager
def quiet():
    """Lets all but such lines through to file descriptor 2.

    Python's own `sys.stderr` is not touched in this: it writes past the
    filter, and is a terminal where it was one.
    """
    if sys.stderr is not sys.__stderr__ or sys.stderr.fileno() != 2:
        yield  # someone else has it already, such as a notebook or a test
        return
    sys.stderr.flush()
    past = os.dup(2)
    read, write = os.pipe()
    os.dup2(write, 2)
    os.close(write)
    passing = threading.Thread(target=_pass, args=(read, past), daemon=True)
    passing.start()
    sys.stderr = os.fdopen(
        past, "w", 1, sys.stderr.encoding, sys.stderr.errors, closefd=False
    )
    try:
        yield
    finally:
        sys.stderr.flush()
        sys.stderr = sys.__stderr__
        os.dup2(past, 2)  # which ends the pipe, and so the thread
        passing.join(_PATIENCE)


def _pass(source, target):
    """Copies lines, but for noise, until the source ends."""
    with open(source, "rb") as lines:
        for line in lines:
            if not _NOISE.match(line):
                os.write(target, line)
