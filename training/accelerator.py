"""Trains the zoo's comparison, and its GANs, on one accelerator.

    python training/accelerator.py pack --data DATA --to PACKED
    python training/accelerator.py train --data PACKED --to OUT
    python training/accelerator.py train --data PACKED --to OUT --quick

`pack` makes what travels: the files of CIFAR-10 (JPEG) and of ten classes of
Tiny ImageNet 64, 20 MB. `train` needs JAX with CUDA, Keras on it
(KERAS_BACKEND=jax), what kanets needs but TensorFlow, and Pillow; it is meant
for eight minutes of an H200. `--quick` tries all of it on a CPU: two batches of
16 a net.

The nets are KANets with Kronecker attention (QKV, KV) and without, and
MobileNetV2, of two widths and three seeds, in bfloat16. Pictures stay on the
device as bytes and are flipped and shifted there; an epoch is one program, a
scan over its batches, so that the host is asked once an epoch. A width and net
is compiled once for its seeds; epochs are as many as `--seconds` leave room
for, the same for all, found on the first net. SGD with momentum, warm-up and
cosine, the rate of training/kanet_qkv_cifar10.toml scaled with the batch.

OUT gets `accelerator.csv`, a row a run: accuracy on the 5,000 test pictures
(which choose nothing), pictures a second, and utilisation: three times the
floating-point operations of a picture's forward pass, as XLA counts them,
beside what a bfloat16 product of large matrices reaches; and the weights of
seed 0 of the widest KANets. Then SAGAN and YLG-SAGAN train at 64 px,
`GAN_SECONDS` each; OUT gets their samples, `<gan>_samples.npz`.
"""

import argparse
import csv
import io
import lzma
import math
import time
from pathlib import Path

import numpy as np

BATCH, QUICK_BATCH = 512, 16
RATE, DECAY, WARM_UP = 0.1, 5e-3, 0.1  # of batches of 128; of the steps
SEEDS, WIDTHS = (0, 1, 2), (1.0, 0.5)
SHIFT = 4
GAN_CLASSES, GAN_SECONDS = 10, 90
NETS = {
    "KANet QKV": ("KANet", {"attention": "kao_qkv"}),
    "KANet KV": ("KANet", {"attention": "kao_kv"}),
    "KANet, no attention": ("KANet", {"attention": None}),
    "MobileNetV2": ("MobileNetV2", {}),
}
STRIDES = (1, 2, 2, 2, 1)


def pack(options):
    """Gathers picture files, as they are."""
    options.to.mkdir(parents=True, exist_ok=True)
    cifar10 = options.data / "cifar10"
    gathered = {part: gather(cifar10 / part) for part in ("train", "test")}
    write(options.to / "cifar10.npz.xz", gathered)
    tiny = gather(options.data / "tiny_imagenet_64" / "train", GAN_CLASSES)
    write(options.to / "tiny_imagenet.npz.xz", {"train": tiny})


def gather(folder, classes=None):
    """The bytes of all files, shuffled, where each ends, and their labels."""
    groups = sorted(path for path in folder.iterdir() if path.is_dir())
    files = [
        (path.read_bytes(), label)
        for label, group in enumerate(groups[:classes])
        for path in sorted(group.iterdir())
    ]
    order = np.random.default_rng(0).permutation(len(files))
    files = [files[i] for i in order]
    return {
        "bytes": np.frombuffer(b"".join(f for f, _ in files), "uint8"),
        "ends": np.cumsum([len(f) for f, _ in files]),
        "labels": np.array([label for _, label in files], "int32"),
    }


def write(path, parts):
    arrays = {
        f"{part}_{name}": array
        for part, found in parts.items()
        for name, array in found.items()
    }
    with lzma.open(path, "wb", preset=6) as file:
        np.savez(file, **arrays)


def read(path, count=None):
    """Pictures uint8 (n, H, W, 3) and labels by part: `x_train`, `y_train`."""
    from PIL import Image

    with lzma.open(path) as file:
        stored = dict(np.load(io.BytesIO(file.read())))
    arrays = {}
    for part in {name.partition("_")[0] for name in stored}:
        ends = stored[f"{part}_ends"][:count]
        files = np.split(stored[f"{part}_bytes"][: ends[-1]], ends[:-1])
        arrays[f"x_{part}"] = np.stack(
            [
                np.asarray(Image.open(io.BytesIO(f.tobytes())).convert("RGB"))
                for f in files
            ]
        )
        arrays[f"y_{part}"] = stored[f"{part}_labels"][:count]
    return arrays


