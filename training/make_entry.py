"""Makes an entry of the zoo out of a run, or all cards anew.

    python training/make_entry.py kanet_qkv_cifar10 --run runs/kanet_qkv_cifar10 --data cifar10 --machine "two x86-64 CPU cores"
    python training/make_entry.py sagan_cifar10 --data cifar10
    python training/make_entry.py --cards

The first copies the model of a run into `models/<name>/` and its log to
`training/<name>.csv`, measures the copy by `kanets evaluate`'s function, draws
the pictures of the card, and writes `entry.json`. The second measures an entry
anew. All then write the cards and `models/README.md` from the entries. What is
measured is a function of the model's task and of the data set alone: the task
is asked for the one, the other is written down here.
"""  # noqa: E501

import argparse
import dataclasses
import importlib.metadata
import platform
import shutil
from pathlib import Path

import cards
import keras
from weight_files import store_kernels

import kanets
from kanets import evaluation, recipes, tasks, visualize, zoo
from kanets.train.recipes.files import arguments
from kanets.zoo import timm
from kanets.zoo.sources import locate

ROOT = Path(__file__).parent.parent
MODELS = ROOT / "models"
TRAINING = ROOT / "training"
# Folder of the data: its name, the part measured on, options of `evaluate`.
DATA_SETS = {
    "cifar10": ("CIFAR-10 (JPEG)", "test", {}),
    "tiny_imagenet_32": ("Tiny ImageNet 32", "val", {}),
    "tiny_imagenet_64": ("Tiny ImageNet 64", "val", {}),
    "flowers": ("Flowers", "val", {}),
    "camvid": ("CamVid", "val", {"ignore_label": 11}),
}
LICENCES = {
    "CIFAR-10 (JPEG)": "weights Apache-2.0; data: free use with citation",
    "Tiny ImageNet 32": "weights and data under ImageNet's terms: research, "
    "non-commercial",
    "Tiny ImageNet 64": "weights and data under ImageNet's terms: research, "
    "non-commercial",
    "Flowers": "weights Apache-2.0, from ImageNet; photos CC BY 2.0, "
    "attributions in TensorFlow's flower_photos archive",
    "CamVid": "weights and data: research",
}
LARGE = 10e6  # bytes of a weights file, beyond which kernels are halved
SIZES = {"CamVid": (360, 480)}  # where all pictures have one


def make_entry(name, run, source, machine, notes):
    recipe = recipes.read(run / "recipe.toml")
    task = tasks.of_recipe(recipe)
    check_recipe(recipe, TRAINING / f"{name}.toml")
    settings = arguments(getattr(recipe, task.section))
    backbone = settings.get("backbone")
    # Under another name until all of it is there.
    folder = MODELS / f".{name}"
    copy_model(run, folder, task)
    entries = {entry.name: entry for entry in zoo.list_models()}
    started = started_from(settings, entries)
    if started:
        settings = started.settings
    for weights in folder.rglob("*.weights.h5"):
        if weights.stat().st_size > LARGE:
            store_kernels(weights, "float16")
            notes = f"{notes}; kernels stored in float16".lstrip("; ")
    model = zoo.load_model(folder)
    data_set, part, options = DATA_SETS[source.name]
    figures = measure(folder, source)
    size = recipe.data.image_size or SIZES.get(data_set)
    net = task.entry_fields(settings, model, size)
    flags = "".join(f" --{k.replace('_', '-')} {v}" for k, v in options.items())
    files = [
        path
        for part in task.kept.values()
        for path in sorted((folder / part).glob("*"))
        if path.name in ("config.json", "labels.txt", "model.weights.h5")
    ]
    licence = LICENCES[data_set]
    if started:
        notes = f"{notes}; starts from `{started.source}`".lstrip("; ")
        if started.licence:
            licence = f"{licence}; of what it starts from: {started.licence}"
    if backbone is not None:
        body = entries[backbone]
        notes = f"{notes}; the body starts from `{backbone}`".lstrip("; ")
        licence = f"{licence}; of the body it starts from: {body.licence}"
    curve = "curve.png"
    visualize.plot_curves({name: run / "log.csv"}, folder / curve, task.column)
    drawn = task.draw(folder, model, source / part, **options)
    entry = zoo.Entry(
        name=name,
        task=task.name,
        **net,
        parameters=model.count_params(),
        multiply_adds=kanets.nets.multiply_adds(
            model, net["input_shape"] if task.takes_pictures else None
        ),
        weights_bytes=sum(
            file.stat().st_size for file in files if file.suffix == ".h5"
        ),
        files={
            file.relative_to(folder).as_posix(): zoo.sha256(file)
            for file in files
        },
        data=data_set,
        evaluate_command=f"kanets evaluate {name} --data {source.name}/{part}"
        + flags,
        recipe=f"{name}.toml",
        train_command=f"kanets train training/{name}.toml --data "
        f"{Path(source.name, task.trains_on)} --to runs/{name}",
        seed=recipe.seed,
        versions=versions(),
        machine=machine,
        licence=licence,
        **figures,
        pictures=(*drawn, curve),
        notes=notes,
    )
    entry.to_json(folder / "entry.json")
    shutil.copy(run / "log.csv", TRAINING / f"{name}.csv")
    shutil.rmtree(MODELS / name, ignore_errors=True)
    folder.rename(MODELS / name)
    print(f"{name}: {entry.value} {entry.metric}")


