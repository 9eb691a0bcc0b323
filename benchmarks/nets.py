"""Are whole KANets as quick as MobileNets, in each way to run them?

    python benchmarks/nets.py

A quarter of an hour on two quiet cores. Writes `nets.csv` and `nets.png`
beside this file and prints milliseconds, and how many times those of the net
it replaces ours take: of a KANet MobileNetV2, of EfficientNet-Lite0 with
attention the same without. The aim is at most 1, and 1.05. `--sides`,
`--runtimes`, `--batches` and `--nets` try a few: of the rows of `nets.csv`
those that were measured are replaced.

Classifiers of 1000 classes at width 1, without dropout, from pixels 0..255 to
probabilities. All divide the picture by 32: at 224 px their last map is 7 x 7,
at 32 px it is 1 x 1, and a KANet's attention sees maps of 4, 2 and 1. (With
the strides that KANets should have at 32 px the others could not be built.)
The weights are random, the statistics of the batch normalisations too, as
converters leave out what adds zero.

`eager`, `graph` and `xla` call the model in TensorFlow. The others run what a
user deploys: of our nets `kanets.export_litert`, `export_onnx`,
`export_openvino`, and as `savedmodel` what `export_savedmodel` holds behind its
decoding; of Keras's what `model.export` made. LiteRT's have a fixed batch, the
others an open one. Two threads. Nets of one column take turns (`measure.py`); a
net that needs more than 0.6 seconds (of a batch 2.5) has one counted call.
"""

import argparse
import functools
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from measure import Worker, machine, serve, take_turns
from tables import read, write

HERE = Path(__file__).parent
THREADS = 2
SIDES, BATCHES = (224, 32), (1, 32)
# Each with the worker that runs it, and the ending of what is exported.
RUNTIMES = {
    "eager": ("tensorflow", None),
    "graph": ("tensorflow", None),
    "xla": ("tensorflow", None),
    "savedmodel": ("savedmodel", ""),
    "litert": ("litert", ".tflite"),
    "onnx": ("onnx", ".onnx"),
    "openvino": ("openvino", ".xml"),
}
FORMATS = {"savedmodel": "tf_saved_model", "litert": "litert", "onnx": "onnx"}
FORMATS["openvino"] = "openvino"
NETS = {
    "kanet_qkv": {"attention": "kao_qkv"},
    "kanet_kv": {"attention": "kao_kv"},
    "kanet_lite0": {},
    "efficientnet_lite0": {},
    "MobileNetV2": {},
    "MobileNetV3Small": {"dropout_rate": 0.0},
    "MobileNetV3Large": {"dropout_rate": 0.0},
    "EfficientNetV2B0": {},
}
# What a net of ours takes the place of.
YARDSTICKS = {
    "kanet_qkv": "MobileNetV2",
    "kanet_kv": "MobileNetV2",
    "kanet_lite0": "efficientnet_lite0",
}


def main():
    options = parse()
    os.environ["KERAS_BACKEND"] = "tensorflow"  # which counts
    workers = {
        name: Worker(__file__, {"KERAS_BACKEND": "tensorflow"})
        for name, _ in RUNTIMES.values()
    }
    rows = []
    for side in options.sides:
        counts = {net: count(net, side) for net in options.nets}
        for runtime in options.runtimes:
            worker = workers[RUNTIMES[runtime][0]]
            for batch in options.batches:
                case = {"side": side, "runtime": runtime, "batch": batch}
                figures = take_turns(
                    {n: (worker, {"net": n, **case}) for n in options.nets},
                    seconds=0.6 if batch == 1 else 2.5,
                )
                for net, figure in figures.items():
                    row = {"net": net, **case, **counts[net], **figure}
                    row["machine"] = machine(
                        *("tensorflow", "keras"),
                        *("ai-edge-litert", "onnxruntime"),
                    )
                    rows.append(row)
                    print(*list(row.values())[:-1], flush=True)
    for worker in workers.values():
        worker.close()
    report(rows, options.nets)
    path = HERE / "nets.csv"
    done = {case(row) for row in rows}
    rows += [row for row in read(path) if case(row) not in done]
    order = {
        value: place
        for values in choices().values()
        for place, value in enumerate(map(str, values))
    }
    rows.sort(key=lambda row: [order.get(value, 99) for value in case(row)])
    write(path, rows)
    plot(rows)


def case(row):
    """What a row is of, as text, side first and net last."""
    return tuple(str(row[k]) for k in ("side", "runtime", "batch", "net"))


def choices():
    return {
        "sides": list(SIDES),
        "runtimes": list(RUNTIMES),
        "batches": list(BATCHES),
        "nets": list(NETS),
    }


def parse():
    parser = argparse.ArgumentParser()
    for name, values in choices().items():
        kind = type(values[0])
        parser.add_argument(f"--{name}", type=kind, nargs="+", default=values)
    return parser.parse_args()


