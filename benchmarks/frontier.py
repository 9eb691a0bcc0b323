"""How long does an answer take, for which accuracy? A table and a picture.

    python benchmarks/compact_exports.py
    python benchmarks/deployment.py formats --data DATA
    python benchmarks/frontier.py

Measures nothing: joins what the first two have measured on one machine, the
milliseconds of a picture with one thread, with accuracies, and writes
`frontier.csv` and `frontier.png`, a panel a runtime above for ImageNet, whose
top-1 is as published (`kanets.zoo.list_hub`), at 224 pixels, ours and timm's
own exports, and below for the sets that the zoo's entries were trained on,
whose accuracy is that of their cards.
"""

from pathlib import Path

from tables import read, write

import kanets

HERE = Path(__file__).parent
SIDE = 224
# As the two tables name them.
RUNTIMES = {
    "LiteRT": ("litert", ("litert", "float32")),
    "LiteRT int8": ("litert_int8", ("litert", "int8")),
    "ONNX Runtime": ("onnx", ("onnx", "float32")),
    "OpenVINO": ("openvino", ("openvino", "float32")),
}
IMAGENET = "ImageNet, as published"


def main():
    rows = [*published(), *measured()]
    write(HERE / "frontier.csv", rows)
    draw(rows)


def published():
    """A row a net, a runtime and a side, at batch 1."""
    top1 = {}
    for weights in kanets.zoo.list_hub():
        if weights.side == SIDE:
            known = top1.get(weights.net, 0.0)
            top1[weights.net] = max(known, weights.top1)
    for name, (runtime, _) in RUNTIMES.items():
        for row in read(HERE / "compact_exports.csv"):
            if (row["runtime"], row["batch"]) != (runtime, "1"):
                continue
            for side, export in (("ours", "kanets"), ("theirs", "timm")):
                if row[side]:
                    accuracy = top1[row["net"]]
                    yield point(
                        IMAGENET, row["net"], export, name, row[side], accuracy
                    )


def measured():
    """A row a classifier of the zoo and a runtime."""
    times = {
        (row["entry"], row["format"], row["precision"]): row
        for row in read(HERE / "deployment_formats.csv")
    }
    for entry in kanets.list_models(task="classification"):
        if entry.name.endswith("_imagenet"):
            continue  # photos of its training set say nothing
        for name, (_, (kind, precision)) in RUNTIMES.items():
            row = times.get((entry.name, kind, precision))
            if row is not None:
                yield point(
                    entry.data,
                    entry.name,
                    "kanets",
                    name,
                    row["latency_ms_1_thread"],
                    100 * entry.value,
                )


def point(data, net, export, runtime, milliseconds, accuracy):
    return {
        "data": data,
        "net": net,
        "export": export,
        "runtime": runtime,
        "milliseconds": milliseconds,
        "accuracy": f"{accuracy:.2f}",
    }


def draw(rows):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7), layout="constrained")
    axes = figure.subplots(2, len(RUNTIMES), sharey="row")
    for column, runtime in enumerate(RUNTIMES):
        for line, published in enumerate((True, False)):
            panel = axes[line, column]
            for export, marker in (("kanets", "o"), ("timm", "x")):
                found = [
                    row
                    for row in rows
                    if row["runtime"] == runtime
                    and row["export"] == export
                    and (row["data"] == IMAGENET) == published
                ]
                if not found:
                    continue
                x = [float(row["milliseconds"]) for row in found]
                y = [float(row["accuracy"]) for row in found]
                panel.plot(x, y, marker, label=export, alpha=0.7)
                if export == "kanets":
                    for row, *at in zip(found, x, y, strict=True):
                        panel.annotate(
                            row["net"].removeprefix("kanet_"),
                            at,
                            xytext=(0, 5),
                            textcoords="offset points",
                            ha="center",
                            fontsize=7,
                        )
            panel.set_xscale("log")
            panel.margins(x=0.25, y=0.15)
            panel.set_title(runtime if published else "")
            panel.grid(alpha=0.3)
    for panel in axes[1]:
        panel.set_xlabel("ms a picture, one thread")
    axes[0, 0].set_ylabel("top-1, ImageNet, as published, %")
    axes[1, 0].set_ylabel("accuracy measured on the entry's set, %")
    axes[0, 0].legend(fontsize=8)
    figure.savefig(HERE / "frontier.png", dpi=110)


if __name__ == "__main__":
    main()