def measure(model, source):
    """What an entry says of how good it is."""
    _, part, options = DATA_SETS[source.name]
    measured = evaluation.evaluate(model, source, **options)
    task = tasks.of_result(measured)
    place = f"{measured['pictures']:,} {part} pictures"
    if "extractor" in measured:
        place = f"{place}, {measured['extractor']}"
    return {
        "metric": f"{task.metric}, {place}",
        "value": round(measured[task.figure], task.decimals),
        "metrics": task.details(measured),
    }


def measure_anew(name, source):
    [entry] = zoo.list_models(name)
    entry = dataclasses.replace(entry, **measure(MODELS / name, source))
    entry.to_json(MODELS / name / "entry.json")
    print(f"{name}: {entry.value} {entry.metric}")


@dataclasses.dataclass(frozen=True)
class Started:
    """What a fine-tuned net started from, which tells what it is.

    Attributes:
        source: the entry, or where its weights are published.
        settings: the name of the net and its arguments.
        licence: of published weights; an entry of ours has its own card.
    """

    source: str
    settings: dict
    licence: str = ""


def started_from(settings, entries):
    """The `Started` of a recipe's section, or None for a net made anew.

    What starts from another run started where that did.

    Args:
        settings: the arguments of the section, with its name.
        entries: those of the zoo, by name.
    """
    given = dict(settings)
    name = given.pop("name", None)
    source = given.pop("weights", name)
    given.pop("pretrained", None)
    run = Path(str(name), "recipe.toml")
    if source == name and run.is_file():
        recipe = recipes.read(run)
        before = arguments(getattr(recipe, tasks.of_recipe(recipe).section))
        return started_from(before | given, entries)
    if name in entries:
        net, licence = entries[name], ""
    elif str(source).startswith("hf://timm/"):
        weights = locate(source, foreign=True).path
        net = timm.architecture_of(weights, source)
        licence = timm.described(weights).licence
    else:
        return None
    settings = {"name": net.net, **net.arguments, **given}
    return Started(source, settings, licence)


def versions():
    """Of what makes an entry."""
    backend = keras.backend.backend()
    return {
        "kanets": kanets.__version__,
        "keras": keras.version(),
        backend: importlib.metadata.version(backend),
        "python": ".".join(platform.python_version_tuple()[:2]),
    }


def check_recipe(ran, path):
    """The run must be of the recipe that the card names."""
    named = recipes.read(path)
    data = dataclasses.replace(named.data, source=ran.data.source)
    if dataclasses.replace(named, data=data) != ran:
        raise ValueError(
            f"The run must be of {str(path)!r}, but for data.source. "
            f"Received: {ran}"
        )


def copy_model(run, folder, task):
    """The model folders of a run, without what was there before."""
    shutil.rmtree(folder, ignore_errors=True)
    for part, place in task.kept.items():
        shutil.copytree(run / part, folder / place, dirs_exist_ok=True)


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
    if options.name and not options.data:
        parser.error("--data is needed")
    if options.run and not options.machine:
        parser.error("--machine is needed")
    if options.name and not options.run:
        measure_anew(options.name, options.data)
    elif options.name:
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
