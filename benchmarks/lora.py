"""Does low-rank adaptation pay in a net of 1x1 convolutions?

    python benchmarks/lora.py --data DATA

`kanet_lite0_imagenet` on at most 1,000 pictures of 96 px of a set, 4,000 seen,
AdamW with warm-up and cosine, flips and shifts; judged on `val`, at the end.
Trained are all layers, the head alone, or the head and, of every other `Conv2D`
and `Dense`, a product of two matrices of some rank that is added to its kernel
(`enable_lora` of Keras 3); depthwise kernels have no such form. Batch norms
stay as they are in every way, as `kanets finetune` has it on few pictures. The
rates are the best of those tried on 1,000 other training pictures of flowers
(`--choose`, which prints them). A row a run goes to `lora.csv`; one that is
there is not repeated. A minute of one core each.
"""

import argparse
import time
from pathlib import Path

import keras
import numpy as np
from tables import holds, read, write
from verdict import arrays, augmented

import kanets
from kanets.layers.batch_normalization import BatchNormalization
from kanets.zoo.loading import head_name

HERE = Path(__file__).parent
SIDE, PICTURES, SEEN, BATCH = 96, 1_000, 4_000, 32
# The rate of each way.
WAYS = {"all layers": 3e-4, "head": 1e-2, "rank 4": 3e-3, "rank 16": 3e-3}
CHOICES = {"all layers": (3e-4, 1e-3, 3e-3)}
OTHERS = (1e-3, 3e-3, 1e-2)


def build(way, classes, seed):
    keras.utils.set_random_seed(seed)
    net = kanets.create_model(
        "kanet_lite0_imagenet",
        num_classes=classes,
        input_shape=(SIDE, SIDE, 3),
    )
    head = head_name([layer.name for layer in net.layers])
    for layer in net.layers:
        if layer.name == head:
            continue
        kinds = (keras.layers.Conv2D, keras.layers.Dense)
        if way == "all layers" and not isinstance(layer, BatchNormalization):
            continue
        if way.startswith("rank") and type(layer) in kinds:
            layer.enable_lora(int(way.split()[1]))
        else:
            layer.trainable = False
    return net


def trained(net, rate, x, y, seed):
    """Processor seconds of the training."""
    epochs = round(SEEN / len(x))
    pictures, labels = augmented(x, y, epochs, seed)
    steps = len(pictures) // BATCH
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, steps - steps // 10, warmup_target=rate, warmup_steps=steps // 10
    )
    net.compile(
        keras.optimizers.AdamW(schedule, weight_decay=0.01),
        "sparse_categorical_crossentropy",
        jit_compile=False,
    )
    start = time.process_time()
    for step in range(steps):
        rows = slice(step * BATCH, (step + 1) * BATCH)
        net.train_on_batch(pictures[rows].astype("float32"), labels[rows])
    return time.process_time() - start


def accuracy(net, x, y):
    found = [
        net.predict_on_batch(x[i : i + 100].astype("float32")).argmax(-1)
        for i in range(0, len(x), 100)
    ]
    return float(np.mean(np.concatenate(found) == y))


def load(data, name):
    return kanets.data.load(data / name, image_size=(SIDE, SIDE))


def choose(options):
    train, _ = load(options.data, "flowers")
    x, y = arrays(train, 2 * PICTURES)
    seen, truth = x[PICTURES:], y[PICTURES:]
    x, y = x[:PICTURES], y[:PICTURES]
    for way in options.ways:
        for rate in CHOICES.get(way, OTHERS):
            net = build(way, len(train.class_names), 0)
            trained(net, rate, x, y, 0)
            print(
                f"{way}, {rate}: {accuracy(net, seen, truth):.4f}", flush=True
            )
            keras.utils.clear_session()


def run(options):
    path = HERE / "lora.csv"
    rows = read(path)
    for seed in options.seeds:
        for name in options.sets:
            train, test = load(options.data, name)
            x, y = arrays(train, PICTURES)
            seen = arrays(test)
            for way in options.ways:
                rate = WAYS[way]
                if holds(rows, set=name, way=way, seed=seed):
                    continue
                net = build(way, len(train.class_names), seed)
                seconds = trained(net, rate, x, y, seed)
                rows.append(
                    {
                        "set": name,
                        "way": way,
                        "seed": seed,
                        "accuracy": f"{accuracy(net, *seen):.4f}",
                        "trained_parameters": sum(
                            int(np.prod(w.shape)) for w in net.trainable_weights
                        ),
                        "cpu_seconds_train": round(seconds, 1),
                        "pictures_train": len(x),
                        "pictures_tested": test.num_pictures,
                        "keras": keras.version(),
                        "backend": keras.backend.backend(),
                    }
                )
                print(rows[-1], flush=True)
                write(path, rows)
                keras.utils.clear_session()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=["hymenoptera", "flowers"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ways", nargs="+", default=list(WAYS))
    parser.add_argument("--choose", action="store_true")
    options = parser.parse_args()
    choose(options) if options.choose else run(options)


if __name__ == "__main__":
    main()
