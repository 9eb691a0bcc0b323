"""Magnitude pruning: which weights become zero, when, and that they stay it."""

import json

import keras
import numpy as np
import pytest

import kanets
from kanets import cli, recipes
from kanets.export import runtimes
from kanets.train import pruning
from kanets.train.pruning import MagnitudePruning, sparsity
from tests.backends import BACKEND, needs_8_bits, needs_tensorflow, to_numpy
from tests.photos import write_photos


def wide(input_shape, classes, width=32):
    """Two kernels to be pruned, between what is not."""
    x = inputs = keras.Input(input_shape)
    x = keras.layers.Rescaling(1 / 255, name="scale")(x)
    x = keras.layers.Conv2D(16, 3, strides=2, name="stem")(x)
    x = keras.layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = keras.layers.Conv2D(width, 1, activation="relu", name="expand")(x)
    x = keras.layers.Conv2D(16, 1, name="project")(x)
    x = keras.layers.BatchNormalization(name="bn")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.Dense(classes, activation="softmax", name="predictions")(x)
    return keras.Model(inputs, x, name="wide")


def compiled(rate=0.05, **options):
    keras.utils.set_random_seed(0)
    net = wide((9, 9, 3), 3)
    net.compile(
        keras.optimizers.SGD(rate, momentum=0.9, **options),
        "sparse_categorical_crossentropy",
    )
    return net


def pictures(count=24):
    random = np.random.default_rng(0)
    x = random.uniform(0, 255, (count, 9, 9, 3)).astype("float32")
    return x, np.arange(count) % 3


def fit(net, *callbacks, **options):
    x, y = pictures()
    given = {"batch_size": 8, "shuffle": False, "verbose": 0, **options}
    net.fit(x, y, callbacks=list(callbacks), **given)


def zeros(net):
    """Where a kernel is zero, by the name of its layer."""
    return {
        layer.name: to_numpy(layer.kernel) == 0
        for layer in net.layers
        if hasattr(layer, "kernel")
    }


