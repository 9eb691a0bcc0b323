"""Does every net of keras.applications answer as before with attention in it?

    python benchmarks/insertion.py

Needs no network: weights are random. Half an hour on two quiet cores, one net
after the other in a process of its own; writes a row a net to `insertion.csv`
beside this file, and goes on where it stopped. `--nets` takes some of them, or
another order.

Norms get random statistics, scales and offsets, biases random numbers, and
kernels those that keep the size of maps, so that a weight at the wrong place
shows. Pictures have 96 px, batch 1, logits.

    inserted         places of `at`
    difference       largest, of the logits, to the net without attention
    swapped          the same after two layers of equal shapes, a third of the
                     way into the copy, have changed weights: what carrying by
                     position or shape could do, and this table would show
    opened           the same where the last maps of attention are not zero
    largest          of the logits
    seconds          of the insertion
    parameters       those added, and the net's own
    refused          why nothing could be inserted
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from measure import environment, machine
from tables import holds, read, write

HERE = Path(__file__).parent
TABLE = HERE / "insertion.csv"
PIXELS = 96
FIELDS = (
    *("net", "layers", "at", "inserted", "difference", "swapped", "opened"),
    *("largest", "seconds", "parameters", "added", "refused", "machine"),
)
# A cell of NASNet sees the two cells before it: no layer is passed by all.
AT = {
    "NASNetLarge": "normal_concat_[0-9]+",
    "NASNetMobile": "normal_concat_[0-9]+",
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nets", nargs="+")
    parser.add_argument("--only", help="one net, in this process")
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(row(arguments.only)))
        return
    rows = read(TABLE)
    for net in arguments.nets or nets():
        if holds(rows, net=net):
            continue
        command = [sys.executable, __file__, "--only", net]
        ran = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=environment({"KERAS_BACKEND": "tensorflow"}),
        )
        if ran.returncode:
            print(f"{net}: {ran.stderr[-2000:]}", file=sys.stderr)
            continue
        found = json.loads(ran.stdout.splitlines()[-1])
        print(found, flush=True)
        rows.append(found)
        write(TABLE, rows, FIELDS)


def nets():
    import keras

    found = vars(keras.applications).items()
    return sorted(n for n, f in found if callable(f) and n[0].isupper())


def row(name):
    import keras
    import numpy as np

    import kanets

    keras.utils.set_random_seed(0)
    net = getattr(keras.applications, name)(
        weights=None,
        input_shape=(PIXELS, PIXELS, 3),
        classifier_activation=None,
    )
    randomize(net)
    at = AT.get(name, "every stride")
    found = {"net": name, "layers": len(net.layers), "at": at}
    found |= {
        "parameters": net.count_params(),
        "machine": machine("keras", "tensorflow"),
    }
    start = time.perf_counter()
    try:
        copy = kanets.insert_attention(net, at)
    except ValueError as error:
        return {**found, "refused": str(error)}
    found["seconds"] = round(time.perf_counter() - start, 2)
    pixels = np.random.default_rng(0).uniform(0, 255, (1, PIXELS, PIXELS, 3))

    def answers(model):
        y = model(pixels.astype("float32"), training=False)
        y = keras.ops.convert_to_numpy(y)
        assert np.all(np.isfinite(y)) and np.ptp(y) > 0, y  # noqa: S101
        return y

    def difference(model):
        return float(np.abs(answers(model) - expected).max())

    expected = answers(net)
    found["largest"] = float(np.abs(expected).max())
    found["difference"] = difference(copy)
    layers = attention(copy)
    found["inserted"] = len(layers)
    found["added"] = copy.count_params() - net.count_params()
    swap(copy)
    found["swapped"] = difference(copy)
    swap(copy)
    rng = np.random.default_rng(1)
    for layer in layers:
        weights = layer.get_weights()
        weights = [w + 0.05 * rng.normal(size=w.shape) for w in weights]
        layer.set_weights(weights)
    found["opened"] = difference(copy)
    return found


def attention(model):
    from kanets import compat
    from kanets.attention.base import AttentionLayer

    found = compat.all_layers(model)
    return [layer for layer in found if isinstance(layer, AttentionLayer)]


def randomize(model):
    import keras
    import numpy as np

    rng = np.random.default_rng(0)
    for variable in model.weights:
        kind = variable.path.rpartition("/")[2]
        if kind in ("gamma", "moving_variance", "variance"):
            values = rng.uniform(0.5, 1.5, variable.shape)
        elif kind in ("beta", "bias", "moving_mean", "mean"):
            values = 0.1 * rng.normal(size=variable.shape)
        elif kind == "count":
            continue
        else:  # what comes in is of one size, with goes through a ReLU
            is_depthwise = variable.shape[-1] == 1
            inputs = variable.shape[: 2 if is_depthwise else -1]
            deviation = (2 / np.prod(inputs)) ** 0.5
            values = deviation * rng.normal(size=variable.shape)
        dtype = keras.backend.standardize_dtype(variable.dtype)
        variable.assign(values.astype(dtype))


def swap(model):
    """Changes the weights of two layers of equal shapes, of the body."""
    layers = [
        layer
        for layer in model.layers
        if layer.weights and "_attention" not in layer.name
    ]
    by_shapes = {}
    for layer in layers[len(layers) // 3 :]:
        shapes = str([type(layer), *(tuple(w.shape) for w in layer.weights)])
        if shapes in by_shapes:
            first, second = by_shapes[shapes], layer
            weights = first.get_weights()
            first.set_weights(second.get_weights())
            second.set_weights(weights)
            return
        by_shapes[shapes] = layer


if __name__ == "__main__":
    main()
