"""Writes `attention.md` and its pictures out of the code and the benchmarks.

    python docs/make_attention.py

Cost and references come from the docstrings of the layers, figures from
`benchmarks/`: `exactness.csv`, `family.csv`, `family_exports.csv` and
`comparison_cifar10.csv`, each with its command in the script of its name. The
pictures show what one query of a 16 x 16 map sees, in four heads; of gates
also what three channels are multiplied by, of a map with a bright square.
"""

import math
import os
import re
import statistics
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
BENCHMARKS = ROOT / "benchmarks"
SIDE, CHANNELS, HEADS, POSITION = 16, 64, 4, (6, 9)
SIDES = (32, 64, 128)
PEERS = {
    "neighborhood operator": "tf xla",
    "torch flex, blocks of 64": "torch compiled",
    "torch flex": "torch compiled",
    "natten": "torch",
}
# What is summed, in the notation of the layers' docstrings.
FORMULAS = {
    "kao_qkv": "Y = S(softmax(q(t) k(t)ᵀ) v(t)), t = [row means, column means]",
    "kao_kv": "Y = softmax(q(X) k(t)ᵀ) v(t), t = [row means, column means]",
    "kao_rectified": "Y = o(S(relu6(v(t) + softmax(q(t) k(t)ᵀ) v(t))))",
    "dense": "Y = softmax(q(X) k(X)ᵀ) v(X)",
    "dense_pool": "Y = softmax(q(X) k(pool X)ᵀ) v(pool X)",
    "axial": "Y = Σ over axes of softmax(q(X) k(X)ᵀ) v(X) along the axis",
    "ylg": "Y = softmax over the pattern of a head, of q(X) k(X)ᵀ, times v(X)",
    "lsh": "Y = softmax over a sorted chunk and that before it, q = k",
    "smyrf": "Y = softmax over the keys of a query's balanced cluster",
    "adaptive_span": "Y = softmax with weights m(distance), m falling to 0 at "
    "the span that the head has learned",
    "window": "Y = softmax over the cells at most w // 2 away, and global ones",
    "neighborhood": "Y = softmax over the k nearest cells of each axis",
    "multi_query": "Y = o(softmax(q(X) k(X)ᵀ) v(X)), k and v of one head",
    "linear": "Y = norm(o(relu(q) (relu(k)ᵀ v) / (relu(q) relu(k)ᵀ 1)))",
    "single_head": "Y = norm(W relu([softmax(q(N) k(N)ᵀ) v(N), others of X]))",
    "squeeze_excitation": "Y = X sigmoid(e(relu(r(mean X))))",
    "efficient_channel": "Y = X sigmoid(k * mean X), * along the channels",
    "cbam": "Y = Z sigmoid(norm(k * [mean, max of Z's channels])), "
    "Z = X sigmoid(f(mean X) + f(max X))",
    "global_context": "Y = X + e(relu(norm(r(softmax(w X)ᵀ X))))",
    "coordinate": "Y = X G_rows G_columns, G = sigmoid(e(hard_swish(norm("
    "r(means)))))",
    "efficient_local": "Y = X G_rows G_columns, G = sigmoid(silu(norm(k * "
    "means)))",
    "separable": "Y = o(relu(v(X)) · Σ softmax(q(X)) k(X)), q a number a cell",
    "efficient_additive": "Y = o(p(k̂ · Σ a q̂) + q̂), q̂, k̂ = q(X), k(X) of "
    "length 1, a = q̂ w of length 1 over the cells",
    "spatial_reduction": "Y = o(softmax(q(X) k(R)ᵀ) v(R)), R = norm(strided "
    "convolution of X)",
    "cross_covariance": "Y = o(v(X) softmax(τ q̂ᵀ k̂)ᵀ), q̂, k̂ = q(X), k(X), "
    "each channel of length 1 over the cells",
    "single_head_modulation": "Y = norm(o(softmax(q(X) k(X)ᵀ) σ(v(X)) · "
    "σ(g(X))))",
    "non_local": "Y = o(f(q(X), k(X)) v(X)), f softmax(q kᵀ), q kᵀ / n or "
    "relu(w [q, k]) / n of n cells",
}


def main():
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.path[:0] = [str(ROOT), str(BENCHMARKS)]
    from tables import read

    from kanets import attention

    (HERE / "attention").mkdir(exist_ok=True)
    tables = {
        name: read(BENCHMARKS / f"{name}.csv")
        for name in ("exactness", "family", "family_exports")
    }
    tables["accuracy"] = read(BENCHMARKS / "comparison_cifar10.csv")
    parts = [introduction(attention, tables)]
    for name, mechanism in attention.MECHANISMS.items():
        draw(name, HERE / "attention" / f"{name}.png")
        parts.append(section(name, mechanism, tables))
    parts.append(beside(attention))
    (HERE / "attention.md").write_text("\n".join(parts), encoding="utf-8")