class Watch(keras.callbacks.Callback):
    """Keeps where zeros are after every step."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(zeros(self.model))


def test_the_share_rises_as_zhu_and_gupta_have_it():
    prune = MagnitudePruning(0.8, to_epoch=5, from_epoch=2)
    found = [prune.share(epochs) for epochs in (0, 1, 2, 3, 4, 5, 9)]
    risen = [1 - 0.75**3, 1 - 0.5**3, 1 - 0.25**3, 1]
    expected = [0, 0, *(0.8 * part for part in risen), 0.8]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_smallest_weights_of_each_kernel_are_taken():
    net = compiled(rate=0.0)
    before = {n: to_numpy(net.get_layer(n).kernel) for n in zeros(net)}
    fit(net, MagnitudePruning(0.75, to_epoch=1))
    for name, found in zeros(net).items():
        if name not in ("expand", "project"):
            assert not found.any(), name
            continue
        sizes = np.abs(before[name])
        assert found.mean() == 0.75
        assert sizes[found].max() < sizes[~found].min()
        kept = to_numpy(net.get_layer(name).kernel)[~found]
        np.testing.assert_array_equal(kept, before[name][~found])
    assert sparsity(net) == 0.75


def test_what_is_zero_stays_zero_and_the_rest_learns(monkeypatch):
    monkeypatch.setattr(pruning, "EVERY", 2)
    net, watch = compiled(), Watch()
    fit(net, MagnitudePruning(0.9, to_epoch=3), watch, epochs=5)
    shares = [seen["expand"].mean() for seen in watch.seen]
    assert shares == sorted(shares)
    assert len(set(shares)) > 4  # within epochs, too
    for earlier, later in zip(watch.seen, watch.seen[1:], strict=False):
        assert not (earlier["expand"] & ~later["expand"]).any()
    at_the_end = watch.seen[9]  # the first step after the third epoch
    np.testing.assert_array_equal(at_the_end["expand"], zeros(net)["expand"])
    assert round(0.9 * 16 * 32) == zeros(net)["expand"].sum()
    assert not to_numpy(net.get_layer("expand").kernel).all()
    kept = compiled().get_layer("expand").kernel
    moved = to_numpy(net.get_layer("expand").kernel) != to_numpy(kept)
    assert moved[~zeros(net)["expand"]].mean() > 0.5  # some ReLUs are shut


def test_a_fit_that_goes_on_takes_up_the_zeros():
    net = compiled()
    fit(net, MagnitudePruning(0.75, to_epoch=2), epochs=2)
    before = zeros(net)
    watch = Watch()
    prune = MagnitudePruning(0.75, to_epoch=2)
    fit(net, prune, watch, initial_epoch=2, epochs=3)
    for seen in watch.seen:
        np.testing.assert_array_equal(seen["expand"], before["expand"])


def test_frozen_layers_are_left():
    net = compiled()
    net.get_layer("expand").trainable = False
    net.compile("sgd", "sparse_categorical_crossentropy")
    fit(net, MagnitudePruning(0.5, to_epoch=1))
    assert not zeros(net)["expand"].any()
    assert zeros(net)["project"].mean() == 0.5
    assert sparsity(net) == 0.25


def test_averages_of_weights_are_pruned():
    net = compiled(use_ema=True, ema_momentum=0.9)
    average = keras.callbacks.SwapEMAWeights()
    fit(net, average, MagnitudePruning(0.5, to_epoch=1), epochs=3)
    assert sparsity(net) == 0.5


@pytest.mark.skipif(
    BACKEND == "torch", reason="Keras takes one step at a time on PyTorch"
)
def test_several_steps_at_a_time():
    net = compiled()
    net.compile("sgd", "sparse_categorical_crossentropy", steps_per_execution=3)
    fit(net, MagnitudePruning(0.5, to_epoch=1), epochs=2)
    assert sparsity(net) == 0.5


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((1.0, 2), r"sparsity must be in \(0, 1\). Received: sparsity=1.0"),
        ((0, 2), "sparsity=0"),
        ((True, 2), "sparsity=True"),
        ((0.5, 0), "to_epoch must be a positive integer. Received: to_epoch=0"),
        ((0.5, 2, 3), "Received: from_epoch=3, to_epoch=2"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, error):
    with pytest.raises(ValueError, match=error):
        MagnitudePruning(*arguments)


def test_a_net_without_such_kernels_is_refused():
    net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    net.compile("sgd", "mse")
    with pytest.raises(ValueError, match="8 channels or more at both ends"):
        net.fit(
            np.ones((2, 4)),
            np.ones((2, 3)),
            callbacks=[MagnitudePruning(0.5, to_epoch=1)],
            verbose=0,
        )


@pytest.fixture
def photos(tmp_path):
    return write_photos(tmp_path, 12, 6, (9, 11), "png")


def recipe(photos, **changes):
    fields = {
        "model": {"name": "wide"},
        "epochs": 4,
        "batch_size": 6,
        "keep": "last",
        "data": {"source": str(photos)},
        "prune": {"sparsity": 0.75, "to_epoch": 2},
        **changes,
    }
    return recipes.from_dict(fields)


@needs_8_bits
def test_a_recipe_prunes_and_then_trains_for_8_bits(
    photos, tmp_path, monkeypatch
):
    monkeypatch.setitem(recipes.NETS, "wide", wide)
    plan = recipe(photos, quantize={"from_epoch": 4})
    recipes.train(plan, tmp_path / "run", verbose=0)
    best = kanets.load_model(tmp_path / "run")
    assert kanets.quantization.is_prepared(best)
    assert sparsity(best) == 0.75


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"keep": "best"}, 'keep must be "last" where weights are pruned'),
        (
            {"prune": {"sparsity": 0.5, "to_epoch": 5}},
            r"prune.to_epoch must be in 1..4. Received",
        ),
        (
            {"quantize": {"from_epoch": 2}},
            r"prune.to_epoch must be in 1..1. Received",
        ),
        ({"finetune": {"frozen_epochs": 1}}, "prune.from_epoch must be 2"),
        ({"prune": {"to_epoch": 2}}, "prune.sparsity must be more than 0"),
        ({"prune": {"sparsity": 1.0}}, "prune.sparsity must be in"),
    ],
)
def test_what_a_recipe_does_not_take(photos, monkeypatch, changes, error):
    monkeypatch.setitem(recipes.NETS, "wide", wide)
    with pytest.raises(ValueError, match=error):
        recipe(photos, **changes)


@needs_tensorflow
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_file_without_zeros_answers_alike(tmp_path, capfd, precision):
    keras.utils.set_random_seed(0)
    net = wide((9, 9, 3), 3, width=1024)
    net.compile("sgd", "sparse_categorical_crossentropy")
    fit(net, MagnitudePruning(0.8, to_epoch=1))
    kanets.save_model(net, tmp_path / "net", "abc")
    answers, sizes = [], []
    for options in ([], ["--sparse"]):
        to = tmp_path / f"file{len(options)}"
        code = cli.main(
            ["export", str(tmp_path / "net"), "--format", "litert"]
            + ["--precision", precision, "--to", str(to), "--json", *options]
        )
        assert code == 0
        assert json.loads(capfd.readouterr().out) == {"artifact": str(to)}
        sizes.append((to / "model.tflite").stat().st_size)
        answers.append(
            runtimes.load(to, 1)(images=pictures(4)[0])["probabilities"]
        )
    np.testing.assert_array_equal(*answers)
    assert sizes[1] < 0.6 * sizes[0]


@needs_tensorflow
def test_8_bits_keep_the_zeros(tmp_path):
    with pytest.raises(ValueError, match="Received: sparse=True, precision='i"):
        kanets.export_litert(
            wide((9, 9, 3), 3),
            tmp_path / "file",
            ["a", "b", "c"],
            precision="int8",
            representative=pictures()[0],
            sparse=True,
        )
    assert not (tmp_path / "file").exists()