def train(options):
    import jax
    import keras

    started = time.perf_counter()
    options.to.mkdir(parents=True, exist_ok=True)
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    batch = QUICK_BATCH if options.quick else BATCH
    count = 2 * batch if options.quick else None
    arrays = read(options.data / "cifar10.npz.xz", count)
    arrays = {name: jax.device_put(x) for name, x in arrays.items()}
    peak = None if options.quick else product_rate()
    rows, epochs = [], 1 if options.quick else None
    room = options.seconds - 2 * GAN_SECONDS
    seeds = SEEDS[:1] if options.quick else SEEDS
    for alpha in WIDTHS[-1:] if options.quick else WIDTHS:
        for net in NETS:
            bench = Net(net, alpha, arrays, batch)
            if epochs is None:
                left = room - (time.perf_counter() - started)
                epochs = bench.epochs_in(left, len(NETS) * len(WIDTHS), seeds)
            for seed in seeds:
                row = bench.run(seed, epochs)
                row["utilisation"] = (
                    ""
                    if peak is None
                    else round(
                        3
                        * bench.operations
                        * row["pictures_per_second"]
                        / peak,
                        4,
                    )
                )
                rows.append(row)
                print(row, flush=True)
                with (options.to / "accelerator.csv").open("w") as file:
                    writer = csv.DictWriter(file, list(row))
                    writer.writeheader()
                    writer.writerows(rows)
                if seed == 0 and alpha == WIDTHS[0] and net.startswith("KANet"):
                    name = "".join(c for c in net if c.isalnum())
                    bench.save(options.to / f"{name}.weights.h5")
    generate(options)


def product_rate(side=8192, rounds=20):
    """Floating-point operations a second of a bfloat16 product."""
    import jax
    import jax.numpy as jnp

    x = jnp.ones((side, side), jnp.bfloat16)
    product = jax.jit(lambda a: a @ a)
    product(x).block_until_ready()
    start = time.perf_counter()
    for _ in range(rounds):
        y = product(x)
    y.block_until_ready()
    return rounds * 2 * side**3 / (time.perf_counter() - start)


class Net:
    """A net of a width, with an epoch of its training as one program."""

    def __init__(self, net, alpha, arrays, batch):
        import keras

        import kanets

        self.net, self.alpha, self.batch = net, alpha, batch
        self.arrays = arrays
        self.steps = len(arrays["x_train"]) // batch
        builder, arguments = NETS[net]
        keras.utils.set_random_seed(0)
        self.model = getattr(kanets.nets, builder)(
            tuple(arrays["x_train"].shape[1:]),
            alpha,
            classes=int(arrays["y_test"].max()) + 1,
            strides=STRIDES,
            **arguments,
        )
        self.compiled = None

    def epochs_in(self, seconds, nets, seeds):
        """How many epochs each run has for all runs to end in time."""
        self.prepare(2)
        start = time.perf_counter()
        self.begin(0)
        self.epoch(0)
        one = time.perf_counter() - start
        room = seconds - nets * self.compile_seconds
        return max(1, int(room / one / (nets * len(seeds))))

    def prepare(self, epochs):
        """The program of an epoch, whose rate falls over so many."""
        import jax
        import keras
        from jax import numpy as jnp

        model, batch, steps = self.model, self.batch, self.steps
        warm_up = max(1, round(WARM_UP * steps * epochs))
        schedule = keras.optimizers.schedules.CosineDecay(
            0.0,
            max(1, steps * epochs - warm_up),
            warmup_target=RATE * batch / 128,
            warmup_steps=warm_up,
        )
        optimizer = keras.optimizers.SGD(
            schedule, momentum=0.9, nesterov=True, weight_decay=DECAY
        )
        optimizer.build(model.trainable_variables)
        self.optimizer = optimizer

        def loss(trained, others, x, y):
            scores, others = model.stateless_call(
                trained, others, x, training=True
            )
            value = keras.losses.sparse_categorical_crossentropy(y, scores)
            return value.mean(), others

        def step(state, given):
            trained, others, moments = state
            rows, key = given
            x = augmented(self.arrays["x_train"][rows], key)
            y = self.arrays["y_train"][rows]
            (value, others), gradients = jax.value_and_grad(loss, has_aux=True)(
                trained, others, x, y
            )
            trained, moments = optimizer.stateless_apply(
                moments, gradients, trained
            )
            return (trained, others, moments), value

        def epoch(state, key):
            order, *keys = jax.random.split(key, steps + 1)
            rows = jax.random.permutation(order, len(self.arrays["x_train"]))
            rows = rows[: steps * batch].reshape(steps, batch)
            return jax.lax.scan(step, state, (rows, jnp.stack(keys)))

        def correct(trained, others):
            count = math.gcd(len(self.arrays["x_test"]), 500)

            def part(total, rows):
                x = self.arrays["x_test"][rows]
                scores, _ = model.stateless_call(
                    trained, others, jnp.float32(x), training=False
                )
                found = scores.argmax(-1) == self.arrays["y_test"][rows]
                return total + found.sum(), None

            rows = jnp.arange(len(self.arrays["x_test"])).reshape(-1, count)
            return jax.lax.scan(part, 0, rows)[0]

        start = time.perf_counter()
        self.begin(0)
        key = jax.random.key(0)
        self.program = jax.jit(epoch).lower(self.state, key).compile()
        self.correct = jax.jit(correct).lower(*self.state[:2]).compile()
        x = jnp.zeros((batch, *self.arrays["x_test"].shape[1:]))
        forward = jax.jit(lambda x: model.stateless_call(*self.state[:2], x)[0])
        costs = forward.lower(x).compile().cost_analysis()
        self.operations = round(costs["flops"] / batch)
        self.compile_seconds = time.perf_counter() - start
        self.compiled = epochs

    def begin(self, seed):
        """Fresh weights and moments."""
        import jax
        import keras

        keras.utils.set_random_seed(seed)
        fresh = keras.models.clone_model(self.model)

        def values(variables):
            return [jax.numpy.array(v.value) for v in variables]

        self.state = (
            values(fresh.trainable_variables),
            values(fresh.non_trainable_variables),
            [jax.numpy.zeros_like(v.value) for v in self.optimizer.variables],
        )

    def epoch(self, key):
        import jax

        self.state, losses = self.program(self.state, jax.random.key(key))
        return float(losses.mean())

    def run(self, seed, epochs):
        if self.compiled != epochs:
            self.prepare(epochs)
        self.begin(seed)
        start = time.perf_counter()
        for i in range(epochs):
            loss = self.epoch(1_000 * seed + i)
        taken = time.perf_counter() - start
        correct = int(self.correct(*self.state[:2]))
        if not math.isfinite(loss):
            raise SystemExit(f"{self.net}, seed {seed}: the loss is {loss}")
        return {
            "net": self.net,
            "alpha": self.alpha,
            "seed": seed,
            "epochs": epochs,
            "loss": round(loss, 4),
            "correct": correct,
            "pictures_tested": len(self.arrays["x_test"]),
            "pictures_per_second": round(
                epochs * self.steps * self.batch / taken
            ),
            "compile_seconds": round(self.compile_seconds, 1),
            "parameters": self.model.count_params(),
            "operations": self.operations,
            "device": device(),
        }

    def save(self, path):
        for variables, values in (
            (self.model.trainable_variables, self.state[0]),
            (self.model.non_trainable_variables, self.state[1]),
        ):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        self.model.save_weights(path)