def introduction(attention, tables):
    """The first screen: how it is called, and all of them in one table."""
    lines = [
        "# The family of attention",
        "",
        "Written by `python docs/make_attention.py`: change that, not this.",
        "",
        "Each name stands for a layer from (B, *grid, C) to the same shape, in",
        "1-D, 2-D and 3-D where its paper has them, and works wherever",
        "attention is chosen:",
        "",
        "```python",
        "import kanets",
        "",
        'layer = kanets.attention.make({"name": "window", "num_heads": 4})',
        'net = kanets.KANet((32, 32, 3), attention="neighborhood", classes=10)',
        "```",
        "",
        "`kanets.insert_attention` puts one into any functional Keras model,",
        '`[model] attention = "axial"` into a recipe, and',
        "`kanets.visualize.attention_weights` shows what a query looks at.",
        "",
        f"Milliseconds of a picture of {CHANNELS} channels with {HEADS} heads",
        "(`single_head`: one), compiled by XLA; n^s: how the time grows with",
        "the number n of cells",
        "from 32² on ([family.csv](../benchmarks/family.csv)). Accuracy: KANet",
        "of width 0.25 after two epochs of CIFAR-10 at 32 pixels, mean and",
        "deviation of three seeds",
        "([comparison_cifar10.csv](../benchmarks/comparison_cifar10.csv)):",
        "to rank mechanisms by it, a difference should be twice a deviation.",
        "",
        "| name | " + " | ".join(f"{s}²" for s in SIDES) + " | "
        "growth | with gradients, 64² | MiB, 64² | accuracy |",
        "|---" * (len(SIDES) + 5) + "|",
    ]
    for name in attention.names():
        lines.append("| " + " | ".join(summary(name, tables)) + " |")
    without = accuracy(tables["accuracy"], "kanet_none")
    lines += [
        "",
        f"Without attention: {without}.",
        "",
        "The operator of `neighborhood` (kernel 7, XLA) beside the same",
        "neighbourhoods in PyTorch's compiled `flex_attention` and in NATTEN's",
        "path for a CPU, results equal to 1e-6, one thread, in turns:",
        "",
        "| milliseconds | " + " | ".join(f"{s}²" for s in SIDES) + " |",
        "|---" * (len(SIDES) + 1) + "|",
    ]
    for name, runtime in PEERS.items():
        cells = (
            figure(tables["family"], name, side, "forward", runtime)
            for side in SIDES
        )
        lines.append(f"| {name} | " + " | ".join(map(short, cells)) + " |")
    return "\n".join([*lines, ""])


def summary(name, tables):
    timed = {s: figure(tables["family"], name, s, "forward") for s in SIDES}
    points = {s: float(t) for s, t in timed.items() if t}
    net = name.replace("kao_", "")
    return [
        f"[{name}](#{name})",
        *(short(timed[s]) for s in SIDES),
        growth(points),
        short(figure(tables["family"], name, 64, "forward+backward")),
        short(
            figure(
                tables["family"], name, 64, "forward", "tf graph", "peak_mib"
            )
        ),
        accuracy(tables["accuracy"], f"kanet_{net}"),
    ]


def figure(
    table, name, side, direction, runtime="tf xla", column="milliseconds"
):
    for row in table:
        if (row["contender"], row["runtime"]) == (name, runtime) and (
            row["side"],
            row["pass"],
        ) == (str(side), direction):
            return row[column]
    return ""


def short(number):
    """Three digits, and no exponent; a dash for none."""
    if not number:
        return "-"
    number = float(number)
    return f"{number:,.0f}" if number >= 1000 else f"{number:.3g}"


def growth(points):
    """The exponent of the number of cells."""
    from operators import slope

    found = slope(points)
    return "-" if math.isnan(found) else f"n^{found:.2f}"


def accuracy(table, net):
    found = [100 * float(r["accuracy"]) for r in table if r["net"] == net]
    if len(found) < 2:
        return "-"
    return f"{statistics.mean(found):.1f} ± {statistics.stdev(found):.1f}"


