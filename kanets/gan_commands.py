"""The commands of the GANs: generate, interpolate, invert.

What they call is in `ylg`; here are only files, labels and grids.
"""

import csv
from pathlib import Path

import numpy as np

BATCH = 64
PICTURES = (".png", ".jpg", ".jpeg", ".webp")


def add_commands(command):
    """Adds the commands to the parser of `kanets`.

    Args:
        command: function (name, run, summary, example) that makes the parser
            of a command, as `kanets.cli` has it.
    """
    sub = command(
        "generate",
        _generate,
        "Draw pictures with a trained generator.",
        "generate ylg_sagan_cifar10 --to samples.png --labels cat,dog",
    )
    _model_argument(sub)
    sub.add_argument("--to", required=True, help="the picture file to write")
    sub.add_argument("--count", type=int, default=64, help="default 64")
    sub.add_argument(
        "--labels",
        help="class names or numbers, comma between; in turn (default: all)",
    )
    sub.add_argument("--columns", type=int, default=8, help="default 8")
    sub.add_argument("--seed", type=int, default=0, help="default 0")

    sub = command(
        "interpolate",
        _interpolate,
        "Draw the way from one generated picture to another.",
        "interpolate runs/ylg_sagan --to ways.png --label horse",
    )
    _model_argument(sub)
    sub.add_argument("--to", required=True, help="the picture file to write")
    sub.add_argument(
        "--steps", type=int, default=8, help="pictures of a way (default 8)"
    )
    sub.add_argument("--rows", type=int, default=4, help="ways (default 4)")
    sub.add_argument(
        "--label",
        help="class name or number (default: all, a row each in turn)",
    )
    sub.add_argument("--seed", type=int, default=0, help="default 0")

    sub = command(
        "invert",
        _invert,
        "Find the latent vectors that generate a picture.",
        "invert runs/ylg_sagan horse.jpg --label horse --to runs/inverted",
    )
    _model_argument(sub)
    sub.add_argument("picture", help="a picture file; it is cropped, resized")
    sub.add_argument("--to", required=True, help="the folder to write to")
    sub.add_argument("--label", help="class name or number of the picture")
    sub.add_argument("--starts", type=int, default=4, help="default 4")
    sub.add_argument("--steps", type=int, default=300, help="default 300")
    sub.add_argument("--seed", type=int, default=0, help="default 0")
    sub.add_argument(
        "--discriminator",
        help="run, model folder or checkpoint (default: beside the generator)",
    )


def load_network(source, role):
    """A network of a GAN, from wherever it was saved.

    Args:
        source: the zoo's name of a GAN, a GAN run's folder (with generator/
            and discriminator/ in it), the model folder of the network, or a
            checkpoint of YLG's authors: its prefix or its folder.
        role: "generator" or "discriminator".

    Returns:
        A `keras.Model`; with `class_names` if labels were saved with it.

    Raises:
        ValueError: nothing of that kind there.
    """
    import ylg.official
    from kanets import zoo
    from kanets.zoo.sources import is_entry

    path = Path(source)
    if (path / role / "config.json").exists():
        return zoo.load_model(path / role)
    part = f"{source}/discriminator"
    if role == "discriminator" and not path.exists() and is_entry(part):
        return zoo.load_model(part)
    if Path(f"{path}.index").is_file() or (
        path.is_dir() and any(path.glob("*.index"))
    ):
        return getattr(ylg.official, f"load_{role}")(source)
    if path.is_dir() and not (path / "config.json").exists():
        raise ValueError(
            f"A GAN is a run's folder with {role}/ in it, the {role}'s model "
            "folder, or a checkpoint of YLG's authors. Received: "
            f"{str(source)!r} with {sorted(p.name for p in path.iterdir())}"
        )
    model = zoo.load_model(source)
    rank = {"generator": 2, "discriminator": 4}[role]
    if len(model.inputs[0].shape) != rank:
        shapes = [tuple(tensor.shape) for tensor in model.inputs]
        raise ValueError(
            f"The model must be a {role}. Received: {str(source)!r} with a "
            f"model {model.name!r} of inputs {shapes}"
        )
    return model


