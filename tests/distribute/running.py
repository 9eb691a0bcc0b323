"""Runs `program.py` in processes of their own, on JAX and on loopback."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).with_name("program.py")
ROOT = PROGRAM.parents[2]
PATIENCE = 600  # seconds, of a busy machine
_LAUNCHERS = ("WORLD_SIZE", "RANK", "MASTER_", "SLURM_", "TPU_", "JOB_", "XLA_")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


def start(*arguments, **variables):
    """A process of the program, with these environment variables."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_LAUNCHERS)
    }
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), *map(str, arguments)],
        cwd=ROOT,
        env={
            **environment,
            "PYTHONPATH": str(ROOT),
            **{"KERAS_BACKEND": "jax", **variables},
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_several(argument_lists, **variables):
    """Processes that are told of each other as torchrun does it."""
    port = free_port()
    return [
        start(
            *arguments,
            WORLD_SIZE=str(len(argument_lists)),
            RANK=str(rank),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=port,
            **variables,
        )
        for rank, arguments in enumerate(argument_lists)
    ]


def ended(processes):
    """(exit code, standard output, standard error) of each, in order."""
    try:
        outputs = [p.communicate(timeout=PATIENCE) for p in processes]
    except BaseException:
        for process in processes:
            process.kill()
        for process in processes:
            process.communicate()
        raise
    return [
        (process.returncode, *output)
        for process, output in zip(processes, outputs, strict=True)
    ]


def printed(processes):
    """What each printed last, of JSON, where all did their work."""
    found = ended(processes)
    for code, _, errors in found:
        assert code == 0, errors[-2000:]
    return [json.loads(out.splitlines()[-1]) for _, out, _ in found]
