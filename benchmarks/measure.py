"""Paired timings: contenders that take turns, each framework in a process.

A script that measures calls `serve(prepare)` when it is started with
`--worker`, and makes `Worker`s of itself otherwise:

    worker = Worker(__file__, {"KERAS_BACKEND": "jax"})
    figures = take_turns({"ours": (worker, {"net": "kanet"}), ...})

`prepare` makes of a case (the dict's items as arguments) what is called again
and again: a function without arguments that returns when its work is done. A
worker waits between its turns, so that contenders never run at the same time.
The first call, which compiles, and a second are not counted. Slow contenders
have one counted call, quick ones as many as fit in their turns.
"""

import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).parent.parent
GIBIBYTES = 12  # of addresses that a worker may take
# For `peak`: freed blocks go back to the system at once. That of oneDNN's
# kernels keeps them, so that they are off, too.
HONEST_MEMORY = {
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
}

# For times: freed blocks are kept. Beyond 32 MiB the system would take them
# back and clear them anew in each call.
KEPT_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
}


class Failure(Exception):
    """Why a contender gave no figure, in a line."""


def environment(variables):
    """That of a process that imports this project and says little."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        **variables,
    }


class Worker:
    """A process that prepares cases and calls them when asked.

    Args:
        script: its path; run with `--worker`.
        variables: of its environment, beside those of this process.
        seconds: what an answer may take, compilation included.
    """

    def __init__(self, script, variables, seconds=180):
        self.command = [sys.executable, str(script), "--worker"]
        self.environment = environment(variables)
        self.seconds = seconds
        self.process = None

    def ask(self, question, case):
        """The worker's answer; `Failure` if it has none, or died of it."""
        if self.process is None:
            self._start()
        line = json.dumps([question, case]) + "\n"
        try:
            self.process.stdin.write(line.encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # what it died of is read below
        timer = _Timer(self.process, self.seconds)
        with timer:
            answer = self.process.stdout.readline()
        if not answer:
            self.process.wait()
            why = f"not within {self.seconds} s" if timer.rang else self._end()
            self.close()
            raise Failure(why)
        answer = json.loads(answer)
        if isinstance(answer, str):
            raise Failure(answer)
        return answer

    def close(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
            self.process.stdout.close()
            self.errors.close()
            self.process = None

    def _start(self):
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            self.command,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
        )

    def _end(self):
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").split("\n")
        last = ([""] + [line.strip() for line in lines if line.strip()])[-1]
        return f"ended with {self.process.returncode}: {last}"[:200]


class _Timer:
    """Kills a process that takes too long."""

    def __init__(self, process, seconds):
        self.rang = False
        self.process = process
        self.timer = threading.Timer(seconds, self._ring)

    def _ring(self):
        self.rang = True
        self.process.kill()

    def __enter__(self):
        self.timer.start()

    def __exit__(self, *_):
        self.timer.cancel()


def take_turns(contenders, seconds=1.0, rounds=5):
    """Times of contenders that were called in turn.

    Args:
        contenders: dict from a name to (worker, case).
        seconds: of counted calls for each, at most by one call.
        rounds: turns over which they are spread.

    Returns:
        A dict from each name to `{"milliseconds": median, "fastest": ...,
        "slowest": ..., "calls": ..., "note": ""}`, or with a note alone.
    """
    taken, notes = {name: [] for name in contenders}, {}
    for name, (worker, case) in contenders.items():
        try:
            worker.ask("prepare", case)
        except Failure as failure:
            notes[name] = str(failure)
    for _ in range(rounds):
        for name, (worker, case) in contenders.items():
            left = seconds - sum(taken[name])
            if name in notes or left <= 0:
                continue
            try:
                turn = min(left, seconds / rounds)
                taken[name] += worker.ask("time", {**case, "seconds": turn})
            except Failure as failure:
                notes[name] = str(failure)
    for name, (worker, case) in contenders.items():
        if name not in notes and worker.process is not None:
            worker.ask("forget", case)
    return {name: _figures(taken[name], notes.get(name)) for name in taken}


def cpu_turns(calls, turns=15, least=0.15):
    """By name, the milliseconds of CPU time of a call, for each of its turns.

    The calls are functions of this process, which other work on the machine
    disturbs little; two of each are not counted. A turn lasts `least` seconds.
    """
    for call in calls.values():
        call(), call()
    taken = {name: [] for name in calls}
    for _ in range(turns):
        for name, call in calls.items():
            start, done, passed = time.process_time(), 0, 0.0
            while passed < least:
                call()
                done += 1
                passed = time.process_time() - start
            taken[name].append(1e3 * passed / done)
    return taken


def _figures(taken, note):
    if note or not taken:
        names = ("milliseconds", "fastest", "slowest", "calls")
        return {**dict.fromkeys(names, ""), "note": note}
    figures = statistics.median(taken), min(taken), max(taken)
    median, fastest, slowest = (f"{1e3 * f:.4g}" for f in figures)
    return {
        "milliseconds": median,
        "fastest": fastest,
        "slowest": slowest,
        "calls": len(taken),
        "note": "",
    }


def peak_memory(worker, case):
    """MiB by which a process grows during a call; "" where it failed.

    The worker's variables should have `HONEST_MEMORY`.
    """
    try:
        peak = worker.ask("peak", case)
        worker.ask("forget", case)
    except Failure:
        return ""
    return f"{peak:.4g}"


def serve(prepare):
    """Answers a parent's questions until it closes the pipe."""
    import resource

    limit = GIBIBYTES * 1024**3
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what frameworks print is no answer
    functions = {}
    for line in sys.stdin:
        question, case = json.loads(line)
        seconds = case.pop("seconds", None)
        key = json.dumps(case)
        try:
            if question == "forget":
                answer = functions.pop(key, None) is not None
            else:
                if key not in functions:  # also after a death by another case
                    functions[key] = prepare(**case)
                    functions[key]()
                    functions[key]()
                answer = _ANSWERS[question](functions[key], seconds)
        except Exception as error:  # the parent goes on with the others
            text = " ".join(str(error).split())
            answer = f"{type(error).__name__}: {text}"[:200]
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _prepared(function, seconds):
    return {}


def _time(function, seconds):
    taken, start = [], time.perf_counter()
    while True:
        before = time.perf_counter()
        function()
        after = time.perf_counter()
        taken.append(after - before)
        if after - start >= seconds:
            return taken


def _peak(function, seconds):
    time.sleep(0.1)  # JAX gives blocks back a little after its answer
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM becomes VmRSS
    before = _status("VmRSS")
    function()
    return (_status("VmHWM") - before) / 1024


def _status(field):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    raise OSError(f"no {field} in /proc/self/status")


_ANSWERS = {"prepare": _prepared, "time": _time, "peak": _peak}


def machine(*packages):
    """The kind of machine and the versions of packages, for a table."""
    parts = [platform.machine(), f"{os.cpu_count()} cores"]
    for package in packages:
        try:
            parts.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            parts.append(f"no {package}")
    return ", ".join(parts)