def section(name, mechanism, tables):
    text = mechanism.layer.__doc__
    arguments = ", ".join(f"{k}={v!r}" for k, v in mechanism.arguments.items())
    exact = [
        f"{row['largest_difference']} from {row['code']} "
        f"(cases: {row['cases']}, outputs up to {row['largest_output']})"
        for row in tables["exactness"]
        if name in row["mechanism"].split(", ")
    ]
    [exports] = [
        row for row in tables["family_exports"] if row["mechanism"] == name
    ]
    formats = [
        f"{kind} {value}"
        for kind, value in exports.items()
        if kind not in ("mechanism", "attention_counts")
    ]
    drawn = "what a query sees"
    if hasattr(mechanism.layer, "gates"):
        drawn += ", and the gates of three channels"
    lines = [
        f"## {name}",
        "",
        f"`kanets.attention.{mechanism.layer.__name__}({arguments})`",
        "",
        f"    {FORMULAS[name]}",
        "",
        f"![{drawn}](attention/{name}.png)",
        "",
        *(f"- **{field}** {said(text, field)}" for field in FIELDS),
        f"- **Exactness** {'; '.join(exact) or 'as the layer it is made of'}.",
        f"- **Exports**, largest difference: {', '.join(formats)}.",
        "",
    ]
    return "\n".join(lines)


FIELDS = ("Cost", "References")
# Layers that map no grid to itself, and what a benchmark drew of them.
BESIDE = {
    "AdditiveAttention": (
        "m = tanh(W_c c + W_y y), s = softmax(w m), z = Σ s y",
        ("captioning", "alignment"),
    ),
    "HierarchicalAttention": (
        "S = norm(Σ softmax over a block of q tanh(W X + b), times V X), and "
        "S for X on the next level",
        ("hierarchy",),
    ),
    "CausalSpanAttention": (
        "as adaptive_span, of what came before, with a cache of segments",
        ("spans",),
    ),
}


def beside(attention):
    lines = [
        "## Beside the table",
        "",
        "Layers of `kanets.attention` with the same calls that map no grid to",
        "itself, and so are no names. The pictures are those of",
        "[benchmarks/](../benchmarks/README.md), by the script of the name.",
        "",
    ]
    for name, (formula, pictures) in BESIDE.items():
        text = getattr(attention, name).__doc__
        lines += [
            f"### {name}",
            "",
            f"    {formula}",
            "",
            *(f"- **{field}** {said(text, field)}" for field in FIELDS),
            "",
        ]
        for picture in pictures:
            if (BENCHMARKS / f"{picture}.png").exists():
                lines += [f"![{picture}](../benchmarks/{picture}.png)", ""]
    return "\n".join(lines)


def said(text, field):
    """What a docstring says after a field's name, as one line."""
    pattern = rf"^ *{field}: *(.*?)(?:\n\s*\n|\s*\Z)"
    [found] = re.findall(pattern, text, re.DOTALL | re.MULTILINE)
    return " ".join(found.split())


def draw(name, path):
    """What a query sees in each head: the weights of random maps.

    Faint ones, so that all which is seen shows; means are fainter yet.
    """
    import keras
    import numpy as np
    from matplotlib.figure import Figure

    from kanets import attention
    from kanets.attention.table import parameters

    keras.utils.set_random_seed(0)
    layer_type = attention.MECHANISMS[name].layer
    heads = (
        {"num_heads": HEADS} if "num_heads" in parameters(layer_type) else {}
    )
    layer = attention.make({"name": name, **heads})
    x = np.random.default_rng(0).normal(size=(1, SIDE, SIDE, CHANNELS))
    x = (x if name.startswith("kao_") else 0.2 * x).astype("float32")
    layer(x)
    maps = np.asarray(layer.attention_maps(x, POSITION))
    maps = maps.reshape(-1, *maps.shape[-2:])
    passing = gates(layer, x)
    drawn = Figure(
        figsize=(1.6 * (len(maps) + len(passing)), 1.7), layout="constrained"
    )
    axes = drawn.subplots(1, len(maps) + len(passing), squeeze=False)[0]
    for axis, weights in zip(axes, [*maps, *passing], strict=True):
        axis.imshow(weights, cmap="viridis", vmin=0)
        axis.set(xticks=[], yticks=[])
    for axis in axes[: len(maps)]:
        axis.plot(POSITION[1], POSITION[0], "s", mec="red", mfc="none")
    for axis, weights in zip(axes[len(maps) :], passing, strict=True):
        axis.images[0].set(cmap="magma", clim=(0, 1))
        axis.set(title=f"{weights.min():.2f} to {weights.max():.2f}")
    drawn.savefig(path, dpi=70)


def gates(layer, x):
    """What three channels of a map with a bright square are multiplied by."""
    import numpy as np

    if not hasattr(layer, "gates"):
        return []
    x = x.copy()
    x[:, 3:8, 8:14] += 4
    factors = [np.asarray(factor) for factor in layer.gates(x)]
    if not factors:
        return []
    found = np.prod(np.broadcast_arrays(x[..., :1] * 0 + 1, *factors), axis=0)
    return [found[0, ..., channel % found.shape[-1]] for channel in range(3)]


if __name__ == "__main__":
    main()
