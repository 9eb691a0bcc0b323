"""`kanets invert`: latent vectors out of a picture."""

import csv
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from kanets.cli.options import Gan, Seed
from kanets.cli.pictures import check_at_least, read_picture, save_picture
from kanets.cli.running import command


@command(
    "invert runs/ylg_sagan horse.jpg --label horse --to runs/inverted",
    computes=True,
)
def invert(
    model: Gan,
    picture: Annotated[
        str, Argument(help="A picture file; it is cropped, resized.")
    ],
    *,
    to: Annotated[str, Option(help="The folder to write to.")],
    label: Annotated[
        str | None, Option(help="Class name or number of the picture.")
    ] = None,
    starts: Annotated[int, Option(help="Latent vectors to start from.")] = 4,
    steps: Annotated[int, Option(help="Of the descent from each.")] = 300,
    seed: Seed = 0,
    discriminator: Annotated[
        str | None,
        Option(
            help="Run, model folder or checkpoint (default: beside the "
            "generator)."
        ),
    ] = None,
):
    """Find the latent vectors that generate a picture."""
    check_at_least(1, starts=starts, steps=steps)
    check_at_least(0, seed=seed)
    to = Path(to)
    to.mkdir(parents=True, exist_ok=True)  # now, not after all those steps

    from kanets.data.pictures import fit_picture
    from kanets.zoo.gans import load_network
    from ylg import inversion, visualize

    visualize.require_matplotlib()  # now, not after all those steps
    target = read_picture(picture)
    generator = load_network(model, "generator")
    network = load_network(
        find_discriminator(model, discriminator), "discriminator"
    )
    label = one_label(label, generator)
    target = fit_picture(target, generator.output_shape[1:3])
    found = inversion.invert(
        target,
        generator,
        network,
        label,
        starts=starts,
        steps=steps,
        seed=seed,
    )
    _write(found, target, to)
    first = found.history[0].min()
    value = {"folder": to, "first_loss": first, "losses": found.losses}
    yield (
        value,
        (
            f"{to}: loss {first:.4g} -> {found.losses[0]:.4g}; "
            "target.png, reconstruction_*.png, saliency.png, inversion.png, "
            "losses.csv, latents.npy"
        ),
    )


def find_discriminator(generator, discriminator=None):
    """Where the discriminator is: given, or beside the generator."""
    if discriminator is not None:
        return discriminator
    path = Path(generator)
    if not path.exists():
        return generator
    if not (path / "config.json").exists() or (path / "discriminator").is_dir():
        return path
    # A generator's folder of a run lies beside the other one.
    run = path.absolute().parent
    if not (run / "discriminator").is_dir():
        raise ValueError(
            "There is no discriminator beside this generator: give "
            f"--discriminator. Received: {generator!r}"
        )
    return run


def one_label(text, generator):
    """The class of a picture as the user wrote it; None without classes."""
    from kanets.zoo.gans import classes_of, read_labels

    labels = read_labels(text, generator)
    if labels is None:
        return None
    if text is None or len(labels) != 1:
        _, names = classes_of(generator)
        known = ", ".join(names) if names else f"0..{len(labels) - 1}"
        raise ValueError(
            "The generator has classes: give --label with the picture's, one "
            f"of {known}. Received: label={text!r}"
        )
    return labels[0]


def _write(found, target, to):
    """The files of an `Inversion`, in a folder."""
    import numpy as np

    from ylg import visualize
    from ylg.gan import to_pixels

    save_picture(target, to / "target.png")
    for index, image in enumerate(to_pixels(found.images)):
        save_picture(image, to / f"reconstruction_{index + 1}.png")
    _write_losses(found.history, to / "losses.csv")
    np.save(to / "latents.npy", found.latents)
    visualize.plot_saliency(target, found.saliency, to / "saliency.png")
    visualize.plot_inversion(target, found, to / "inversion.png")


def _write_losses(history, path):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        starts = range(1, history.shape[1] + 1)
        writer.writerow(["step", *(f"reconstruction_{s}" for s in starts)])
        for step, losses in enumerate(history, start=1):
            writer.writerow([step, *(f"{loss:.6g}" for loss in losses)])
