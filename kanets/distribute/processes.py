"""Joins the processes of a training on JAX, and checks that they are one."""

import contextlib
import hashlib
import json
import os
import random

import keras
import numpy as np

from kanets.checks import one_line
from kanets.distribute import environment
from kanets.distribute.mirrored import unmirrored

# A process that is silent for so long is lost, and the others end.
HEARTBEAT_SECONDS = 30
# At the end the others wait for the first one, which may write a report.
_DAY = 86_400
_NEEDS_JAX = (
    "Several processes train on JAX (set KERAS_BACKEND=jax), as Keras 3 does "
    "not train under TensorFlow's strategies for several machines, and has "
    "none on PyTorch; on one machine TensorFlow trains with --devices. "
)


def initialize(address=None, processes=None, index=None):
    """Joins this process to the others of a training, on JAX.

    To be called in each, before anything is computed. Without arguments
    the environment tells who they are: that of torchrun (MASTER_ADDR,
    MASTER_PORT, WORLD_SIZE, RANK), of Kubernetes and JobSet (the same, with
    JOB_COMPLETION_INDEX for RANK), of Slurm's `srun`, or of a pod of TPUs. If
    nothing tells of others, it is one process with all devices of the machine.

    The state of Python's `random`, of which Keras draws the seeds of fresh
    weights and dropout, becomes that of the first in all, so that they make
    the same model.

    Where the first one's address is a loopback address, it listens there
    alone; otherwise on all interfaces, without any secret: keep that port
    from strangers.

    Args:
        address: "HOST:PORT" of the first process, any free port there.
        processes: int, how many there are.
        index: int, which this one is, from 0 on.

    Returns:
        A `keras.distribution.DataParallel` over all devices of all processes,
        for data that `shard` divides. Make and train the model in its
        `scope()`, and load the data outside.

    Raises:
        ValueError: another backend; arguments or an environment that do not
            tell all; one process with one device.
        RuntimeError: JAX counts other processes than were told, as where two
            trainings were started instead of one.
    """
    if keras.backend.backend() != "jax":
        raise ValueError(
            _NEEDS_JAX + f"Received: backend={keras.backend.backend()!r}"
        )
    place = environment.find(os.environ, address, processes, index)
    _join(place)
    _draw_alike()
    return keras.distribution.DataParallel(auto_shard_dataset=False)


def _join(place):
    import jax

    if place is None and jax.distributed.is_initialized():
        return  # by an earlier call, or by who started this process
    if place is None:
        count, index = 1, 0
    else:
        count, index = place.processes, place.index
    if count > 1 and not jax.distributed.is_initialized():
        jax.distributed.initialize(
            coordinator_address=place.address,
            num_processes=count,
            process_id=index,
            local_device_ids=place.device,
            coordinator_bind_address=place.bind_address,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=_DAY,
        )
    found = jax.process_index() if index is None else index
    if (jax.process_count(), jax.process_index()) != (count, found):
        raise RuntimeError(
            "All processes of a training must be joined into one, or each "
            "trains by itself: call `kanets.distribute.initialize` before "
            f"JAX computes. Received: process {found} of {count}, and for JAX "
            f"process {jax.process_index()} of {jax.process_count()}"
        )
    if place is None and jax.device_count() == 1:
        raise ValueError(
            "A training is distributed over several devices or processes, and "
            "neither arguments nor the environment tell of other processes. "
            "Received: 1 process with 1 device"
        )


def _draw_alike():
    if not several():
        return
    state = json.dumps(random.getstate()).encode()
    version, numbers, rest = json.loads(broadcast(state))
    random.setstate((version, tuple(numbers), rest))


def is_first():
    """Whether this is the process whose folder and words count."""
    return not several() or _index() == 0


def several():
    """Whether this is one of several processes."""
    if keras.backend.backend() != "jax":
        return False
    import jax

    return jax.process_count() > 1


@contextlib.contextmanager
def local():
    """For what this process computes by itself: without a distribution."""
    earlier = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        with unmirrored():
            yield
    finally:
        keras.distribution.set_distribution(earlier)


def broadcast(data):
    """Bytes of the first process, in all.

    Args:
        data: bytes, of the first; of others whatever.
    """
    from jax.experimental import multihost_utils

    size = np.array([len(data) >> 24, len(data) & 0xFFFFFF], np.int32)
    high, low = map(int, multihost_utils.broadcast_one_to_all(size))
    whole = np.zeros((high << 24) + low, np.uint8)
    if _index() == 0:
        whole[:] = np.frombuffer(data, np.uint8)
    return multihost_utils.broadcast_one_to_all(whole).tobytes()


def same_everywhere(what, value):
    """Refuses processes that were given different things.

    Args:
        what: str, what must be the same, to begin a sentence with.
        value: str, what this process was given.

    Raises:
        ValueError: in every process that differs from the first, and in the
            first if any does.
    """
    if not several():
        return
    from jax.experimental import multihost_utils

    digest = hashlib.sha256(value.encode()).digest()
    found = multihost_utils.process_allgather(np.frombuffer(digest, np.uint8))
    if (found == found[0]).all():
        return
    others = [i for i, row in enumerate(found) if (row != found[0]).any()]
    raise ValueError(
        f"{what} must be the same in all processes. Received: "
        f"{one_line(value)} in process {_index()}; what process 0 has is not "
        f"that of {others}"
    )


def _index():
    import jax

    return jax.process_index()
