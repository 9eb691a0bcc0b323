"""`kanets demo`."""

import dataclasses
from pathlib import Path
from typing import Annotated

from typer import Option

from kanets.cli.running import command

SAMPLE = Path(__file__).parents[1] / "sample"


@command("demo --to runs/demo", trains=True)
def demo(
    *,
    to: Annotated[str, Option(help="The folder to write to.")] = "runs/demo",
    epochs: Annotated[
        int | None, Option(help="Instead of the recipe's.")
    ] = None,
):
    """Train, evaluate and export on the embedded pictures."""
    import kanets
    from kanets import data, evaluation
    from kanets.train import recipes

    to = Path(to)
    sample = data.unpack_sample(to / "data")
    yield (
        {"step": "pictures", "folder": sample},
        f"1. Pictures: {sample} (900 to train, 200 to validate)",
    )
    recipe = recipes.read(SAMPLE / "demo.toml")
    recipe = dataclasses.replace(
        recipe,
        epochs=recipe.epochs if epochs is None else epochs,
        data=dataclasses.replace(recipe.data, source=str(sample)),
    )
    print("2. Training with fit()")
    result = recipes.train(recipe, to / "run", verbose=2)
    accuracy = f"{result['val_accuracy']:.4f}"
    yield (
        {"step": "training", **result},
        f"   validation accuracy of the best epoch {accuracy}",
    )
    print("3. Exporting for TensorFlow Serving")
    model = kanets.load_model(to / "run")
    bundle = kanets.export_savedmodel(model, to / "savedmodel")
    yield {"step": "export", "folder": bundle}, f"   {bundle}"
    print("4. Evaluating the model, and the SavedModel from JPEG bytes")
    for what in (to / "run", bundle):
        result = evaluation.evaluate(what, sample)
        text = f"   {what}: accuracy {result['accuracy']:.4f}"
        yield {"step": "evaluation", "of": what, **result}, text
    print("5. Asking the SavedModel about one JPEG, as bytes")
    picture = sorted((sample / "val" / "ship").iterdir())[0]
    [(_, ranked)] = evaluation.predict(bundle, [picture], top_k=3)
    answer = ", ".join(f"{name} {score:.3f}" for name, score in ranked)
    yield (
        {"step": "prediction", "picture": picture, "classes": ranked},
        f"   {picture}: {answer}",
    )
