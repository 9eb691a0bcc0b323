"""Two processes on loopback, and four devices of one, train as one does."""

import json
import shutil

import keras
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
from tests.photos import write_streets
from tests.tiny_net import tiny

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


@pytest.mark.slow
def test_four_devices_of_one_process_do_too(sample, reference, tmp_path):
    flags = "--xla_force_host_platform_device_count=4"
    folder = tmp_path / "run"
    program = ("train_distributed", folder, fields(sample))
    printed([start(*program, XLA_FLAGS=flags)])
    assert (folder / "log.csv").read_text() == reference


@pytest.mark.slow
def test_a_run_that_lost_a_process_is_resumed(sample, reference, tmp_path):
    folder = tmp_path / "run"
    arguments = ("train_and_die", folder, fields(sample))
    both = start_several([arguments] * 2, TMPDIR=str(tmp_path))
    (code, _, error), (killed, _, _) = ended(both)
    assert (code, killed) == (1, -9)
    assert "All processes must go on, and one of them ended" in error
    assert "continues from its last whole epoch. Received: " in error
    log = (folder / "log.csv").read_text()
    assert reference.startswith(log) and len(log.splitlines()) == 3
    # By one process, which reads what two have written.
    printed([start("train", folder, fields(sample))])
    assert (folder / "log.csv").read_text() == reference


@pytest.mark.slow
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


@pytest.fixture(scope="module")
def labelled(sample, tmp_path_factory):
    """199 pictures, which no number of devices divides, and a net."""
    room = tmp_path_factory.mktemp("labelled")
    shutil.copytree(sample / "val", room / "photos")
    classes = sorted(path.name for path in (room / "photos").iterdir())
    next((room / "photos" / classes[0]).iterdir()).unlink()
    keras.utils.set_random_seed(0)
    net = tiny((32, 32, 3), len(classes))
    zoo.save_model(net, room / "net", classes)
    return room / "net", room / "photos"


def test_each_picture_is_measured_once(labelled, tmp_path):
    [(expected, rows, result)] = printed([start("measure", *labelled)])
    assert (rows, result["pictures"]) == (8, 199)
    assert 0 < result["correct"] < 199
    assert np.shape(expected[1]) == (199, 10)
    divided = ("measure", *labelled, "distributed")
    flags = "--xla_force_host_platform_device_count=4"
    both = printed(start_several([divided] * 2))
    four = printed([start(*divided, XLA_FLAGS=flags)])
    assert [number for _, number, _ in (*both, *four)] == [None, None, 8]
    for found, _, other in (*both, *four):
        assert other == result
        for one, another in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, another, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_the_command_measures_in_two_processes(labelled, tmp_path):
    model, photos = labelled
    command = ("command", "evaluate", model, "--data", photos, "--json")
    [expected] = printed([start(*command)])
    both = [(*command, "--distributed", "--report", tmp_path / "report")] * 2
    first, other = ended(start_several(both))
    assert (first[0], other[0]) == (0, 0), (first, other)
    found = json.loads(first[1].splitlines()[-1])
    assert expected.items() <= found.items()
    assert '"accuracy"' not in other[1]
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert sum(map(sum, report["confusion"])) == 199
    # Not the same weights: JAX says so.
    net = zoo.load_model(model)
    net.set_weights([weight + 1 for weight in net.get_weights()])
    zoo.save_model(net, tmp_path / "other", net.class_names)
    both[1] = (*command[:2], tmp_path / "other", *both[1][3:])
    for error in errors_of(both):
        assert error.startswith("kanets: error: Keras cannot load this model")


@pytest.mark.slow
def test_two_processes_learn_from_one_teacher(
    sample, labelled, reference, tmp_path
):
    distilled = fields(sample, epochs=2, distill={"teacher": str(labelled[0])})
    printed([start("train", tmp_path / "alone", distilled)])
    expected = (tmp_path / "alone" / "log.csv").read_text()
    assert expected.splitlines()[1] not in reference
    program = "train_distributed", tmp_path / "both", distilled
    printed(start_several([program] * 2, TMPDIR=str(tmp_path)))
    assert (tmp_path / "both" / "log.csv").read_text() == expected
    flags = "--xla_force_host_platform_device_count=4"
    program = "train_distributed", tmp_path / "four", distilled
    printed([start(*program, XLA_FLAGS=flags)])
    assert (tmp_path / "four" / "log.csv").read_text() == expected


def segmenter(classes):
    """A segmenter of pictures of any size."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1.0)(inputs)
    x = keras.layers.Conv2D(4, 3, padding="same", name="conv")(x)
    x = keras.layers.BatchNormalization(name="bn")(x)
    x = keras.layers.Conv2D(classes, 1, name="predictions")(x)
    x = keras.layers.Softmax(name="probabilities")(x)
    return keras.Model(inputs, x, name="segmenter")


@pytest.mark.slow
def test_two_processes_train_and_measure_a_segmenter(tmp_path):
    streets = write_streets(tmp_path / "streets", 7, 3, (12, 16))
    names = ["blue", "red"]
    model = zoo.save_model(segmenter(2), tmp_path / "net", names)
    plan = {
        "segmenter": {"name": str(model)},
        "epochs": 3,
        "batch_size": 3,
        "data": {
            "source": str(streets),
            "class_names": names,
            "ignore_label": 7,
        },
        "augment": {"crop_size": [8, 8], "scale": 1.5},
        # Small enough for rounding not to grow.
        "optimize": {"name": "adamw", "learning_rate": 1e-6},
    }

    def program(name, *distributed):
        folder = tmp_path / name
        return (
            "segment",
            folder,
            json.dumps(plan),
            model,
            streets,
        ) + distributed

    [expected] = printed([start(*program("alone"))])
    assert expected["pictures"] == 3 and 0 < expected["mean_iou"] < 1
    log = (tmp_path / "alone" / "log.csv").read_text()
    assert len(log.splitlines()) == 4
    several = program("both", "distributed")
    both = printed(start_several([several] * 2, TMPDIR=str(tmp_path)))
    assert (tmp_path / "both" / "log.csv").read_text() == log
    assert both == [expected] * 2


@pytest.mark.slow
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
            "ValueError: The recipe must be the same in all processes. "
            "Received: "
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
