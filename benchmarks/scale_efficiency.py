"""What do two processes of one core each train, over one of one core?

    python benchmarks/scale_efficiency.py

`kanets.distribute` under JAX, on the embedded pictures: a KANet of half width
at 64 px, the batch of 64 whole or halved, each process pinned to a core of its
own (Linux). A row a run to `scale_efficiency.csv`: the seconds of an epoch,
the second of three, which neither compiles nor ends; turns of one and two
processes, three of each.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import machine
from tables import write

HERE = Path(__file__).parent
ROUNDS, PICTURES = 3, 900
PROGRAM = """
import json, os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
import keras
import kanets
from kanets import distribute

processes = int(sys.argv[2])
train, _ = kanets.data.load(sys.argv[3], image_size=(64, 64), batch_size=64)
seconds = []

class Clock(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        seconds.append(time.perf_counter() - self.start)

def fit():
    keras.utils.set_random_seed(0)
    model = kanets.KANet((64, 64, 3), 0.5, classes=10)
    model.compile("adamw", "sparse_categorical_crossentropy")
    batches = distribute.shard(train, model) if processes > 1 else train
    model.fit(batches, epochs=3, verbose=0, shuffle=False, callbacks=[Clock()])

if processes > 1:
    with distribute.initialize().scope():
        fit()
else:
    fit()
print(json.dumps(seconds[1]))
"""


def run(processes, folder):
    """Seconds of an epoch, of the first process."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "PYTHONPATH": str(HERE.parent),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(processes),
    }
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM]
            + [str(index), str(processes), str(folder)],
            env={**environment, "RANK": str(index)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in range(processes)
    ]
    said = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        sys.exit("a process failed")
    return json.loads(said[0].splitlines()[-1])


def main():
    import kanets

    rows = []
    with tempfile.TemporaryDirectory() as room:
        folder = kanets.data.unpack_sample(Path(room, "pictures"))
        for turn in range(ROUNDS):
            for processes in (1, 2):
                seconds = run(processes, folder)
                rows.append(
                    {
                        "processes": processes,
                        "turn": turn,
                        "seconds_an_epoch": f"{seconds:.2f}",
                        "pictures_per_second": f"{PICTURES / seconds:.1f}",
                        "machine": machine("keras", "jax"),
                    }
                )
                print(rows[-1], flush=True)
                write(HERE / "scale_efficiency.csv", rows)
    rates = [
        statistics.median(
            float(row["pictures_per_second"])
            for row in rows
            if row["processes"] == processes
        )
        for processes in (1, 2)
    ]
    print(f"{rates[0]:.1f} and {rates[1]:.1f} pictures a second")
    print(f"{100 * rates[1] / 2 / rates[0]:.0f} % of twice one process")


if __name__ == "__main__":
    main()