def read_labels(text, model):
    """Classes from what a user wrote.

    Args:
        text: class names or numbers with commas between them. A name wins
            over a number. None is all classes.
        model: a generator.

    Returns:
        List of integers, or None for a model without classes.

    Raises:
        ValueError: labels for a model without classes, an unknown one.
    """
    if len(model.inputs) == 1:
        if text is not None:
            raise ValueError(
                "The generator has no classes, so it takes no label. "
                f"Received: {text!r}"
            )
        return None
    count, names = _classes(model)
    if text is None:
        return list(range(count))
    return [_read_label(part.strip(), count, names) for part in text.split(",")]


def spherical(start, end, steps):
    """Points of the great circle's arc between vectors.

        w = angle between a and b
        p(t) = a sin((1 - t) w) / sin(w) + b sin(t w) / sin(w)

    Between latents of a normal distribution, whose lengths are nearly equal,
    a straight line would pass through lengths that never occur.

    Args:
        start, end: float (..., size).
        steps: points, both ends among them.

    Returns:
        float32 array (..., steps, size). Parallel vectors have a straight
        line between them.

    References: Shoemake, "Animating Rotation with Quaternion Curves", 1985.
    """
    start, end = (np.asarray(x, "float64")[..., None, :] for x in (start, end))
    lengths = np.linalg.norm(start, axis=-1) * np.linalg.norm(end, axis=-1)
    cosine = np.sum(start * end, axis=-1) / np.where(lengths > 0, lengths, 1)
    angle = np.arccos(np.clip(cosine, -1, 1))[..., None]
    t = np.linspace(0, 1, steps)[:, None]
    sine = np.sin(angle)
    straight = sine < 1e-6
    divisor = np.where(straight, 1, sine)
    first = np.where(straight, 1 - t, np.sin((1 - t) * angle) / divisor)
    last = np.where(straight, t, np.sin(t * angle) / divisor)
    return (first * start + last * end).astype("float32")


def _generate(options):
    from ylg import gan

    _at_least(1, count=options.count, columns=options.columns)
    _check_file(options.to)
    model = load_network(options.model, "generator")
    labels = read_labels(options.labels, model)
    if labels is not None:
        labels = np.resize(labels, options.count)
    latent_size = model.inputs[0].shape[-1]
    z = gan.latents(latent_size, options.count, options.seed)
    images = gan.draw(model, z, labels, BATCH)
    columns = min(options.columns, options.count)
    size = _save_grid(images, columns, options.to)
    print(f"{options.to}: {options.count} pictures, {size}")


def _interpolate(options):
    from ylg import gan

    _at_least(1, rows=options.rows)
    _at_least(2, steps=options.steps)
    _check_file(options.to)
    model = load_network(options.model, "generator")
    labels = read_labels(options.label, model)
    if labels is not None:
        labels = np.repeat(np.resize(labels, options.rows), options.steps)
    latent_size = model.inputs[0].shape[-1]
    ends = gan.latents(latent_size, 2 * options.rows, options.seed)
    z = spherical(ends[::2], ends[1::2], options.steps)
    z = z.reshape(-1, z.shape[-1])
    images = gan.draw(model, z, labels, BATCH)
    size = _save_grid(images, options.steps, options.to)
    print(
        f"{options.to}: {options.rows} ways of {options.steps} pictures, {size}"
    )


