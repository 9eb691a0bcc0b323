"""`kanets finetune`."""

from typing import Annotated

from typer import Option

from kanets.cli.options import (
    Data,
    IgnoreLabel,
    JitCompile,
    Model,
    OnError,
    RunFolder,
    Seed,
    Wandb,
)
from kanets.cli.running import command
from kanets.cli.train import GOES_ON, trained


@command(
    "finetune kanet_qkv_cifar10 --data photos --to runs/mine",
    when_stopped=GOES_ON,
    reads=True,
    computes=True,
    trains=True,
)
def finetune(
    model: Model,
    *,
    data: Data,
    to: RunFolder,
    attention: Annotated[
        str | None,
        Option(help="Of a classifier, closed at first: kao_qkv."),
    ] = None,
    epochs: Annotated[
        int | None,
        Option(
            help="In all; default by the number of pictures, of a segmenter 10."
        ),
    ] = None,
    frozen_epochs: Annotated[
        int | None,
        Option(
            help="First ones, of the head alone; default 0, of a segmenter 2."
        ),
    ] = None,
    new_head: Annotated[
        bool | None,
        Option(
            "--new-head/--no-new-head",
            help="Start the last layer anew; default: unless the classes are, "
            "by name, the model's.",
        ),
    ] = None,
    layer_decay: Annotated[
        float | None,
        Option(help="Rate factor per layer below; default 1."),
    ] = None,
    learning_rate: Annotated[
        float | None,
        Option(help="Default 1e-3; of few pictures 3e-4."),
    ] = None,
    batch_size: Annotated[
        int | None, Option(help="Default 32, of a segmenter 8.")
    ] = None,
    int8: Annotated[
        bool,
        Option(
            "--int8",
            help="The last quarter of epochs is for 8 bits.",
        ),
    ] = False,
    seed: Seed = 0,
    precision: Annotated[
        str | None,
        Option(
            help="float32, mixed_float16 or mixed_bfloat16 (default on an "
            "accelerator).",
        ),
    ] = None,
    jit_compile: JitCompile = None,
    image_size: Annotated[
        tuple[int, int] | None,
        Option(
            metavar="HEIGHT WIDTH",
            help="Default: the model's, or less.",
        ),
    ] = None,
    ignore_label: IgnoreLabel = None,
    on_error: OnError = "stop",
    wandb: Wandb = None,
):
    """Train a pretrained model further, on pictures of your own.

    What is not given is chosen by the model and the pictures, and said.
    """
    from kanets.train import recipes

    recipe = recipes.finetune_recipe(
        model,
        data,
        attention=attention,
        epochs=epochs,
        frozen_epochs=frozen_epochs,
        new_head=new_head,
        layer_decay=layer_decay,
        learning_rate=learning_rate,
        batch_size=batch_size,
        seed=seed,
        precision=precision,
        jit_compile=jit_compile,
        image_size=image_size,
        ignore_label=ignore_label,
        int8=int8,
        on_error=on_error,
        say=print,
    )
    yield trained(recipe, to, wandb=wandb)
