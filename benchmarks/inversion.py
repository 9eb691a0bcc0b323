"""How near does inversion through the discriminator's attention come?

    python benchmarks/inversion.py --gan runs/ylg_sagan --data cifar10/test

inverts one generated and one real picture of each of five classes, from four
starts of 300 steps, and writes `inversion.csv` and `inversion.png` beside
this file. Generated pictures can be reached exactly, real ones only as far as
the generator can draw them. `rmse` is over pixels in [-1, 1]; `random` is that
of the best of the four starts before the first step.
"""

import argparse
from pathlib import Path

import keras
import numpy as np
from tables import write

import ylg
from kanets import zoo
from kanets.data.pictures import fit_picture, read_picture
from kanets.zoo.gans import load_network

HERE = Path(__file__).parent
CLASSES = ("airplane", "automobile", "horse", "ship", "truck")
COLUMNS = (
    "target",
    "class",
    "first_loss",
    "loss",
    "random",
    "rmse",
    "latent_distance",
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gan", required=True, help="a GAN run's folder")
    parser.add_argument("--data", required=True, help="class folders")
    options = parser.parse_args()
    generator = load_network(options.gan, "generator")
    discriminator = zoo.load_model(Path(options.gan) / "discriminator")
    rows, pictures = [], []
    for number, name in enumerate(CLASSES):
        label = generator.class_names.index(name)
        latent = np.random.default_rng([7, number]).normal(
            size=(1, generator.inputs[0].shape[-1])
        )
        given = [latent.astype("float32"), np.array([label], "int32")]
        generated = generator.predict(given, verbose=0)[0]
        path = sorted((Path(options.data) / name).iterdir())[0]
        pixels = fit_picture(read_picture(path), generated.shape[:2])
        real = pixels.astype("float32") / 127.5 - 1
        for kind, target in (("generated", generated), ("real", real)):
            found = ylg.invert(
                target, generator, discriminator, label, verbose=0
            )
            first = ylg.invert(
                target, generator, discriminator, label, steps=1, verbose=0
            )
            distance = np.linalg.norm(found.latents[0] - latent[0])
            rows.append(
                {
                    "target": kind,
                    "class": name,
                    "first_loss": f"{found.history[0].min():.3f}",
                    "loss": f"{found.losses[0]:.3f}",
                    "random": f"{rmse(first.images, target).min():.3f}",
                    "rmse": f"{rmse(found.images[:1], target)[0]:.3f}",
                    "latent_distance": (
                        f"{distance:.1f}" if kind == "generated" else ""
                    ),
                }
            )
            print(*rows[-1].values(), flush=True)
            pictures += [target, found.images[0]]
    write(HERE / "inversion.csv", rows, COLUMNS)
    # A row a class: generated, found; real, found.
    grid = ylg.gan.picture_grid(np.stack(pictures), columns=4)
    grid = grid.repeat(3, axis=0).repeat(3, axis=1)
    keras.utils.save_img(HERE / "inversion.png", grid, scale=False)


def rmse(images, target):
    return np.sqrt(np.mean((images - target) ** 2, axis=(1, 2, 3)))


if __name__ == "__main__":
    main()
