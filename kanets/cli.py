"""The `kanets` command: a thin face on the functions of the package."""

import argparse
import dataclasses
import sys
import traceback
from pathlib import Path

from kanets import gan_commands

FORMATS = ("savedmodel",)


def main(arguments=None):
    """Runs the command line.

    Args:
        arguments: list of strings; default those of the process.

    Returns:
        The exit code: 0 done, 1 failed (one line on standard error says
        why), 130 stopped by the user. Misuse exits the process with 2.
    """
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except KeyboardInterrupt:
        print(
            "kanets: stopped. Training continues with the same command.",
            file=sys.stderr,
        )
        return 130
    except Exception as error:
        if options.debug:
            traceback.print_exc()
        else:
            message = " ".join(str(error).split()) or type(error).__name__
            print(f"kanets: error: {message}", file=sys.stderr)
        return 1
    return 0


def _train(options):
    from kanets import recipes

    recipe = recipes.read(options.recipe)
    changes = {
        name: getattr(options, name)
        for name in ("epochs", "batch_size", "seed")
        if getattr(options, name) is not None
    }
    if options.data is not None:
        changes["data"] = dataclasses.replace(recipe.data, source=options.data)
    recipe = dataclasses.replace(recipe, **changes)
    _report(recipes.train(recipe, options.to), options.to)


