"""How long would ImageNet take on a machine of GPUs, or on a pod of TPUs?

    python benchmarks/scale_plan.py --pictures imagenet_samples

On paper: nothing here ran on an accelerator. `scale_plan.csv` has a row a net
and machine, from

- what a picture costs in training, counted in TensorFlow's graph at 224 px:
  three times the multiply-adds of a forward pass, and three times the bytes
  that convolutions, products and normalisations read and write in bfloat16,
  each array once (what comes between is fused and free). That is a floor of
  the time, never reached. What is planned with is a share of it: what
  EfficientNet-B0 does on an A100 of 80 GB by NVIDIA's published figure
  (DeepLearningExamples, PyTorch, mixed precision, one GPU), over the floor of
  EfficientNet-Lite0 there, the same net without swish and
  squeeze-and-excitation;
- the chips as their makers publish them (`MACHINES`), prices as assumed there;
- gradients in float32, each chip sending and receiving 2 (n - 1) / n of them;
- reading: the CPU time of decoding and fitting a JPEG, measured here on
  `--pictures`, and their mean size; the tables are of photos whose shorter side
  is 256 pixels at most, as one packs them for this.

`scale_plan.png`: the share of a step that is computing, by the number of
hosts, simulated. The compute of a host varies from step to step (log-normal,
`JITTER`) and stalls now and then (`STALL`: a share of its steps, so many times
as long); a step is as long as its slowest host's, and the all-reduce after it.
Jitter and stalls are assumptions, and drawn for several values.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
from tables import write

HERE = Path(__file__).parent
PICTURES, EPOCHS, SIDE = 1_281_167, 300, 224
A100, PUBLISHED = (156e12, 2.04e12), 2489  # the net's images a second
BATCH = 128  # a chip
# Per chip: dense bfloat16 multiply-adds and bytes a second of its memory, and
# of its link in one direction; chips; host's cores, both for all chips; price
# of a chip and hour in dollars, as assumed.
MACHINES = {
    "8 x H100": (494.5e12, 3.35e12, 450e9, 8, 208, 4.0),
    "8 x H200": (494.5e12, 4.8e12, 450e9, 8, 208, 4.5),
    "TPU v5e-16": (98.5e12, 0.819e12, 100e9, 16, 448, 1.2),
}
CHIPS_A_HOST, HOSTS, STEPS = 8, (1, 2, 4, 8, 16, 32, 64, 128), 4_000
JITTER, STALL = (0.01, 0.05), ((0.0, 1.0), (1e-3, 10.0))
HOST_LINK = 50e9  # bytes a second between hosts and direction, 400 Gbit/s
MOVES = ("Conv2D", "DepthwiseConv2dNative", "MatMul", "BatchMatMulV2")
NORMS = ("FusedBatchNormV3",)


def nets():
    import kanets

    shape = (SIDE, SIDE, 3)
    attention = {"name": "kao_rectified", "num_heads": 2, "key_dim": 2}
    attention |= {"value_dim": 8, "use_bias": True}
    return {
        "KANet, kao_qkv": kanets.KANet(shape, classes=1000),
        "EfficientNetLite0, kao_rectified": kanets.EfficientNetLite(
            shape,
            "lite0",
            attention=attention,
            attention_position="expansion",
        ),
        "EfficientNetLite0": kanets.EfficientNetLite(shape, "lite0"),
    }


def bytes_moved(model):
    """What a forward pass reads and writes of one picture, in bfloat16."""
    import tensorflow as tf

    traced = tf.function(lambda x: model(x, training=True), autograph=False)
    graph = traced.get_concrete_function(
        tf.TensorSpec((1, SIDE, SIDE, 3))
    ).graph
    elements = 0
    for operation in graph.get_operations():
        if operation.type in (*MOVES, *NORMS):
            arrays = [operation.inputs[0], operation.outputs[0]]
            if operation.type == "BatchMatMulV2":
                arrays.append(operation.inputs[1])
            elements += sum(tensor.shape.num_elements() for tensor in arrays)
    return 2 * elements


def reading(folder):
    """CPU seconds of reading a picture, and the mean size of its file."""
    from kanets.data.pictures import fit_picture, read_picture

    files = sorted(folder.rglob("*.jpg"))[:300]
    taken = []
    for file in files:
        start = time.process_time()
        fit_picture(read_picture(file), (SIDE, SIDE))
        taken.append(time.process_time() - start)
    sizes = [file.stat().st_size for file in files]
    return statistics.median(taken), statistics.mean(sizes)


def floor(model, compute, memory):
    """Multiply-adds and bytes of a training picture, and its least seconds."""
    import kanets

    shape = (SIDE, SIDE, 3)
    products = 3 * kanets.nets.multiply_adds(model, shape)
    moved = 3 * bytes_moved(model)
    return products, moved, max(products / compute, moved / memory)


def reached():
    """The share of the floor that a known net reaches on a known chip."""
    return PUBLISHED * floor(nets()["EfficientNetLite0"], *A100)[2]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pictures", type=Path, required=True)
    options = parser.parse_args()
    seconds, size = reading(options.pictures)
    share = reached()
    rows = []
    for name, model in nets().items():
        gradients = 4 * sum(
            int(np.prod(w.shape)) for w in model.trainable_weights
        )
        for machine, figures in MACHINES.items():
            compute, memory, link, chips, cores, price = figures
            products, moved, least = floor(model, compute, memory)
            rate = share * chips / least
            reduce = 2 * (chips - 1) / chips * gradients / link
            step = BATCH * least / share
            hours = EPOCHS * PICTURES / rate / 3600 * (1 + reduce / step)
            rows.append(
                {
                    "net": name,
                    "machine": machine,
                    "training_multiply_adds_M": round(products / 1e6),
                    "training_megabytes": round(moved / 1e6, 1),
                    "bound": "memory"
                    if moved / memory > products / compute
                    else "products",
                    "floor_images_per_second_chip": round(1 / least),
                    "planned_share": round(share, 3),
                    "planned_images_per_second": round(rate),
                    "step_ms": round(1e3 * step, 2),
                    "all_reduce_megabytes": round(gradients / 1e6, 1),
                    "all_reduce_ms": round(1e3 * reduce, 3),
                    "input_megabytes_per_second": round(rate * size / 1e6),
                    "reading_cores": round(rate * seconds, 1),
                    "host_cores": cores,
                    "hours": round(hours, 1),
                    "dollars": round(hours * chips * price),
                    "reading_ms": round(1e3 * seconds, 2),
                    "file_kilobytes": round(size / 1e3, 1),
                    "epochs": EPOCHS,
                }
            )
            print(rows[-1])
    write(HERE / "scale_plan.csv", rows)
    plot(rows)


def efficiency(step, reduce_bytes, hosts, jitter, stall, steps=STEPS):
    """The share of a step of several hosts that is a host's own compute."""
    random = np.random.default_rng(0)
    share, times = stall
    compute = random.lognormal(0, jitter, (steps, hosts))
    compute *= np.where(random.random((steps, hosts)) < share, times, 1.0)
    slowest = step * compute.max(axis=1)
    reduce = 2 * (hosts - 1) / hosts * reduce_bytes / HOST_LINK
    return step * compute.mean() / (slowest.mean() + reduce)


