"""Two processes on loopback, and four devices of one, train as one does."""

import json
import shutil

import numpy as np
import pytest

from kanets import data, zoo
from tests.distribute.running import (
    ended,
    free_port,
    printed,
    start,
    start_several,
)

pytest.importorskip("jax", reason="several processes train on JAX")
pytestmark = pytest.mark.thorough  # each starts processes that compile


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return data.unpack_sample(tmp_path_factory.mktemp("data") / "sample")


def fields(source, **changes):
    # Neither 127 nor what is left of 900 and of 200 divides among devices.
    return json.dumps(
        {
            "model": {"name": "tiny"},
            "epochs": 4,
            "batch_size": 127,
            "data": {"source": str(source)},
            "augment": {"crop": 2},
            "optimize": {"learning_rate": 0.05, "weight_decay": 1e-4},
            **changes,
        }
    )


@pytest.fixture(scope="module")
def reference(sample, tmp_path_factory):
    """The log of a run of one process, on one device."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    printed([start("train", folder, fields(sample))])
    return (folder / "log.csv").read_text()


def test_two_processes_write_the_log_of_one(sample, reference, tmp_path):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    arguments = [
        ("train_distributed", tmp_path / "run", fields(sample)),
        ("train_distributed", tmp_path / "nowhere", fields(sample)),
    ]
    results = printed(start_several(arguments, TMPDIR=str(temporary)))
    assert (tmp_path / "run" / "log.csv").read_text() == reference
    assert [result.pop("first") for result in results] == [True, False]
    assert results[0]["val_loss"] == results[1]["val_loss"]
    assert not (tmp_path / "nowhere").exists()
    assert not list(temporary.glob("kanets-*"))
    model = zoo.load_model(tmp_path / "run" / "best")
    assert np.isfinite(model.predict(np.zeros((1, 32, 32, 3)), verbose=0)).all()


def test_four_devices_of_one_process_do_too(sample, reference, tmp_path):
    flags = "--xla_force_host_platform_device_count=4"
    folder = tmp_path / "run"
    program = ("train_distributed", folder, fields(sample))
    printed([start(*program, XLA_FLAGS=flags)])
    assert (folder / "log.csv").read_text() == reference


def test_a_run_that_lost_a_process_is_resumed(sample, reference, tmp_path):
    folder = tmp_path / "run"
    arguments = ("train_and_die", folder, fields(sample))
    both = start_several([arguments] * 2, TMPDIR=str(tmp_path))
    (code, _, error), (killed, _, _) = ended(both)
    assert (code, killed) == (1, -9)
    assert "All processes of a training must go on, and one of them" in error
    assert "continues from its last whole epoch. Received: " in error
    log = (folder / "log.csv").read_text()
    assert reference.startswith(log) and len(log.splitlines()) == 3
    # By one process, which reads what two have written.
    printed([start("train", folder, fields(sample))])
    assert (folder / "log.csv").read_text() == reference


def test_a_run_of_one_process_is_resumed_by_two(sample, reference, tmp_path):
    folder = tmp_path / "run"
    program = ("train_distributed", folder, fields(sample))
    assert ended([start("train_and_die", folder, fields(sample), RANK="1")])
    assert not (folder / "result.json").exists()
    printed(start_several([program] * 2, TMPDIR=str(tmp_path)))
    assert (folder / "log.csv").read_text() == reference


def test_a_step_of_two_is_that_of_one_in_float64():
    exact = {"JAX_ENABLE_X64": "1"}
    [(alone, accuracy)] = printed([start("step", **exact)])
    both = printed(start_several([("step",)] * 2, **exact))
    for values, accuracies in both:
        np.testing.assert_allclose(values, alone, rtol=0, atol=1e-7)
        assert accuracies == accuracy


def test_a_vit_of_divided_weights_answers_as_a_whole_one():
    flags = "--xla_force_host_platform_device_count=4"
    [[(whole, divided), parts]] = printed([start("divide", XLA_FLAGS=flags)])
    np.testing.assert_allclose(divided, whole, rtol=1e-4)
    assert parts["block_0_mlp_expand/kernel"] == [[192, 768], [192, 384]]
    assert parts["block_0_attention/output/kernel"] == [[192, 192], [96, 192]]
    assert len(parts) == 10


def errors_of(arguments, **variables):
    found = ended(start_several(arguments, **variables))
    assert all(code == 1 for code, _, _ in found)
    return [error.splitlines()[-1] for _, _, error in found]


def test_processes_of_different_recipes_are_refused(sample, tmp_path):
    arguments = [
        ("train_distributed", tmp_path / "run", fields(sample, seed=seed))
        for seed in (0, 1)
    ]
    for error in errors_of(arguments, TMPDIR=str(tmp_path)):
        assert error.startswith(
            "ValueError: The recipe must be the same in all processes of a "
            "training. Received: "
        )


def test_processes_of_different_pictures_are_refused(sample, tmp_path):
    # Each machine has its own copy of what the recipe calls by one name.
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        shutil.copytree(sample, folder / "photos")
    next((folders[1] / "photos" / "train" / "cat").iterdir()).unlink()
    arguments = [
        ("train_at", folder, tmp_path / "run", fields("photos"))
        for folder in folders
    ]
    found = errors_of(arguments, TMPDIR=str(tmp_path))
    assert "What a set holds must be the same in all processes" in found[0]
    assert "900 pictures" in found[0] and "899 pictures" in found[1]


def test_a_training_that_jax_was_not_told_of_is_refused():
    [(code, _, error)] = ended(
        [
            start(
                "join_alone",
                WORLD_SIZE="2",
                RANK="1",
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=free_port(),
                ALONE=free_port(),
            )
        ]
    )
    assert code == 1
    assert "joined into one, or each trains by itself" in error
    assert "Received: process 1 of 2, and for JAX process 0 of 1" in error


def test_processes_that_arguments_tell_of_are_joined_once():
    both = printed(start_several([("join_again",)] * 2))
    assert both == [[2, True], [2, False]]


def test_one_process_with_one_device_is_refused():
    [(code, _, error)] = ended([start("join")])
    assert code == 1
    assert "Received: 1 process with 1 device" in error
