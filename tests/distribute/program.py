"""What each process of a test runs: `python program.py MODE ARGUMENTS`."""

import functools
import json
import os
import signal
import sys

import keras
import numpy as np

import kanets
from kanets import (
    checkpoints,
    cli,
    data,
    distribute,
    evaluation,
    recipes,
    zoo,
)
from kanets.distribute.mirrored import is_mirrored, mirrored, prepare
from kanets.distribute.processes import is_first, local
from tests.tiny_net import tiny


def train(folder, fields, **options):
    """A recipe; `fields` are JSON."""
    recipes.NETS["tiny"] = functools.partial(tiny, width=8)
    recipe = recipes.from_dict(json.loads(fields))
    result = recipes.train(recipe, folder, verbose=0, **options)
    print(json.dumps({"first": is_first(), **result}))


def train_distributed(folder, fields):
    train(folder, fields, distributed=True)


def train_at(place, folder, fields):
    os.chdir(place)
    train(folder, fields, distributed=True)


def train_and_die(folder, fields):
    """The process of rank 1 is killed as the third epoch begins."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2 and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        begin(self, epoch, logs)

    begin = checkpoints.Progress.on_epoch_begin
    checkpoints.Progress.on_epoch_begin = on_epoch_begin
    train(folder, fields, distributed="WORLD_SIZE" in os.environ)


def step():
    """Weights and figures after one step of 7 pictures, in float64."""
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    several = "WORLD_SIZE" in os.environ
    scope = distribute.initialize().scope() if several else local()
    print(json.dumps(stepped(7, scope)))


def stepped(count, scope):
    rng = np.random.default_rng(0)
    pictures = rng.integers(256, size=(count, 12, 10, 3)).astype("uint8")
    labels = np.arange(count, dtype="int32") % 3
    train, _ = data.load((pictures, labels), batch_size=8, validation=0)
    with scope:
        keras.utils.set_random_seed(0)
        model = tiny((12, 10, 3), 3, width=8)
        model.get_layer("dropout").rate = 0.0
        model.compile(
            keras.optimizers.SGD(0.1, momentum=0.9),
            "sparse_categorical_crossentropy",
            metrics=["accuracy"],
        )
        if is_mirrored():
            prepare(model, train)
        train = distribute.shard(train, model)
        history = model.fit(train, shuffle=False, verbose=0).history
        figures = model.evaluate(train, verbose=0)
        trained = [keras.ops.convert_to_numpy(v) for v in model.variables]
    assert any(w.dtype == keras.config.floatx() for w in trained)
    weights = [w.ravel() for w in trained if "float" in str(w.dtype)]
    values = np.concatenate([*weights, history["loss"], figures])
    return values.tolist(), history["accuracy"]


def mirror(folder, fields):
    """Two virtual devices of TensorFlow: steps, and a recipe."""
    import tensorflow as tf

    [cpu] = tf.config.list_physical_devices("CPU")
    one = tf.config.LogicalDeviceConfiguration()
    tf.config.set_logical_device_configuration(cpu, [one] * 2)
    found = [stepped(8, mirrored(devices)) for devices in (1, 2)]
    train(folder, fields, devices=2)
    try:
        train(folder, fields, devices=3)
    except ValueError as error:
        print(json.dumps([*found, str(error)]))


def divide():
    """A ViT on 2 x 2 devices and on one: answers, and after a step."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(256, size=(7, 16, 16, 3)).astype("uint8")
    labels = np.arange(7, dtype="int32") % 3
    found, parts = [], {}
    for scope in (local(), distribute.layout(2).scope()):
        # Anew, as its epochs are counted.
        train, _ = data.load((pictures, labels), batch_size=4, validation=0)
        with scope:
            keras.utils.set_random_seed(0)
            model = kanets.ViT((16, 16, 3), classes=3, patch_size=4, depth=1)
            model.compile("sgd", "sparse_categorical_crossentropy")
            shares = distribute.shard(train, model)
            before = model.evaluate(shares, verbose=0)
            history = model.fit(shares, shuffle=False, verbose=0).history
            after = model.evaluate(shares, verbose=0)
            found.append([before, *history["loss"], after])
            for weight in model.weights:
                [part, *_] = weight.value.addressable_shards
                if part.data.shape != weight.shape:
                    parts[weight.path] = [weight.shape, part.data.shape]
    print(json.dumps([found, parts]))


def measure(model, source, distributed=""):
    """What a model says of labelled pictures, by each way there is."""
    scope = distribute.initialize().scope() if distributed else local()
    found = data.load_test(source, image_size=(32, 32), batch_size=64)
    with scope:
        net = zoo.load_model(model)
        net.compile(
            loss="sparse_categorical_crossentropy", metrics=["accuracy"]
        )
        # Steps that were compiled before do not stay. Of several processes
        # Keras answers no pictures that are not divided.
        several, rows = "WORLD_SIZE" in os.environ, None
        some = found.pictures.take(range(8))  # as many as fill up the last
        if not several:
            net.predict(some, verbose=0)
        shares = distribute.shard(found, net)
        figures = net.evaluate(shares, verbose=0)
        probabilities = net.predict(shares, verbose=0)
        if not several:
            rows = len(net.predict(some, verbose=0))
    result = evaluation.evaluate(model, source, distributed=bool(distributed))
    values = [figures, probabilities.tolist()]
    print(json.dumps([values, rows, result]))


def segment(folder, fields, model, source, distributed=""):
    """A recipe of a segmenter, and what one measures of pictures."""
    several = bool(distributed)
    train(folder, fields, distributed=several)
    result = evaluation.evaluate(
        model, source, ignore_label=7, distributed=several
    )
    print(json.dumps(result))


def command(*arguments):
    sys.exit(cli.main(arguments))


def join():
    distribute.initialize()


def join_again():
    """As in a script that calls it, and `recipes.train` again."""
    place = os.environ.pop("MASTER_ADDR") + ":" + os.environ.pop("MASTER_PORT")
    count, index = (int(os.environ.pop(x)) for x in ("WORLD_SIZE", "RANK"))
    distribute.initialize(place, count, index)
    found = distribute.initialize()
    print(json.dumps([found.num_processes, is_first()]))


def join_alone():
    """JAX was set up before, for a training of this process alone."""
    import jax

    jax.distributed.initialize(
        "127.0.0.1:" + os.environ["ALONE"],
        1,
        0,
        coordinator_bind_address="127.0.0.1:" + os.environ["ALONE"],
    )
    distribute.initialize()


if __name__ == "__main__":
    try:
        globals()[sys.argv[1]](*sys.argv[2:])
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {error}")
