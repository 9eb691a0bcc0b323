"""Which process of a training this one is, as launchers tell it."""

import importlib.util
import ipaddress
from dataclasses import dataclass

from kanets.checks import as_integer, is_positive

# Names of the count of processes, of this one's number, and of the first
# one's host and port, where JAX does not find that itself.
LAUNCHERS = {
    "torchrun": ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT"),
    "Kubernetes": (
        "WORLD_SIZE",
        "JOB_COMPLETION_INDEX",
        "MASTER_ADDR",
        "MASTER_PORT",
    ),
    "Slurm": ("SLURM_NTASKS", "SLURM_PROCID"),
}
_TPU_PORT = 8476  # that of Google's own launchers


@dataclass(frozen=True)
class Place:
    """The place of a process among those of a training.

    Attributes:
        processes: int, how many there are.
        index: int, which this one is, or None: JAX finds out.
        address: "host:port" of the first, or None: JAX finds out.
        device: int, the one local device that is this process's, or None for
            all of the machine or what JAX chooses.
    """

    processes: int
    index: int | None = None
    address: str | None = None
    device: int | None = None

    @property
    def bind_address(self):
        """Where the first listens: on loopback alone, if that is its address.

        Otherwise None, which is JAX's default, all interfaces.
        """
        if self.address is None:
            return None
        host, _, port = self.address.rpartition(":")
        host = "127.0.0.1" if host == "localhost" else host
        try:
            loopback = ipaddress.ip_address(host.strip("[]")).is_loopback
        except ValueError:  # a name
            return None
        return f"{host}:{port}" if loopback else None


def find(environ, address=None, processes=None, index=None):
    """The place that arguments name, or else the environment.

    Args:
        environ: mapping from str to str, such as `os.environ`.
        address, processes, index: as of `Place`. Each that is given counts;
            without `processes` the environment is asked.

    Returns:
        A `Place`, or None where nothing tells of one.

    Raises:
        ValueError: an argument or a variable is out of range; an environment
            tells a part of what is needed.
    """
    if processes is not None:
        place = Place(processes, index, address)
    elif (address, index) != (None, None):
        raise ValueError(
            "The number of processes must be given with their address or "
            f"index. Received: address={address!r}, processes=None, "
            f"index={index!r}"
        )
    else:
        place = _of_launcher(environ)
    return None if place is None else _checked(place)


def _of_launcher(environ):
    told = {}
    for launcher, names in LAUNCHERS.items():
        told = {name: environ[name] for name in names if environ.get(name)}
        if len(told) == len(names):
            count, index, *rest = told.values()
            local = environ.get("LOCAL_WORLD_SIZE", "1") != "1"
            return Place(
                _integer(names[0], count),
                _integer(names[1], index),
                ":".join(rest) or None,
                _integer("LOCAL_RANK", environ.get("LOCAL_RANK"))
                if local and launcher == "torchrun"
                else None,
            )
    hosts = [h for h in environ.get("TPU_WORKER_HOSTNAMES", "").split(",") if h]
    if len(hosts) > 1:
        index = _integer("TPU_WORKER_ID", environ.get("TPU_WORKER_ID"))
        return Place(len(hosts), index, f"{hosts[0]}:{_TPU_PORT}")
    if "WORLD_SIZE" in environ and importlib.util.find_spec("libtpu"):
        return Place(_integer("WORLD_SIZE", environ["WORLD_SIZE"]))
    _refuse_parts(environ)
    return None


def _refuse_parts(environ):
    names = {n: None for names in LAUNCHERS.values() for n in names}
    # A Slurm job that was not started by srun has some of its names.
    told = {n: environ[n] for n in names if environ.get(n)}
    if told:
        ways = "; or ".join(", ".join(names) for names in LAUNCHERS.values())
        raise ValueError(
            "A launcher's environment must tell all of its variables "
            f"({ways}), or every process would train by itself. Received: "
            + ", ".join(f"{n}={v!r}" for n, v in told.items())
        )


def _integer(name, text):
    try:
        return int(text)
    except (TypeError, ValueError):
        raise ValueError(
            f"{name} of the environment must be an integer. "
            f"Received: {name}={text!r}"
        ) from None


def _checked(place):
    if not is_positive(place.processes):
        raise ValueError(
            "The number of processes must be a positive integer. "
            f"Received: processes={place.processes!r}"
        )
    index = as_integer(place.index)
    if place.index is not None and (
        index is None or not 0 <= index < place.processes
    ):
        raise ValueError(
            "The index of a process must be an integer from 0 on, and below "
            f"their number. Received: index={place.index!r}, "
            f"processes={place.processes}"
        )
    if place.address is not None:
        _, colon, port = place.address.rpartition(":")
        if not (colon and port.isdigit()):
            raise ValueError(
                "The address of the first process must be HOST:PORT. "
                f"Received: address={place.address!r}"
            )
    return place
