"""Does `kanets predict-many` answer each picture once, even if it is killed?

    python benchmarks/predict_many.py --data cifar10/test

The JPEGs of the class folders are copied, again and again, to one folder of
`--pictures` files, `--bad` of which are cut short, empty or no picture. Then,
each a process of its own, of an exported zoo entry:

- `predict-many`, with a tenth of the files, and with all of them;
- `predict-many` with all of them, killed with SIGKILL `--kills` times, each in
  the midst of a shard that is drawn from the first half, each time begun
  again, and in the end left alone: `equal` says whether all files of answers
  are the same bytes as those of the job that was not disturbed;
- `predict --on-error skip --to answers.parquet`, with a tenth and with all:
  `equal` says whether the classes are the same and the scores to 1e-5.

`once` says whether every name is in the answers or among the bad ones, once.
Pictures per second leave out what a process takes to begin: they are those of
nine tenths of the files, in the time that all take longer than a tenth. Writes
`benchmarks/predict_many.csv`.
"""

import argparse
import collections
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import machine
from pyarrow import parquet
from tables import write

HERE = Path(__file__).parent
BROKEN = (
    lambda data: data[: len(data) // 2],
    lambda data: b"",
    lambda _: b"no",
)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="Class folders of JPEGs.")
    parser.add_argument("--entry", default="kanet_qkv_cifar10")
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--bad", type=int, default=50)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--shard-size", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as room:
        rows = list(measured(Path(room), options))
    write(HERE / "predict_many.csv", rows)


def measured(room, options):
    """Yields the rows of the table."""
    chance = random.Random(options.seed)
    names, bad = write_pictures(room / "all", options, chance)
    few = room / "few"
    few.mkdir()
    for name in sorted(names)[: options.pictures // 10]:
        os.link(room / "all" / name, few / name)
    bundle = room / "bundle"
    run(["export", options.entry, "--to", bundle])
    for command in (many, one):
        small = command(bundle, few, room, options)
        whole = command(bundle, room / "all", room, options)
        number = len(names) - len(list(few.iterdir()))
        speed = number / (whole.seconds - small.seconds)
        for taken, folder in ((small, few), (whole, room / "all")):
            yield row(command.__doc__, taken, folder, options, room, speed)
        if command is many:
            killed = disturbed(bundle, room, options, chance, whole.seconds)
            yield row(
                "predict-many, killed", killed, room / "all", options, room
            )


Taken = collections.namedtuple("Taken", "seconds peak answers kills")


def many(bundle, folder, room, options):
    """predict-many"""
    to = room / f"many-{folder.name}"
    return Taken(*run(many_command(bundle, folder, to, options)), to, 0)


def many_command(bundle, folder, to, options):
    size = ["--shard-size", options.shard_size]
    return ["predict-many", bundle, folder, "--to", to, *size]


def one(bundle, folder, room, options):
    """predict"""
    to = room / f"one-{folder.name}.parquet"
    skip = ["--on-error", "skip"]
    taken = run(["predict", bundle, folder, "--to", to, *skip])
    return Taken(*taken, to, 0)


def disturbed(bundle, room, options, chance, seconds):
    """A job over all pictures, killed and begun again."""
    to, total, most = room / "killed", 0.0, 0
    command = many_command(bundle, room / "all", to, options)
    shards = -(-options.pictures // options.shard_size)
    for written in sorted(chance.sample(range(shards // 2), options.kills)):
        later = chance.uniform(0, seconds / shards)
        taken, peak = run(command, (to, written, later))
        total, most = total + taken, max(most, peak)
    taken, peak = run(command)
    return Taken(total + taken, max(most, peak), to, options.kills)


def run(arguments, kill=None):
    """Runs `kanets`.

    Args:
        arguments: what to type after it.
        kill: None, or when it is killed: a folder, how many shards are there,
            and how many seconds later.

    Returns:
        Its seconds and its peak memory in MiB.
    """
    start = time.perf_counter()
    command = [sys.executable, "-m", "kanets", *map(str, arguments)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    if kill is not None:
        to, written, later = kill
        while not ended(process) and len(list(to.glob("part-*"))) < written:
            time.sleep(0.1)
        time.sleep(later)
        os.kill(process.pid, signal.SIGKILL)  # of no effect where it ended
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    expected = 0 if kill is None else -signal.SIGKILL
    if process.returncode != expected:
        raise RuntimeError(f"{command} ended with {process.returncode}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def ended(process):
    """Whether a process has ended, without taking note of it."""
    states = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return os.waitid(os.P_PID, process.pid, states) is not None


def row(kind, taken, folder, options, room, speed=None):
    """A row of the table, with what was checked."""
    names = {str(path) for path in folder.iterdir()}
    answers, bad = read(taken.answers)
    counts = collections.Counter([*answers, *bad])
    once = max(counts.values()) == 1 and set(counts) <= names
    if taken.answers.is_dir():  # the other names its bad ones on a terminal
        once = once and set(counts) == names
    equal = ""
    if taken.kills:
        equal = content(taken.answers) == content(room / f"many-{folder.name}")
    elif taken.answers.is_file():
        others, _ = read(room / f"many-{folder.name}")
        equal = others.keys() == answers.keys() and all(
            others[name][0] == answers[name][0]
            and abs(others[name][1] - answers[name][1]) < 1e-5
            for name in others
        )
    return {
        "entry": options.entry,
        "command": kind,
        "pictures": len(names),
        "kills": taken.kills,
        "answered": len(answers),
        "bad": len(bad) or len(names) - len(answers),
        "once": once,
        "equal": equal,
        "seconds": f"{taken.seconds:.1f}",
        "pictures_per_second": "" if speed is None else f"{speed:.0f}",
        "peak_mib": f"{taken.peak:.0f}",
        "seed": options.seed,
        "machine": machine("tensorflow", "apache-beam"),
    }


def read(answers):
    """A dict from each picture to class and score, and the bad ones."""
    found, bad = {}, []
    parts = [answers]
    if answers.is_dir():
        parts = sorted(answers.glob("part-*"))
        for path in answers.glob("bad-*"):
            lines = path.read_text().splitlines()
            bad += [json.loads(line)["picture"] for line in lines]
    for part in parts:
        columns = parquet.read_table(part).to_pydict()
        for name, *answer in zip(
            columns["picture"],
            columns["class_1"],
            columns["score_1"],
            strict=True,
        ):
            if name in found:
                raise RuntimeError(f"{name} is answered twice")
            found[name] = answer
    return found, bad


def content(folder):
    """All files of a folder of answers."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def write_pictures(folder, options, chance):
    """Copies pictures to a folder; returns their names, and the bad ones."""
    sources = sorted(Path(options.data).glob("*/*.jpg"))
    folder.mkdir()
    names = [f"{place:07}.jpg" for place in range(options.pictures)]
    bad = set(chance.sample(names, options.bad))
    for place, name in enumerate(names):
        data = sources[place % len(sources)].read_bytes()
        if name in bad:
            data = BROKEN[place % len(BROKEN)](data)
        (folder / name).write_bytes(data)
    return names, bad


if __name__ == "__main__":
    main()
