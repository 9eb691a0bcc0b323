"""Makes an entry of the zoo out of a run, or all cards anew.

    python training/make_entry.py kanet_qkv_cifar10 --run runs/kanet_qkv_cifar10 --data cifar10 --machine "two x86-64 CPU cores"
    python training/make_entry.py --cards

The first copies the model of a run into `models/<name>/` and its log to
`training/<name>.csv`, measures the copy by `kanets evaluate`'s function, draws
the pictures of the card, and writes `entry.json`; both then write the cards
and `models/README.md` from the entries. What is measured is a function of the
model's kind and of the data set alone, so it is written down here.
"""  # noqa: E501

import argparse
import dataclasses
import importlib.metadata
import platform
import shutil
from pathlib import Path

import keras
import numpy as np

import kanets
from kanets import cards, data, evaluation, recipes, visualize, zoo
from kanets.recipes.files import arguments
from ylg import gan

ROOT = Path(__file__).parent.parent
MODELS = ROOT / "models"
TRAINING = ROOT / "training"
# Folder of the data: its name, the part measured on, options of `evaluate`.
DATA_SETS = {
    "cifar10": ("CIFAR-10 (JPEG)", "test", {}),
    "tiny_imagenet_32": ("Tiny ImageNet 32", "val", {}),
    "camvid": ("CamVid", "val", {"ignore_label": 11}),
}
LICENCES = {
    "CIFAR-10 (JPEG)": "weights Apache-2.0; data: free use with citation",
    "Tiny ImageNet 32": "weights and data under ImageNet's terms: research, "
    "non-commercial",
    "CamVid": "weights and data: research",
}
# By the section that only the recipe of this kind has.
TASKS = {
    "model": "classification",
    "segmenter": "segmentation",
    "gan": "generation",
}
CAMVID_SIZE = (360, 480)  # of all its pictures


def make_entry(name, run, source, machine, notes):
    recipe = recipes.read(run / "recipe.toml")
    kind = next(kind for kind in TASKS if hasattr(recipe, kind))
    task = TASKS[kind]
    check_recipe(recipe, TRAINING / f"{name}.toml")
    settings = arguments(getattr(recipe, kind))
    backbone = settings.pop("backbone", None)
    # Under another name until all of it is there.
    folder = MODELS / f".{name}"
    copy_model(run, folder, kind)
    model = zoo.load_model(folder)
    data_set, part, options = DATA_SETS[source.name]
    measured = evaluation.evaluate(folder, source, **options)
    num_classes = len(model.class_names)
    if kind == "gan":
        settings["image_size"] = model.output_shape[1]
        settings.pop("conditional", None)
        num_classes = gan.num_classes(model)
    figure, *others = figures(task, measured)
    flags = "".join(f" --{k.replace('_', '-')} {v}" for k, v in options.items())
    place = f"{measured['pictures']:,} {part} pictures"
    if task == "generation":
        place = f"{place}, {measured['extractor']}"
    files = [
        path
        for part in (folder, folder / "discriminator")
        for path in sorted(part.glob("*"))
        if path.name in ("config.json", "labels.txt", "model.weights.h5")
    ]
    licence = LICENCES[data_set]
    if backbone is not None:
        [body] = [e for e in zoo.list_models() if e.name == backbone]
        notes = f"{notes}; the body starts from `{backbone}`".lstrip("; ")
        licence = f"{licence}; of the body it starts from: {body.licence}"
    shape = picture_shape(model, recipe, kind)
    backend = keras.backend.backend()
    entry = zoo.Entry(
        name=name,
        task=task,
        net=settings.pop("name", "SAGAN"),
        arguments=settings,
        input_shape=shape,
        num_classes=num_classes,
        parameters=model.count_params(),
        multiply_adds=kanets.nets.multiply_adds(
            model, None if kind == "gan" else shape
        ),
        weights_bytes=sum(
            file.stat().st_size for file in files if file.suffix == ".h5"
        ),
        files={
            file.relative_to(folder).as_posix(): zoo.sha256(file)
            for file in files
        },
        data=data_set,
        metric=f"{cards.METRICS[task]}, {place}",
        value=figure,
        evaluate_command=f"kanets evaluate {name} --data {source.name}/{part}"
        + flags,
        recipe=f"{name}.toml",
        train_command=f"kanets train training/{name}.toml --data "
        f"{source.name}{'/train' if kind == 'gan' else ''} --to runs/{name}",
        seed=recipe.seed,
        versions={
            "kanets": kanets.__version__,
            "keras": keras.version(),
            backend: importlib.metadata.version(backend),
            "python": ".".join(platform.python_version_tuple()[:2]),
        },
        machine=machine,
        licence=licence,
        metrics=dict(others),
        pictures=draw(folder, name, run, model, task, source / part, options),
        notes=notes,
    )
    entry.to_json(folder / "entry.json")
    shutil.copy(run / "log.csv", TRAINING / f"{name}.csv")
    shutil.rmtree(MODELS / name, ignore_errors=True)
    folder.rename(MODELS / name)
    print(f"{name}: {entry.value} {entry.metric}")


