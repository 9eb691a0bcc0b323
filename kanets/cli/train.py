"""`kanets train`, and what a training reports."""

import dataclasses
import shlex
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from kanets.cli.messages import about_report
from kanets.cli.options import (
    Data,
    Distributed,
    JitCompile,
    RunFolder,
    Wandb,
)
from kanets.cli.running import command

GOES_ON = " Training continues with the same command."


@command(
    "train training/kanet_qkv_cifar10.toml --data cifar10 --to runs/kanet",
    when_stopped=GOES_ON,
    of_recipe=True,
    reads=True,
    computes=True,
    trains=True,
)
def train(
    recipe: Annotated[str, Argument(help="A TOML file, as in training/.")],
    *,
    data: Data = None,
    to: RunFolder,
    epochs: Annotated[int, Option(help="Instead of the recipe's.")] = None,
    batch_size: Annotated[int, Option(help="Instead of the recipe's.")] = None,
    seed: Annotated[int, Option(help="Instead of the recipe's.")] = None,
    jit_compile: JitCompile = None,
    distributed: Distributed = False,
    devices: Annotated[
        int, Option(help="On TensorFlow: how many devices of this machine.")
    ] = 1,
    wandb: Wandb = None,
):
    """Train by a recipe; again on the same folder, resume."""
    from kanets.distribute.processes import is_first
    from kanets.train import recipes

    changes = {
        "epochs": epochs,
        "batch_size": batch_size,
        "seed": seed,
        "jit_compile": jit_compile,
    }
    recipe = recipes.read(recipe)
    if data is not None:
        changes["data"] = dataclasses.replace(recipe.data, source=data)
    recipe = dataclasses.replace(
        recipe, **{k: v for k, v in changes.items() if v is not None}
    )
    report = trained(
        recipe, to, distributed=distributed, devices=devices, wandb=wandb
    )
    if is_first():
        yield report


def trained(recipe, folder, **options):
    """Runs a recipe in a folder; what it gave, as a report."""
    from kanets import tasks
    from kanets.train import recipes

    result = recipes.train(recipe, folder, report=True, **options)
    task = tasks.of_recipe(recipe)
    lines = [f"{folder}: {task.run_summary(result)}"]
    if "report" in result:
        lines += about_report(result, Path(folder, result["report"]))
    places = {
        "run": shlex.quote(str(folder)),
        "name": shlex.quote(Path(folder).name),
    }
    for label, step in zip(("next:", "     "), task.next_steps, strict=True):
        lines.append(f"{label} kanets {step.format(**places)}")
    return {"run": folder, **result}, "\n".join(lines)