def augmented(pictures, key):
    """Bytes (B, H, W, C) flipped and shifted, in float32."""
    import jax
    from jax import numpy as jnp

    flips, places = jax.random.split(key)
    flipped = jax.random.bernoulli(flips, shape=(len(pictures), 1, 1, 1))
    pictures = jnp.where(flipped, pictures[:, :, ::-1], pictures)
    sides = ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0))
    padded = jnp.pad(pictures, sides, mode="reflect")
    corners = jax.random.randint(places, (len(pictures), 2), 0, 2 * SHIFT + 1)

    def cut(picture, corner):
        start = (corner[0], corner[1], 0)
        return jax.lax.dynamic_slice(picture, start, pictures.shape[1:])

    return jnp.float32(jax.vmap(cut)(padded, corners))


def device():
    import jax

    return jax.devices()[0].device_kind


def generate(options):
    """SAGAN and YLG-SAGAN at 64 px, for the same number of seconds."""
    import keras

    import ylg

    keras.mixed_precision.set_dtype_policy("float32")
    count = 8 if options.quick else None
    arrays = read(options.data / "tiny_imagenet.npz.xz", count)
    x, y = arrays["x_train"], arrays["y_train"]
    small = {"width": 2, "latent_size": 8} if options.quick else {}
    batch = 4 if options.quick else 64
    for attention in ("dense", "ylg"):
        keras.utils.set_random_seed(0)
        gan = ylg.SAGAN(
            image_size=64,
            num_classes=GAN_CLASSES,
            attention=attention,
            seed=0,
            **small,
        )
        gan.compile(
            keras.optimizers.Adam(1e-4, beta_1=0.0, beta_2=0.9),
            keras.optimizers.Adam(4e-4, beta_1=0.0, beta_2=0.9),
        )
        clock = Clock(0 if options.quick else GAN_SECONDS)
        gan.fit(
            x,
            y,
            batch_size=batch,
            epochs=1 if options.quick else 10_000,
            callbacks=[clock.callback()],
            verbose=0,
        )
        z = ylg.gan.latents(gan.generator.inputs[0].shape[-1], 64, 0)
        labels = np.arange(64) % GAN_CLASSES
        images = ylg.gan.draw(gan.generator, z, labels)
        name = "ylg_sagan" if attention == "ylg" else "sagan"
        np.savez_compressed(
            options.to / f"{name}_samples.npz",
            images=ylg.gan.to_pixels(images),
            labels=labels,
        )
        print(f"{name}: {clock.steps} steps of {batch}", flush=True)


class Clock:
    """Ends a training after so many seconds of it; 0 lets it end."""

    def __init__(self, seconds):
        self.seconds, self.steps = seconds, 0

    def callback(self):
        import keras

        def count(step, logs):
            self.steps += 1
            if self.steps == 1:  # compiled
                self.start = time.perf_counter()

        def look(epoch, logs):
            taken = time.perf_counter() - self.start
            if self.seconds and taken > self.seconds:
                found.model.stop_training = True

        found = keras.callbacks.LambdaCallback(
            on_train_batch_end=count, on_epoch_end=look
        )
        return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("command", choices=("pack", "train"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=440)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    {"pack": pack, "train": train}[options.command](options)


if __name__ == "__main__":
    main()