def check_recipe(ran, path):
    """The run must be of the recipe that the card names."""
    named = recipes.read(path)
    data = dataclasses.replace(named.data, source=ran.data.source)
    if dataclasses.replace(named, data=data) != ran:
        raise ValueError(
            f"The run must be of {str(path)!r}, but for data.source. "
            f"Received: {ran}"
        )


def copy_model(run, folder, kind):
    """The model folder of a run, without what was there before."""
    shutil.rmtree(folder, ignore_errors=True)
    best = run / ("generator" if kind == "gan" else "best")
    shutil.copytree(best, folder)
    if kind == "gan":
        shutil.copytree(run / "discriminator", folder / "discriminator")


def figures(task, measured):
    """The figure of the entry, and pairs of further ones."""
    if task == "classification":
        total = measured["pictures"]
        correct = f"{measured['correct']:,} of {total:,}"
        return [round(measured["accuracy"], 4), ("correct", correct)]
    if task == "segmentation":
        return [
            round(measured["mean_iou"], 4),
            ("pixel accuracy", f"{measured['pixel_accuracy']:.4f}"),
            *((f"IoU, {k}", f"{v:.4f}") for k, v in measured["iou"].items()),
        ]
    return [
        round(measured["frechet_distance"], 2),
        ("kernel distance", f"{measured['kernel_distance']:.5f}"),
        ("precision", f"{measured['precision']:.3f}"),
        ("recall", f"{measured['recall']:.3f}"),
    ]


def picture_shape(model, recipe, kind):
    if kind == "gan":
        return tuple(model.output_shape[1:])
    if kind == "model":
        return tuple(model.input_shape[1:])
    size = recipe.data.image_size
    return (*(CAMVID_SIZE if size is None else size), 3)


def draw(folder, name, run, model, task, source, options):
    """Draws the pictures of the card; returns their names."""
    column = {
        "classification": "val_accuracy",
        "segmentation": "val_mean_iou",
        "generation": "frechet_distance",
    }[task]
    visualize.plot_curves({name: run / "log.csv"}, folder / "curve.png", column)
    if task == "generation":
        rows, columns = 6, 10
        z = gan.latents(model.inputs[0].shape[-1], rows * columns)
        grid = gan.picture_grid(gan.draw(model, z), columns)
        keras.utils.save_img(folder / "samples.png", grid, scale=False)
        return ("samples.png", "curve.png")
    if task == "classification":
        pictures = data.load_test(source, class_names=model.class_names)
        chosen = [i * pictures.num_pictures // 3 for i in range(3)]
        images = pictures.pictures.take(chosen).astype("uint8")
        visualize.attention_sheet(model, images, folder / "attention.png")
        return ("attention.png", "curve.png")
    pictures = data.load_segmentation_test(
        source, class_names=model.class_names, **options
    )
    chosen = [i * pictures.num_pictures // 4 for i in range(4)]
    images = pictures.pictures.take(chosen)
    found = np.asarray(model.predict(images, verbose=0)).argmax(-1)
    visualize.overlay_sheet(
        images.astype("uint8"),
        pictures.labels[chosen],
        found,
        model.class_names,
        folder / "overlays.png",
        **options,
    )
    images = images.astype("uint8")
    visualize.attention_sheet(model, images[:2], folder / "attention.png")
    return ("overlays.png", "attention.png", "curve.png")


def write_cards():
    entries = zoo.list_models()
    for entry in entries:
        path = MODELS / entry.name / "README.md"
        path.write_text(cards.card(entry), encoding="utf-8")
    page = MODELS / "README.md"
    page.write_text(cards.zoo_page(entries), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("name", nargs="?")
    parser.add_argument("--run", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--machine", help="the kind of machine, in words")
    parser.add_argument("--notes", default="")
    parser.add_argument("--cards", action="store_true")
    options = parser.parse_args()
    if options.name and not (options.run and options.data and options.machine):
        parser.error("--run, --data and --machine are needed")
    if options.name:
        make_entry(
            options.name,
            options.run,
            options.data,
            options.machine,
            options.notes,
        )
    elif not options.cards:
        parser.error("a name, or --cards")
    write_cards()


if __name__ == "__main__":
    main()
