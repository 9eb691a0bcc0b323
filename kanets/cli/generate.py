"""`kanets generate` and `kanets interpolate`: pictures out of a generator."""

from typing import Annotated

from typer import Option

from kanets.cli.options import Gan, PictureFile, Seed
from kanets.cli.pictures import (
    check_at_least,
    check_picture_file,
    save_picture,
)
from kanets.cli.running import command


@command(
    "generate ylg_sagan_cifar10 --to samples.png --labels cat,dog",
    computes=True,
)
def generate(
    model: Gan,
    *,
    to: PictureFile,
    count: Annotated[int, Option(help="Pictures.")] = 64,
    labels: Annotated[
        str | None,
        Option(
            help="Class names or numbers, comma between; in turn (default: "
            "all)."
        ),
    ] = None,
    columns: Annotated[int, Option(help="Pictures side by side.")] = 8,
    seed: Seed = 0,
):
    """Draw pictures with a trained generator, below their classes."""
    check_at_least(1, count=count, columns=columns)
    check_at_least(0, seed=seed)
    check_picture_file(to)

    import numpy as np

    from kanets.zoo.gans import load_network, read_labels
    from ylg import gan

    generator = load_network(model, "generator")
    labels = read_labels(labels, generator)
    if labels is not None:
        labels = np.resize(labels, count)
    z = gan.latents(generator.inputs[0].shape[-1], count, seed)
    images = gan.draw(generator, z, labels)
    columns = min(columns, count)
    captions = _names_of(labels, generator)
    if captions == [captions[i % columns] for i in range(len(captions))]:
        captions = captions[:columns]  # a class to each column
    size = _save_grid(images, columns, to, captions)
    yield _report(to, images, size), f"{to}: {count} pictures, {_text(size)}"


@command(
    "interpolate runs/ylg_sagan --to ways.png --label horse", computes=True
)
def interpolate(
    model: Gan,
    *,
    to: PictureFile,
    steps: Annotated[int, Option(help="Pictures of a way.")] = 8,
    rows: Annotated[int, Option(help="Ways.")] = 4,
    label: Annotated[
        str | None,
        Option(help="Class name or number (default: all, a row each in turn)."),
    ] = None,
    seed: Seed = 0,
):
    """Draw the way from one generated picture to another."""
    check_at_least(1, rows=rows)
    check_at_least(0, seed=seed)
    check_at_least(2, steps=steps)
    check_picture_file(to)

    import numpy as np

    from kanets.zoo.gans import load_network, read_labels
    from ylg import gan

    generator = load_network(model, "generator")
    labels = read_labels(label, generator)
    if labels is not None:
        labels = np.repeat(np.resize(labels, rows), steps)
    ends = gan.latents(generator.inputs[0].shape[-1], 2 * rows, seed)
    z = gan.spherical(ends[::2], ends[1::2], steps)
    images = gan.draw(generator, z.reshape(-1, z.shape[-1]), labels)
    captions = [
        "" if place % steps else name
        for place, name in enumerate(_names_of(labels, generator))
    ]
    size = _save_grid(images, steps, to, captions)
    text = f"{to}: {rows} ways of {steps} pictures, {_text(size)}"
    yield _report(to, images, size), text


def _names_of(labels, generator):
    """The name of each label; none of a generator without."""
    from kanets.zoo.gans import classes_of

    _, names = classes_of(generator)
    return [names[label] for label in labels] if names else []


def _save_grid(images, columns, path, captions):
    """Writes pictures in [-1, 1] side by side; returns (width, height)."""
    from kanets.visualize.sheets import captioned
    from ylg import gan

    if captions:
        grid = captioned(gan.to_pixels(images), columns, captions)
    else:
        grid = gan.picture_grid(images, columns)
    save_picture(grid, path)
    return grid.shape[1], grid.shape[0]


def _report(path, images, size):
    return {"picture": path, "count": len(images), "size": size}


def _text(size):
    return f"{size[0]} x {size[1]} pixels"