def _finetune(options):
    from kanets import recipes

    size = tuple(options.image_size or _model_size(options.model))
    recipe = recipes.from_dict(
        {
            "model": {"name": options.model},
            "epochs": options.epochs,
            "batch_size": options.batch_size,
            "seed": options.seed,
            "data": {
                "source": options.data,
                "image_size": size,
                "on_error": options.on_error,
            },
            "augment": {"crop": min(size) // 10},
            "optimize": {
                "name": "adamw",
                "learning_rate": options.learning_rate,
                "weight_decay": 0.05,
                "label_smoothing": 0.1,
            },
            "finetune": {
                "frozen_epochs": min(options.frozen_epochs, options.epochs),
                "layer_decay": options.layer_decay,
            },
        }
    )
    _report(recipes.train(recipe, options.to), options.to)


def _model_size(name):
    from kanets import zoo

    size = zoo.load_model(name).input_shape[1:3]
    if None in size:
        raise ValueError(
            "A model of open size needs --image-size HEIGHT WIDTH. "
            f"Received: {name!r} with input size {size}"
        )
    return size


def _evaluate(options):
    from kanets import evaluation

    result = evaluation.evaluate(
        options.model,
        options.data,
        batch_size=options.batch_size,
        on_error=options.on_error,
    )
    print(
        f"accuracy {result['accuracy']:.4f} "
        f"({result['correct']} of {result['pictures']} pictures)"
    )


def _predict(options):
    from kanets import evaluation

    results = evaluation.predict(options.model, options.pictures, options.top_k)
    for path, ranked in results:
        line = "  ".join(f"{name} {score:.3f}" for name, score in ranked)
        print(f"{path}: {line}")


def _export(options):
    import kanets

    model = kanets.load_model(options.model)
    if kanets.export.is_generator(model):
        if options.image_size:
            raise ValueError(
                "A generator has one size. Received: "
                f"--image-size {' '.join(map(str, options.image_size))}"
            )
        path = kanets.export.export_generator(
            model, options.to, version=options.version
        )
        inputs = "z, label" if len(model.inputs) == 2 else "z"
        print(f"{path}: signature serving_default ({inputs} -> images, png)")
        return
    path = kanets.export_savedmodel(
        model,
        options.to,
        version=options.version,
        image_size=options.image_size,
    )
    print(f"{path}: signatures serving_default (image_bytes), serve_images")


def _list(options):
    from kanets import zoo

    entries = zoo.list_models(options.pattern)
    rows = [("name", "parameters", "size", "metric", "data")]
    for entry in entries:
        rows.append(
            (
                entry.name,
                f"{entry.parameters:,}",
                "x".join(map(str, entry.input_shape[:2])),
                f"{entry.value:.4f} {entry.metric}",
                entry.data,
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [c.ljust(w) for c, w in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())


def _demo(options):
    import kanets
    from kanets import data, evaluation, recipes

    to = Path(options.to)
    sample = data.unpack_sample(to / "data")
    print(f"1. Pictures: {sample} (900 to train, 200 to validate)")
    recipe = recipes.read(Path(__file__).parent / "sample" / "demo.toml")
    recipe = dataclasses.replace(
        recipe,
        epochs=recipe.epochs if options.epochs is None else options.epochs,
        data=dataclasses.replace(recipe.data, source=str(sample)),
    )
    print("2. Training with fit()")
    result = recipes.train(recipe, to / "run", verbose=2)
    print(
        f"   validation accuracy of the best epoch {result['val_accuracy']:.4f}"
    )
    print("3. Exporting for TensorFlow Serving")
    model = kanets.load_model(to / "run")
    bundle = kanets.export_savedmodel(model, to / "savedmodel")
    print(f"   {bundle}")
    print("4. Evaluating the model, and the SavedModel from JPEG bytes")
    for what in (to / "run", bundle):
        result = evaluation.evaluate(what, sample)
        print(f"   {what}: accuracy {result['accuracy']:.4f}")
    print("5. Asking the SavedModel about one JPEG, as bytes")
    picture = sorted((sample / "val" / "ship").iterdir())[0]
    [(_, ranked)] = evaluation.predict(bundle, [picture], top_k=3)
    answer = ", ".join(f"{name} {score:.3f}" for name, score in ranked)
    print(f"   {picture}: {answer}")


def _report(result, folder):
    if "generator_loss" in result:
        distance = result.get("frechet_distance")
        found = "" if distance is None else f"Frechet distance {distance:.2f}; "
        print(
            f"{folder}: {result['epochs']} epochs; {found}log.csv, samples/, "
            "generator/, discriminator/"
        )
        return
    if "val_accuracy" in result:
        accuracy = f"validation accuracy {result['val_accuracy']:.4f}"
    else:
        accuracy = f"training accuracy {result['accuracy']:.4f}"
    print(
        f"{folder}: epoch {result['epoch']} of {result['epochs']} kept, "
        f"{accuracy}; log.csv, best/"
    )


def _parser():
    parser = argparse.ArgumentParser(
        prog="kanets",
        description="Train, fine-tune, evaluate and export vision models "
        "built on efficient attention.",
        epilog="example: kanets demo",
    )
    parser.add_argument(
        "--debug", action="store_true", help="show the traceback of an error"
    )
    commands = parser.add_subparsers(required=True, metavar="command")

    def command(name, run, summary, example):
        sub = commands.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=f"example: kanets {example}",
        )
        sub.add_argument(
            "--debug",
            action="store_true",
            default=argparse.SUPPRESS,
            help="show the traceback of an error",
        )
        sub.set_defaults(run=run)
        return sub

    def on_error(sub):
        sub.add_argument(
            "--on-error",
            choices=("stop", "skip"),
            default="stop",
            help="at pictures that cannot be read (default: stop)",
        )

    sub = command(
        "train",
        _train,
        "Train a model by a recipe; again on the same folder, resume.",
        "train training/kanet_qkv_cifar10.toml --data cifar10 --to runs/kanet",
    )
    sub.add_argument("recipe", help="a TOML file, as in training/")
    sub.add_argument("--data", help="class folders or TFDS name")
    sub.add_argument("--to", required=True, help="the run's folder")
    for name in ("epochs", "batch-size", "seed"):
        sub.add_argument(f"--{name}", type=int, help="instead of the recipe's")

    sub = command(
        "finetune",
        _finetune,
        "Train a pretrained model further, on other classes.",
        "finetune kanet_qkv_cifar10 --data photos --to runs/mine",
    )
    sub.add_argument("model", help="zoo name, run or model folder")
    sub.add_argument("--data", required=True, help="class folders or TFDS name")
    sub.add_argument("--to", required=True, help="the run's folder")
    sub.add_argument("--epochs", type=int, default=10, help="default 10")
    sub.add_argument(
        "--frozen-epochs",
        type=int,
        default=2,
        help="first epochs that train the new head alone (default 2)",
    )
    sub.add_argument(
        "--layer-decay",
        type=float,
        default=0.9,
        help="learning-rate factor per layer below the head (default 0.9)",
    )
    sub.add_argument(
        "--learning-rate", type=float, default=1e-3, help="peak, default 0.001"
    )
    sub.add_argument("--batch-size", type=int, default=32, help="default 32")
    sub.add_argument("--seed", type=int, default=0, help="default 0")
    _image_size_option(sub)
    on_error(sub)

    sub = command(
        "evaluate",
        _evaluate,
        "Top-1 accuracy of a model, or of its SavedModel.",
        "evaluate runs/mine --data photos/val",
    )
    sub.add_argument("model", help="zoo name, run, model folder, SavedModel")
    sub.add_argument("--data", required=True, help="class folders or TFDS name")
    sub.add_argument("--batch-size", type=int, default=100, help="default 100")
    on_error(sub)

    sub = command(
        "predict",
        _predict,
        "Classes of picture files.",
        "predict savedmodels/mine bee.jpg",
    )
    sub.add_argument("model", help="zoo name, run, model folder, SavedModel")
    sub.add_argument("pictures", nargs="+", help="files, or folders of them")
    sub.add_argument("--top-k", type=int, default=3, help="default 3")

    sub = command(
        "export",
        _export,
        "Write a model in the form its consumer wants.",
        "export runs/mine --format savedmodel --to savedmodels/mine",
    )
    sub.add_argument("model", help="zoo name, run (a GAN's, too), model folder")
    sub.add_argument("--format", choices=FORMATS, default=FORMATS[0])
    sub.add_argument("--to", required=True, help="the folder of versions")
    sub.add_argument("--version", type=int, help="default: the next")
    _image_size_option(sub)

    gan_commands.add_commands(command)

    sub = command("list", _list, "The models of the zoo.", "list 'kanet_qkv*'")
    sub.add_argument("pattern", nargs="?", default="*")

    sub = command(
        "demo",
        _demo,
        "Train, evaluate and export on the embedded pictures.",
        "demo --to runs/demo",
    )
    sub.add_argument("--to", default="runs/demo", help="default runs/demo")
    sub.add_argument("--epochs", type=int, help="instead of the recipe's")
    return parser


def _image_size_option(sub):
    sub.add_argument(
        "--image-size",
        type=int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="default: the model's",
    )


if __name__ == "__main__":
    sys.exit(main())