def plot(rows):
    from matplotlib.figure import Figure

    [row] = [
        row
        for row in rows
        if (row["net"], row["machine"])
        == ("EfficientNetLite0, kao_rectified", "8 x H100")
    ]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for jitter in JITTER:
        for stall in STALL:
            values = [
                100
                * efficiency(
                    row["step_ms"] / 1e3,
                    1e6 * row["all_reduce_megabytes"],
                    hosts,
                    jitter,
                    stall,
                )
                for hosts in HOSTS
            ]
            often, times = stall
            axes.plot(
                HOSTS,
                values,
                "o-",
                label=f"{100 * jitter:g} % jitter, "
                + (
                    f"{100 * often:g} % of steps {times:g} times as long"
                    if often
                    else "no stalls"
                ),
            )
    axes.set_xscale("log", base=2)
    axes.set_xticks(HOSTS, [str(hosts) for hosts in HOSTS])
    axes.set_xlabel(f"hosts of {CHIPS_A_HOST} chips")
    axes.set_ylabel("% of a step that is computing")
    axes.set_ylim(0, 105)
    axes.set_title(
        f"Simulated: {row['net']}, {BATCH} pictures a chip", fontsize=10
    )
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    figure.savefig(HERE / "scale_plan.png", dpi=100)


if __name__ == "__main__":
    main()
