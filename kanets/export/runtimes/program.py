"""The program: an artifact runs, and answers jobs on the standard input."""

import argparse
import json
import os
import statistics
import sys
import time

import numpy as np

from .base import one_line
from .loading import load

BLOCKED = ("keras", "kanets", "ylg")  # not importable in `main`'s process
_WARM_UP = 3  # calls before those that are timed


def main(arguments=None):
    """The program; returns the exit status.

    What `BLOCKED` names cannot be imported in its process from here on. The
    first line of the standard output says what was loaded: {"format": ...,
    "runtime": ..., "inputs": ..., "outputs": ...}. Then each line of the
    standard input, {"feeds": "a.npz", "results": "b.npz"}, is answered by
    {"results": "b.npz"} once that is written: the first file holds an array
    for each input, the second gets one for each output. So a caller can feed
    more than fits in memory. At the end of the input comes {"latency_ms":
    ..., "peak_mib": ...}: the median of `--rounds` calls with one row of the
    first job (as many as a fixed batch has) after a warm-up, null if there was
    no job; the most memory that this process has held, the runtime's own and
    the jobs' arrays included, null where the system does not tell.

    An error is one line on the standard error, the last one where a runtime
    has logged before, and the status 1. Strings are arrays of dtype S in the
    files, which are read and written without pickle.
    """
    for name in BLOCKED:
        sys.modules[name] = None
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    parser = argparse.ArgumentParser(
        description="Runs an exported model without Keras."
    )
    parser.add_argument("artifact")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args(arguments)
    with open(os.dup(1), "w", buffering=1, encoding="utf-8") as output:
        os.dup2(2, 1)  # what the runtimes print is no answer
        try:
            for answer in _answers(options):
                print(json.dumps(answer), file=output)
        except Exception as error:
            print(one_line(error), file=sys.stderr)
            return 1
    return 0


def _answers(options):
    loaded = load(options.artifact, options.threads)
    names = ("format", "runtime", "inputs", "outputs")
    yield {name: getattr(loaded, name) for name in names}
    first = latency = None
    for line in sys.stdin:
        job = json.loads(line)
        with np.load(job["feeds"], allow_pickle=False) as file:
            feeds = dict(file)
        results = loaded(**feeds)
        for name, array in results.items():
            if array.dtype == object:
                results[name] = array.astype("S")
        np.savez(job["results"], **results)
        yield {"results": job["results"]}
        if first is None:
            few = loaded.fixed_batch or 1
            first = {name: array[:few] for name, array in feeds.items()}
    if first is not None:
        latency = _latency(loaded, first, options.rounds)
    yield {"latency_ms": latency, "peak_mib": _peak_mib()}


def _latency(loaded, feeds, rounds):
    """Median milliseconds of a call."""
    seconds = []
    for _ in range(_WARM_UP + rounds):
        start = time.perf_counter()
        loaded(**feeds)
        seconds.append(time.perf_counter() - start)
    return round(1e3 * statistics.median(seconds[_WARM_UP:]), 3)


def _peak_mib():
    # Not of `resource`: a child's figure begins at its parent's there.
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
        return round(int(lines["VmHWM"].split()[0]) / 1024, 1)
    except (OSError, KeyError):
        return None
