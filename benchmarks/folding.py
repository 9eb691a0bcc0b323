"""What does it bring to export a folded net (`kanets.export.fold`)?

    python benchmarks/folding.py

Ten minutes of one core. Nets of 224 px as they were trained (`folded` 0) and
folded, in the runtimes that `kanets export` writes for; MobileNetV2 and
EfficientNet-Lite0, which ours take the place of, beside them. And the bundle of
a 32-pixel entry, asked for one JPEG file and for 32. Milliseconds are of CPU
time, of all threads of the process and one for computing, so that other work on
the machine counts little; contenders take turns, a figure is the least and the
middle of `TURNS` turns. `ratio` is the least over that of the net replaced, of
the bundle over the one not folded. Writes `folding.csv`; with `--nets` the rows
of these and of what they replace. Random weights and statistics.
"""

import argparse
import functools
import io
import itertools
import statistics
import tempfile
from pathlib import Path

import numpy as np
from measure import cpu_turns, machine
from nets import YARDSTICKS, build
from PIL import Image
from tables import read, write

import kanets
from kanets.export import classifier, folding, runtimes

HERE = Path(__file__).parent
SIDE, BATCHES, TURNS = 224, (1, 16), 15
FORMATS = ("litert", "onnx", "openvino")
ENTRY = "kanet_qkv_cifar10"


def exported(model, path, format, batch, folded):
    """The export, of a folded net or of the model as it is."""
    classifier.fold = folding.fold if folded else as_it_is
    names = [str(i) for i in range(1000)]
    if format == "savedmodel":
        return kanets.export_savedmodel(model, path)
    options = {"batch_size": batch} if format == "litert" else {}
    return getattr(kanets, f"export_{format}")(model, path, names, **options)


def as_it_is(model):
    return functools.partial(model, training=False)


def rows(taken, format, batch, yardsticks):
    least = {name: min(values) for name, values in taken.items()}
    for (net, folded), values in taken.items():
        yield {
            "net": net,
            "folded": int(folded),
            "format": format,
            "batch": batch,
            "least_ms": f"{least[net, folded]:.4g}",
            "middle_ms": f"{statistics.median(values):.4g}",
            "ratio": f"{least[net, folded] / least[yardsticks[net]]:.3f}",
            "machine": machine(
                *("tensorflow", "keras"),
                *("ai-edge-litert", "onnxruntime", "openvino"),
            ),
        }


def nets(folder, chosen):
    yardsticks = {net: (YARDSTICKS[net], True) for net in chosen}
    yardsticks |= {peer: (peer, True) for peer, _ in yardsticks.values()}
    for format in FORMATS:
        for batch in BATCHES:
            pixels = np.random.default_rng(0).uniform(
                0, 255, (batch, SIDE, SIDE, 3)
            )
            feeds = {"images": pixels.astype("float32")}
            calls = {}
            for net in yardsticks:
                for folded in (False, True) if net in YARDSTICKS else (True,):
                    name = f"{net}_{folded}_{format}"
                    if format == "litert":
                        name += f"_{batch}"
                    path = folder / name
                    if not path.exists():
                        model = build(net, SIDE)
                        exported(model, path, format, batch, folded)
                    run = runtimes.load(path, 1)
                    calls[net, folded] = functools.partial(run, **feeds)
            yield from rows(cpu_turns(calls, TURNS), format, batch, yardsticks)


def bundle(folder):
    picture = np.random.default_rng(0).integers(256, size=(32, 32, 3))
    file = io.BytesIO()
    Image.fromarray(picture.astype("uint8")).save(file, "JPEG")
    runs = {}
    for folded in (False, True):
        path = folder / f"{ENTRY}_{folded}"
        model = kanets.load_model(ENTRY)
        exported(model, path, "savedmodel", None, folded)
        runs[ENTRY, folded] = runtimes.load(path, 1)
    for batch in (1, 32):
        feeds = {"image_bytes": [file.getvalue()] * batch}
        calls = {k: functools.partial(run, **feeds) for k, run in runs.items()}
        yardsticks = {ENTRY: (ENTRY, False)}
        yield from rows(
            cpu_turns(calls, TURNS), "savedmodel", batch, yardsticks
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    names = [*YARDSTICKS, ENTRY]
    parser.add_argument("--nets", nargs="+", choices=names, default=names)
    chosen = parser.parse_args().nets
    found, path = [], HERE / "folding.csv"
    with tempfile.TemporaryDirectory() as folder:
        rows = nets(Path(folder), [net for net in chosen if net != ENTRY])
        if ENTRY in chosen:
            rows = itertools.chain(bundle(Path(folder)), rows)
        for row in rows:
            print(*list(row.values())[:-1], flush=True)
            found.append(row)
    measured = {row["net"] for row in found}
    kept = [row for row in read(path) if row["net"] not in measured]
    write(path, kept + found)


if __name__ == "__main__":
    main()
