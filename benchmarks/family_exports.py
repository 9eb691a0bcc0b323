"""Into which formats does each mechanism of the table go, and how exactly?

    pip install -e ".[litert,onnx,openvino]"
    python benchmarks/family_exports.py

Three minutes. A classifier of a convolution, the mechanism on a 12 x 16 map of
16 channels and a dense layer is exported and run in the
runtime of each format. Writes `family_exports.csv` beside this file: the
largest difference from Keras of a probability, or why there is no export.
`attention_counts` is how far the probabilities move when the mechanism is taken
out, so that a difference means something.
"""

import os
import tempfile
from pathlib import Path

import numpy as np
from tables import write

HERE = Path(__file__).parent
SIZE, CHANNELS, NAMES = (12, 16), 16, list("abcd")
FORMATS = ("savedmodel", "litert", "onnx", "openvino")


def main():
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from kanets import attention

    rows = []
    x = np.random.default_rng(0).integers(0, 256, (1, *SIZE, 3))
    x = x.astype("float32")
    for name in attention.names():
        model, plain = nets(name)
        expected, without = (m.predict(x, verbose=0) for m in (model, plain))
        counts = np.abs(expected - without).max()
        row = {"mechanism": name, "attention_counts": f"{counts:.2g}"}
        for kind in FORMATS:
            try:
                found = exported(kind, model, x)
                row[kind] = f"{np.abs(found - expected).max():.1e}"
            except Exception as error:
                row[kind] = " ".join(f"{error}".split())[:120]
        rows.append(row)
        print(*row.values(), flush=True)
    write(HERE / "family_exports.csv", rows)


def nets(name):
    """A net with the mechanism, and one with the same maps without it."""
    import keras

    from kanets import attention

    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = keras.Input((*SIZE, 3))
    x = layers.Rescaling(1 / 64, -2)(inputs)
    x = layers.Conv2D(CHANNELS, 3, padding="same", activation="tanh")(x)
    last = layers.Dense(len(NAMES), activation="softmax")
    return [
        keras.Model(inputs, last(layers.Flatten()(branch)), name="net")
        for branch in (attention.make(name)(x), x)
    ]


def exported(kind, model, x):
    from kanets import export
    from kanets.export import runtimes

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / kind
        call = getattr(export, f"export_{kind}")
        call(model, path, NAMES)
        signature = "serve_images" if kind == "savedmodel" else None
        run = runtimes.load(path, signature=signature)
        found = run(images=x.astype(run.inputs["images"][1]))
    if kind != "savedmodel":
        return found["probabilities"]
    # The likeliest first, with its name.
    names = [name.decode() for name in found["classes"][0]]
    return found["scores"][:, [names.index(name) for name in NAMES]]


if __name__ == "__main__":
    main()
