"""A GAN's recipe, run with `compile()` and `fit()`."""

import contextlib
import time
from pathlib import Path

import keras
import numpy as np

import ylg
from kanets import data, zoo
from kanets.evaluation.generation import load_extractor
from kanets.train import checkpoints, display
from kanets.train.augment import Mirror
from kanets.train.recipes.dashboards import (
    Pictures,
    tensorboard,
    wandb_logger,
)
from kanets.train.recipes.files import arguments
from kanets.train.recipes.folder import (
    claim,
    load,
    precision,
    printer,
    read_result,
    write_result,
)
from kanets.visualize.sheets import captioned
from ylg.gan.gradients import step_of_backend

NETWORKS = ("generator", "discriminator")


def train_gan(recipe, directory, verbose=1):
    """Runs a `GANRecipe` in a run's folder.

    The folder holds `recipe.toml`, `log.csv` (a row an epoch), `samples/`
    (a PNG an epoch), `generator/` and `discriminator/` (model folders of the
    last epoch; the generator is the averaged one), `last.weights.h5` (to
    resume from), `tensorboard/` where TensorBoard's writer is installed (the
    samples, too), and at the end `result.json`. A run that was stopped
    continues from its last whole epoch, and ends as if it had not been
    stopped; with more epochs it goes on, as its learning rates are constant.

    Args, Returns, Raises: as `supervised.train`, and a ValueError on a backend
    that trains no GAN; the result is the last row of the log.
    """
    step_of_backend()
    directory = Path(directory)
    start = time.time()
    claim(recipe, directory, scheduled=False)
    say = printer(verbose)
    rows, _ = checkpoints.read_progress(directory)
    result = read_result(directory)
    if len(rows) >= recipe.epochs and result is not None:
        say(f"{directory} is complete: {len(rows)} epochs.")
        return result
    if rows:
        say(
            f"Resuming {directory} after epoch {len(rows)} of "
            f"{recipe.epochs}, from its last checkpoint."
        )
    with precision(recipe.precision):
        keras.utils.set_random_seed(recipe.seed)
        pictures = _load(recipe)
        gan = _build(recipe, pictures)
        say(
            f"generator: {gan.generator.count_params():,} parameters, "
            f"discriminator: {gan.discriminator.count_params():,}; "
            f"{pictures.num_pictures:,} pictures of "
            f"{len(pictures.class_names)} classes."
        )
        batches = _batches(recipe, pictures)
        callbacks = _callbacks(recipe, directory, pictures, batches, gan)
        if rows:
            checkpoints.restore(directory, gan)
        shown = contextlib.nullcontext()
        if verbose == 1:
            phases = [(0, recipe.epochs, "all")]
            shown = display.Display(phases, len(batches), done=len(rows))
            callbacks, verbose = [*callbacks, shown], 0
        with shown:
            gan.fit(
                batches,
                initial_epoch=len(rows),
                epochs=recipe.epochs,
                callbacks=callbacks,
                shuffle=False,  # the set shuffles itself, repeatably
                verbose=verbose,
            )
    rows, _ = checkpoints.read_progress(directory)
    result = {
        **rows[-1],
        "parameters": gan.generator.count_params(),
        "epochs": len(rows),
        "seconds": round(time.time() - start, 1),
    }
    write_result(directory, result)
    return result


class _Networks(checkpoints.Progress):
    """`Progress`, and both networks as model folders."""

    def __init__(self, directory, batches, class_names):
        super().__init__(directory, batches)
        self.class_names = class_names

    def keep(self, row):
        networks = (self.model.averaged_generator, self.model.discriminator)
        for name, network in zip(NETWORKS, networks, strict=True):
            zoo.save_model(network, self.directory / name, self.class_names)


def _load(recipe):
    pictures, _ = load(recipe)
    if not isinstance(pictures, data.Batches):
        raise ValueError(
            "The pictures of a GAN must fit in memory, "
            f"{data.batches.MEMORY_BUDGET} bytes. "
            f"Received: source={recipe.data.source!r}"
        )
    return pictures


def _build(recipe, pictures):
    options = arguments(recipe.gan)
    classes = len(pictures.class_names)
    conditional = options.pop("conditional", True)
    height, width = pictures.image_size
    if height != width:
        raise ValueError(
            "A GAN needs square pictures; set data.image_size. "
            f"Received: image_size={pictures.image_size}"
        )
    gan = ylg.SAGAN(
        image_size=height,
        num_classes=classes if conditional else None,
        seed=recipe.seed,
        **options,
    )
    settings = recipe.optimize
    optimizers = [
        keras.optimizers.Adam(
            rate, beta_1=settings.beta_1, beta_2=settings.beta_2
        )
        for rate in (
            settings.generator_learning_rate,
            settings.discriminator_learning_rate,
        )
    ]
    gan.compile(
        *optimizers,
        discriminator_steps=settings.discriminator_steps,
        average=settings.average,
        jit_compile=recipe.jit_compile,
    )
    return gan


def _batches(recipe, pictures):
    mirrored = data.augmented(pictures, Mirror()) if recipe.flip else pictures
    return data.Steps(mirrored, recipe.steps_per_epoch or len(pictures))


def _callbacks(recipe, directory, pictures, batches, gan):
    names = pictures.class_names
    columns = len(names) if 4 <= len(names) <= 16 else 8
    folder = directory / "samples"

    def samples(epochs):
        return {"samples": folder / ylg.gan.SampleGrid.name_of(epochs)}

    def named(images, columns):
        captions = [names[i % len(names)] for i in range(columns)]
        return captioned(ylg.gan.to_pixels(images), columns, captions)

    found = [
        ylg.gan.SampleGrid(
            folder,
            columns=columns,
            seed=recipe.seed,
            draw=None if gan.num_classes is None else named,
        ),
        tensorboard(directory),
        Pictures(directory, samples),
        wandb_logger(recipe, directory),
        _Networks(directory, batches, names),
    ]
    if recipe.measure.extractor:
        found.insert(0, _evaluation(recipe.measure, pictures))
    return [callback for callback in found if callback is not None]


def _evaluation(settings, pictures):
    count = min(settings.pictures, pictures.num_pictures)
    rows = np.random.default_rng(0).permutation(pictures.rows)[:count]
    real = pictures.pictures.take(rows).astype(np.uint8)
    with precision("float32"):
        extractor = load_extractor(settings.extractor)
    return ylg.gan.Evaluation(real, extractor, count, settings.every)
