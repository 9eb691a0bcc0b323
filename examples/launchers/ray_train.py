"""Trains a recipe by Ray's JaxTrainer: python ray_train.py HEAD:PORT.

On CPUs JaxTrainer sets nothing up, and without the place that is given here
each worker would train by itself.
"""

import sys

import ray.train
from ray.train import ScalingConfig
from ray.train.v2.jax import JaxTrainer
from train import main

PROCESSES = 4


def loop(config):
    context = ray.train.get_context()
    main(
        *(PROCESSES, "recipe.toml", "photos", "runs/mine"),
        address=config["address"],  # of rank 0
        processes=context.get_world_size(),
        index=context.get_world_rank(),
    )


if __name__ == "__main__":
    JaxTrainer(
        loop,
        train_loop_config={"address": sys.argv[1]},
        scaling_config=ScalingConfig(num_workers=PROCESSES),
    ).fit()
