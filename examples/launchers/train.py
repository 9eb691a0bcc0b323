"""Trains a recipe as one of several processes, which a launcher starts.

python train.py PROCESSES RECIPE DATA RUN
"""

import dataclasses
import sys

import jax

from kanets import distribute, recipes


def main(processes, recipe, data, run, **place):
    distribute.initialize(**place)
    if jax.process_count() != int(processes):
        sys.exit(f"{jax.process_count()} processes were joined: {processes=}")
    recipe = recipes.read(recipe)
    source = dataclasses.replace(recipe.data, source=data)
    recipe = dataclasses.replace(recipe, data=source)
    recipes.train(recipe, run, report=True, distributed=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