def _invert(options):
    from kanets.data import pictures
    from ylg import inversion, visualize
    from ylg.gan import to_pixels

    _at_least(1, starts=options.starts, steps=options.steps)
    visualize.require_matplotlib()  # now, not after all those steps
    picture = _read_picture(options.picture)
    generator = load_network(options.model, "generator")
    discriminator = _load_discriminator(options)
    label = _one_label(options.label, generator)
    picture = pictures.fit_picture(picture, generator.output_shape[1:3])
    found = inversion.invert(
        picture,
        generator,
        discriminator,
        label,
        starts=options.starts,
        steps=options.steps,
        seed=options.seed,
    )
    to = Path(options.to)
    to.mkdir(parents=True, exist_ok=True)
    _save_picture(picture, to / "target.png")
    for index, image in enumerate(to_pixels(found.images)):
        _save_picture(image, to / f"reconstruction_{index + 1}.png")
    _write_losses(found.history, to / "losses.csv")
    np.save(to / "latents.npy", found.latents)
    visualize.plot_saliency(picture, found.saliency, to / "saliency.png")
    visualize.plot_inversion(picture, found, to / "inversion.png")
    print(
        f"{to}: loss {found.history[0].min():.4g} -> {found.losses[0]:.4g}; "
        "target.png, reconstruction_*.png, saliency.png, inversion.png, "
        "losses.csv, latents.npy"
    )


def _model_argument(sub):
    sub.add_argument(
        "model",
        help="zoo name, GAN run, generator's folder, or official checkpoint",
    )


def _load_discriminator(options):
    source = options.discriminator
    if source is None:
        path = Path(options.model)
        source = path if path.exists() else options.model
        alone = (path / "config.json").exists()
        if alone and not (path / "discriminator").is_dir():
            # A generator's folder of a run lies beside the other one.
            source = path.absolute().parent
        if alone and not (source / "discriminator").is_dir():
            raise ValueError(
                "There is no discriminator beside this generator: give "
                f"--discriminator. Received: {options.model!r}"
            )
    return load_network(source, "discriminator")


def _one_label(text, model):
    labels = read_labels(text, model)
    if labels is None:
        return None
    if text is None or len(labels) != 1:
        _, names = _classes(model)
        known = ", ".join(names) if names else f"0..{len(labels) - 1}"
        raise ValueError(
            "The generator has classes: give --label with the picture's, one "
            f"of {known}. Received: label={text!r}"
        )
    return labels[0]


def _classes(model):
    """Number of classes of a conditional generator, and names or ()."""
    from ylg.gan import num_classes

    return num_classes(model), tuple(getattr(model, "class_names", ()))


def _read_label(text, count, names):
    if text in names:
        return names.index(text)
    if text.isdecimal() and int(text) < count:
        return int(text)
    known = f"one of {', '.join(names)}, or " if names else ""
    raise ValueError(
        f"A label must be {known}a number in 0..{count - 1}. Received: {text!r}"
    )


def _save_grid(images, columns, path):
    from ylg.gan import picture_grid

    grid = picture_grid(images, columns)
    _save_picture(grid, path)
    return f"{grid.shape[1]} x {grid.shape[0]} pixels"


def _save_picture(pixels, path):
    from PIL import Image

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _read_picture(path):
    from kanets.data import pictures

    try:
        return pictures.read_picture(path)
    except pictures.PictureError as error:
        raise ValueError(
            f"The picture cannot be read: {error}. Received: {path!r}"
        ) from error


def _write_losses(history, path):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        starts = range(1, history.shape[1] + 1)
        writer.writerow(["step", *(f"reconstruction_{s}" for s in starts)])
        for step, losses in enumerate(history, start=1):
            writer.writerow([step, *(f"{loss:.6g}" for loss in losses)])


def _at_least(least, **values):
    for name, value in values.items():
        if value < least:
            raise ValueError(
                f"--{name} must be {least} or more. Received: {value}"
            )


def _check_file(path):
    if Path(path).suffix.lower() not in PICTURES:
        raise ValueError(
            f"--to must be a picture file, one of {', '.join(PICTURES)}. "
            f"Received: {str(path)!r}"
        )
