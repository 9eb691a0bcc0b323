"""Which process of a training this is, as launchers and arguments tell it."""

import pytest

from kanets.distribute.environment import Place, find

MASTER = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "1234"}


@pytest.mark.parametrize(
    ("environ", "place"),
    [
        (
            {**MASTER, "WORLD_SIZE": "4", "RANK": "3"},
            Place(4, 3, "10.0.0.1:1234"),
        ),
        (
            {
                **MASTER,
                "WORLD_SIZE": "4",
                "RANK": "3",
                "LOCAL_WORLD_SIZE": "2",
                "LOCAL_RANK": "1",
            },
            Place(4, 3, "10.0.0.1:1234", device=1),
        ),
        (
            {**MASTER, "WORLD_SIZE": "2", "JOB_COMPLETION_INDEX": "0"},
            Place(2, 0, "10.0.0.1:1234"),
        ),
        # JAX knows Slurm's list of nodes.
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "7"}, Place(8, 7)),
        (
            {"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "1"},
            Place(2, 1, "a:8476"),
        ),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, None),
        ({}, None),
    ],
)
def test_launchers(environ, place):
    assert find(environ) == place


def test_arguments_take_the_place_of_the_environment():
    environ = {**MASTER, "WORLD_SIZE": "4", "RANK": "3"}
    assert find(environ, "one:1", 2, 0) == Place(2, 0, "one:1")
    assert find(environ, processes=2) == Place(2)


@pytest.mark.parametrize(
    ("address", "bind"),
    [
        ("127.0.0.1:80", "127.0.0.1:80"),
        ("localhost:80", "127.0.0.1:80"),
        ("[::1]:80", "[::1]:80"),
        ("10.0.0.1:80", None),
        ("head:80", None),
        (None, None),
    ],
)
def test_a_loopback_address_is_listened_at_alone(address, bind):
    assert Place(2, 0, address).bind_address == bind


@pytest.mark.parametrize(
    ("environ", "arguments", "error"),
    [
        # As in a pod that was given no number of processes.
        (
            {"JOB_COMPLETION_INDEX": "1"},
            {},
            "tell all of its variables .* Received: JOB_COMPLETION_INDEX='1'$",
        ),
        ({"RANK": "0"}, {}, "or every process would train by itself"),
        ({"WORLD_SIZE": "2"}, {}, "Received: WORLD_SIZE='2'$"),
        (
            {**MASTER, "WORLD_SIZE": "2", "RANK": "2"},
            {},
            "below their number. Received: index=2, processes=2$",
        ),
        (
            {**MASTER, "WORLD_SIZE": "two", "RANK": "0"},
            {},
            "must be an integer. Received: WORLD_SIZE='two'$",
        ),
        (
            {"TPU_WORKER_HOSTNAMES": "a,b"},
            {},
            "must be an integer. Received: TPU_WORKER_ID=None$",
        ),
        ({}, {"processes": 0}, "a positive integer. Received: processes=0$"),
        ({}, {"processes": 2, "index": -1}, "Received: index=-1, processes=2$"),
        ({}, {"index": 1}, "must be given with their address or index. Rec"),
        (
            {},
            {"processes": 2, "index": 0, "address": "head"},
            "must be HOST:PORT. Received: address='head'$",
        ),
    ],
)
def test_what_tells_a_part_or_what_cannot_be(environ, arguments, error):
    with pytest.raises(ValueError, match=error):
        find(environ, **arguments)