@functools.lru_cache(len(NETS))
def build(net, side):
    """The net, with random weights and statistics."""
    import keras

    import kanets
    from kanets import compat

    keras.utils.set_random_seed(0)
    shape, settings = (side, side, 3), NETS[net]
    if net in ("kanet_qkv", "kanet_kv"):
        model = kanets.KANet(shape, **settings)
    elif net in ("kanet_lite0", "efficientnet_lite0"):
        model = kanets.create_model(
            f"{net}_imagenet", input_shape=shape, pretrained=False, **settings
        )
    elif net == "MobileNetV2":  # the only one that takes no pixels
        model = mobilenet_v2(shape, **settings)
    else:
        make = getattr(keras.applications, net)
        model = make(weights=None, input_shape=shape, **settings)
    random = np.random.default_rng(0)
    for layer in compat.all_layers(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            size = layer.moving_mean.shape
            layer.beta.assign(random.normal(0, 0.1, size))
            layer.moving_mean.assign(random.normal(0, 0.1, size))
            layer.moving_variance.assign(random.uniform(0.5, 1.5, size))
        for weight in layer.weights:  # attention that is closed at its start
            if len(weight.shape) == 2 and not np.any(weight):
                weight.assign(random.normal(0, 0.05, weight.shape))
    return model


def mobilenet_v2(shape, **settings):
    """Keras's, from pixels 0..255; `training.py` trains it."""
    import keras

    pixels = keras.Input(shape)
    scaled = keras.layers.Rescaling(1 / 127.5, -1.0)(pixels)
    return keras.applications.MobileNetV2(
        weights=None, input_tensor=scaled, **settings
    )


def count(net, side):
    from kanets.nets import multiply_adds

    model = build(net, side)
    return {
        "parameters": model.count_params(),
        "multiply_adds": multiply_adds(model),
    }


def prepare(net, side, runtime, batch):
    pixels = np.random.default_rng(0).uniform(0, 255, (batch, side, side, 3))
    pixels = pixels.astype("float32")
    if RUNTIMES[runtime][0] != "tensorflow":
        fixed = batch if runtime == "litert" else None
        run = exported(net, side, runtime, fixed)
        feeds = dict.fromkeys(run.inputs, pixels)
        return lambda: run(**feeds)

    import tensorflow as tf

    call = functools.partial(build(net, side), training=False)
    if runtime != "eager":
        call = tf.function(call, jit_compile=runtime == "xla", autograph=False)
    pixels = tf.constant(pixels)
    return lambda: call(pixels).numpy()


@functools.lru_cache(len(NETS))
def exported(net, side, runtime, batch):
    """What runs the exported net."""
    import keras

    from kanets.export import (
        export_litert,
        export_onnx,
        export_openvino,
        fold,
        runtimes,
    )

    model, shape = build(net, side), (batch, side, side, 3)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"model{RUNTIMES[runtime][1]}"
        names = [str(i) for i in range(1000)]
        if net not in YARDSTICKS:
            model.export(
                str(path),
                FORMATS[runtime],
                verbose=False,
                input_signature=[keras.InputSpec("float32", shape)],
            )
        elif runtime == "savedmodel":
            archive = keras.export.ExportArchive()
            signature = [keras.InputSpec("float32", shape, name="images")]
            archive.add_endpoint("serving_default", fold(model), signature)
            archive.write_out(str(path), verbose=False)
        elif runtime == "litert":
            path = export_litert(model, path, names, batch_size=batch)
        elif runtime == "onnx":
            path = export_onnx(model, path, names)
        else:
            path = export_openvino(model, path.with_suffix(""), names)
        return runtimes.load(path, THREADS)


def report(rows, nets):
    """Prints the columns, and the KANets' parts of the yardstick's time."""
    print("side", "runtime", "batch", *nets, sep="\t")
    for column, times in columns(rows).items():
        found = [f"{times[net]:.3g}" if net in times else "-" for net in nets]
        print(*column, *found, sep="\t")
    for net in (net for net in nets if net in YARDSTICKS):
        yardstick = YARDSTICKS[net]
        print(f"milliseconds of {net} / of {yardstick}")
        for column, times in columns(rows).items():
            if {net, yardstick} <= set(times):
                print(*column, f"{times[net] / times[yardstick]:.2f}", sep="\t")


def columns(rows):
    """Milliseconds by (side, runtime, batch), then by net."""
    found = {}
    for row in rows:
        if row["milliseconds"]:
            column = row["side"], row["runtime"], row["batch"]
            times = found.setdefault(column, {})
            times[row["net"]] = float(row["milliseconds"])
    return found


def plot(rows):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 9), layout="constrained")
    axes = figure.subplots(len(SIDES), len(BATCHES), sharey=True)
    wide = 0.8 / len(NETS)
    for down, side in enumerate(SIDES):
        for across, batch in enumerate(BATCHES):
            axis = axes[down][across]
            for index, net in enumerate(NETS):
                for place, runtime in enumerate(RUNTIMES):
                    times = columns(rows).get((side, runtime, batch), {})
                    yardstick = YARDSTICKS.get(net, "MobileNetV2")
                    if not {net, yardstick} <= set(times):
                        continue
                    axis.bar(
                        place + (index - (len(NETS) - 1) / 2) * wide,
                        times[net] / times[yardstick],
                        wide,
                        color=f"C{index}",
                    )
                axis.bar(0, 0, color=f"C{index}", label=net)
            axis.axhline(1, color="black", linewidth=0.8)
            axis.set(
                title=f"{side} px, batch {batch}",
                xticks=range(len(RUNTIMES)),
                xticklabels=RUNTIMES,
                ylabel="milliseconds / those of the net replaced",
            )
    axes[0][0].legend(fontsize=8)
    figure.savefig(HERE / "nets.png", dpi=110)


if __name__ == "__main__":
    serve(prepare) if "--worker" in sys.argv else main()
