"""An exported model in a process where this package cannot be imported."""

import contextlib
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

from kanets.export import runtimes


class Process:
    """The program of `kanets.export.runtimes`, which answers job after job.

    Args:
        arguments: list of str, the program's.

    Attributes:
        about: dict, what the program says of the artifact, once entered.

    Raises:
        RuntimeError: the program failed; the message is its own, in one line.
    """

    def __init__(self, arguments):
        self._arguments = arguments

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="kanets-verify-")
            )
            self._folder = pathlib.Path(folder)
            self._errors = stack.enter_context(
                open(self._folder / "errors", "w+", errors="replace")
            )
            # -P: nothing is imported from the folder of the program.
            self._process = subprocess.Popen(
                [sys.executable, "-P", runtimes.__path__[0], *self._arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                encoding="utf-8",
            )
            stack.callback(self._stop)
            self.about = self._read()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception):
        return self._stack.__exit__(*exception)

    def run(self, feeds):
        """The outputs for one batch, a dict of arrays."""
        job = {
            name: str(self._folder / f"{name}.npz")
            for name in ("feeds", "results")
        }
        np.savez(job["feeds"], **feeds)
        with contextlib.suppress(BrokenPipeError):  # `_read` says why
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
        self._read()
        with np.load(job["results"]) as file:
            return {name: file[name] for name in file.files}

    def finish(self):
        """The last answer, when all is done."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        return self._read()

    def _read(self):
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        code = self._process.wait()
        self._errors.seek(0)
        last = (self._errors.read().splitlines() or ["nothing said"])[-1]
        if code == 1:
            raise RuntimeError(last)
        raise RuntimeError(
            "The artifact's process did not end by itself. "
            f"Received: exit status {code}, {last}"
        )

    def _stop(self):
        self._process.kill()  # of no effect once it has ended
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):
                stream.close()
        self._process.wait()
