"""The `kanets` command: a thin face on the functions of the package."""

import argparse
import dataclasses
import re
import sys
import traceback
from pathlib import Path

from kanets import gan_commands
from kanets.files import read_text

# What `export` writes, and the options that fit.
FORMATS = {
    "savedmodel": ("precision", "version"),
    "litert": ("batch_size", "precision", "representative"),
    "onnx": (),
    "openvino": ("precision",),
}
ANY_FORMAT = ("from_logits", "image_size", "labels")
EXPORT_OPTIONS = sorted({*ANY_FORMAT, *sum(FORMATS.values(), ())})
POSITIONAL = (
    *("artifact", "directory", "model", "pattern", "picture", "pictures"),
    *("recipe", "run", "debug"),
)
MODEL_OR_EXPORT = "zoo name, run, model folder, or what export wrote"
DATA = "class folders, TFDS name; of a segmenter images/ and labels/"


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
        trains = options.run in (_train, _finetune)
        hint = " Training continues with the same command." if trains else ""
        print(f"kanets: stopped.{hint}", file=sys.stderr)
        return 130
    except Exception as error:
        if options.debug:
            traceback.print_exc()
        else:
            message = _one_line(error) or type(error).__name__
            message = _with_flags(message, options)
            print(f"kanets: error: {message}", file=sys.stderr)
        return 1
    return 0


def _one_line(text):
    return " ".join(str(text).split())


def _with_flags(message, options):
    """A message with the command's flags for the arguments of Python.

    "`top_k` must ... Received: top_k=0" names `--top-k`, and "--top-k 0".
    What `train` is not given is a field of the recipe, and stays one.
    """
    flags = {
        name: "--" + name.replace("_", "-")
        for name, value in vars(options).items()
        if name not in POSITIONAL
        and (value is not None or options.run is not _train)
    }
    if "data" in flags:  # in Python, what `load` and `verify` call it
        flags.update(source="--data", pictures="--data")
    for name, flag in flags.items():
        given = rf"(?<![^\s(`]){name}="  # not in a path, as runs/seed=1
        message = message.replace(f"`{name}`", f"`{flag}`")
        message = re.sub(rf"{given}None\b", f"no {flag}", message)
        message = re.sub(rf"{given}'(\S+?)'", rf"{flag} \1", message)
        message = re.sub(rf"{given}(?=\S)", f"{flag} ", message)
    return message


def _train(options):
    from kanets import recipes

    recipe = recipes.read(options.recipe)
    changes = {
        name: getattr(options, name)
        for name in ("epochs", "batch_size", "seed", "jit_compile")
        if getattr(options, name) is not None
    }
    if options.data is not None:
        changes["data"] = dataclasses.replace(recipe.data, source=options.data)
    recipe = dataclasses.replace(recipe, **changes)
    _report(recipes.train(recipe, options.to), options.to)


def _finetune(options):
    from kanets import export, recipes, zoo
    from kanets.evaluation.files import check_takes_pictures

    model = zoo.load_model(options.model)
    check_takes_pictures(model, options.model)
    segments = export.is_segmenter(model)
    fields = {
        "epochs": options.epochs,
        "batch_size": 8 if segments else 32,
        "seed": options.seed,
        "data": {"source": options.data, "on_error": options.on_error},
        "optimize": {
            "name": "adamw",
            "learning_rate": options.learning_rate,
            "weight_decay": 0.05,
        },
        "finetune": {
            "frozen_epochs": min(options.frozen_epochs, options.epochs),
            # A segmenter's branches lie side by side, not one below another.
            "layer_decay": 1.0 if segments else 0.9,
        },
    }
    for name in ("batch_size", "precision", "jit_compile"):
        if getattr(options, name) is not None:
            fields[name] = getattr(options, name)
    for name in ("layer_decay", "new_head"):
        if getattr(options, name) is not None:
            fields["finetune"][name] = getattr(options, name)
    if segments:
        fields["segmenter"] = {"name": options.model}
        fields["data"]["ignore_label"] = options.ignore_label
        fields["data"]["image_size"] = options.image_size
    elif options.ignore_label is not None:
        raise ValueError(
            "--ignore-label is for a segmenter. Received: "
            f"{options.ignore_label} for {options.model!r}, a classifier"
        )
    else:
        size = tuple(options.image_size or _model_size(options.model, model))
        fields["model"] = {"name": options.model}
        fields["data"]["image_size"] = size
        fields["augment"] = {"crop": min(size) // 10}
        fields["optimize"]["label_smoothing"] = 0.1
    recipe = recipes.from_dict(fields)
    _report(recipes.train(recipe, options.to), options.to)


def _model_size(name, model):
    size = model.input_shape[1:3]
    if None in size:
        raise ValueError(
            "A model of open size needs --image-size HEIGHT WIDTH. "
            f"Received: {name!r} with input size {size}"
        )
    return size


def _evaluate(options):
    from kanets import evaluation

    given = {
        name: getattr(options, name)
        for name in ("batch_size", "ignore_label", "extractor")
        if getattr(options, name) is not None
    }
    result = evaluation.evaluate(
        options.model, options.data, on_error=options.on_error, **given
    )
    if "accuracy" in result:
        print(
            f"accuracy {result['accuracy']:.4f} "
            f"({result['correct']} of {result['pictures']} pictures)"
        )
    elif "mean_iou" in result:
        for name, value in result["iou"].items():
            print(f"  {name}: {value:.4f}")
        print(
            f"mean IoU {result['mean_iou']:.4f}, "
            f"pixel accuracy {result['pixel_accuracy']:.4f} "
            f"({result['pictures']} pictures)"
        )
    else:
        print(
            f"Frechet distance {result['frechet_distance']:.2f}, "
            f"kernel distance {result['kernel_distance']:.5f}, "
            f"precision {result['precision']:.3f}, "
            f"recall {result['recall']:.3f} "
            f"({result['pictures']} pictures, {result['extractor']})"
        )


def _predict(options):
    from kanets import evaluation

    left_out = []

    def skip(path, reason):
        left_out.append(path)
        print(f"kanets: {path}: {_one_line(reason)}", file=sys.stderr)

    results = evaluation.iter_predict(
        options.model,
        options.pictures,
        top_k=options.top_k,
        to=options.to,
        on_bad=skip if options.on_error == "skip" else None,
    )
    count = 0
    for path, ranked in results:
        line = "  ".join(f"{name} {figure:.3f}" for name, figure in ranked)
        print(f"{path}: {line}", flush=True)
        count += 1
    if left_out:
        total = count + len(left_out)
        print(
            f"kanets: {len(left_out)} of {total} pictures left out",
            file=sys.stderr,
        )


def _export(options):
    import kanets
    from kanets import export
    from kanets.evaluation import files

    given = {}
    for name in EXPORT_OPTIONS:
        value = getattr(options, name)
        if value is None:
            continue
        if name not in (*ANY_FORMAT, *FORMATS[options.format]):
            raise ValueError(
                f"--{name.replace('_', '-')} does not fit --format "
                f"{options.format}. Received: {value}"
            )
        given[name] = value
    if "batch_size" in given:
        given["batch_size"] = _open(given["batch_size"])
    if "image_size" in given:
        given["image_size"] = [_open(side) for side in given["image_size"]]
    model = kanets.load_model(options.model)
    if "representative" in given:
        given["representative"] = files.representative(
            model, given["representative"], given.get("image_size")
        )
    if "labels" in given:
        given["class_names"] = read_text(given.pop("labels")).splitlines()
    write = getattr(export, f"export_{options.format}")
    print(write(model, options.to, **given))


def _open(size):
    return None if size == "any" else size


def _verify(options):
    from kanets.evaluation.verify import verify

    report = verify(
        options.artifact,
        options.model,
        options.data,
        count=options.count,
        threads=options.threads,
        image_size=options.image_size,
    )
    difference = report["greatest_difference"]
    print(
        f"{report['artifact']} ({report['runtime']}): "
        f"{report['inputs']} inputs, agreement {report['agreement']:.4f}, "
        + ("" if difference is None else f"difference {difference:.2g}, ")
        + f"{report['bytes'] / 1e6:.2f} MB, "
        f"{report['latency_ms']:.2f} ms ({report['threads']} threads)"
    )
    if report["agreement"] < options.min_agreement:
        raise ValueError(
            f"The artifact must agree with the model on at least "
            f"{options.min_agreement} of the inputs (--min-agreement). "
            f"Received: {report['agreement']:.4f}"
        )


def _models_config(options):
    from kanets.export import write_models_config

    print(write_models_config(options.directory, options.base_path))


def _list(options):
    from kanets import zoo

    print(zoo.list_models(options.pattern, task=options.task))


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
    name = "mean_iou" if "mean_iou" in result else "accuracy"
    part = "validation" if f"val_{name}" in result else "training"
    figure = result.get(f"val_{name}", result[name])
    print(
        f"{folder}: epoch {result['epoch']} of {result['epochs']} kept, "
        f"{part} {name.replace('_', ' ')} {figure:.4f}; log.csv, best/"
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

    def ignore_label(sub):
        sub.add_argument(
            "--ignore-label",
            type=int,
            help="of a segmenter: the label of pixels that do not count",
        )

    def jit_compile(sub, default):
        sub.add_argument(
            "--jit-compile",
            action=argparse.BooleanOptionalAction,
            help="whether XLA compiles the training step: long to the first "
            f"step, faster from then on a GPU; default: {default}",
        )

    sub = command(
        "train",
        _train,
        "Train a model by a recipe; again on the same folder, resume.",
        "train training/kanet_qkv_cifar10.toml --data cifar10 --to runs/kanet",
    )
    sub.add_argument("recipe", help="a TOML file, as in training/")
    sub.add_argument("--data", help=DATA)
    sub.add_argument("--to", required=True, help="the run's folder")
    for name in ("epochs", "batch-size", "seed"):
        sub.add_argument(f"--{name}", type=int, help="instead of the recipe's")
    jit_compile(sub, "as the recipe says")

    sub = command(
        "finetune",
        _finetune,
        "Train a pretrained model further, on pictures of your own.",
        "finetune kanet_qkv_cifar10 --data photos --to runs/mine",
    )
    sub.add_argument("model", help="zoo name, run or model folder")
    sub.add_argument("--data", required=True, help=DATA)
    sub.add_argument("--to", required=True, help="the run's folder")
    sub.add_argument("--epochs", type=int, default=10, help="default 10")
    sub.add_argument(
        "--frozen-epochs",
        type=int,
        default=2,
        help="first epochs that train the head alone (default 2)",
    )
    sub.add_argument(
        "--new-head",
        action=argparse.BooleanOptionalAction,
        help="whether the last layer starts anew; default: unless the classes "
        "are, by name, the model's",
    )
    sub.add_argument(
        "--layer-decay",
        type=float,
        help="learning-rate factor per layer below the head (default 0.9, "
        "of a segmenter 1)",
    )
    sub.add_argument(
        "--learning-rate", type=float, default=1e-3, help="peak, default 0.001"
    )
    sub.add_argument(
        "--batch-size", type=int, help="default 32, of a segmenter 8"
    )
    sub.add_argument("--seed", type=int, default=0, help="default 0")
    sub.add_argument(
        "--precision",
        help="float32 (default: the model's), mixed_bfloat16, mixed_float16",
    )
    jit_compile(sub, "as Keras does, not on a CPU under TensorFlow")
    _image_size_option(sub)
    ignore_label(sub)
    on_error(sub)

    sub = command(
        "evaluate",
        _evaluate,
        "Measure a model or its export: accuracy of a classifier, mean "
        "IoU of a segmenter, Frechet distance of a generator.",
        "evaluate runs/mine --data photos/val",
    )
    sub.add_argument("model", help=MODEL_OR_EXPORT)
    sub.add_argument("--data", required=True, help=DATA)
    sub.add_argument("--batch-size", type=int, help="pictures per step")
    ignore_label(sub)
    sub.add_argument(
        "--extractor",
        help="of a generator: the classifier whose features are compared, or "
        "inception_v3 (default kanet_qkv_cifar10)",
    )
    on_error(sub)

    sub = command(
        "predict",
        _predict,
        "Classes of picture files, or label maps where the model segments.",
        "predict savedmodels/mine bee.jpg",
    )
    sub.add_argument("model", help=MODEL_OR_EXPORT)
    sub.add_argument("pictures", nargs="+", help="files, or folders of them")
    sub.add_argument("--top-k", type=int, default=3, help="default 3")
    sub.add_argument(
        "--to", help="of a segmenter: folder for label maps and overlays"
    )
    on_error(sub)

    sub = command(
        "export",
        _export,
        "Write a model in the form its consumer wants.",
        "export runs/mine --format savedmodel --to savedmodels/mine",
    )
    sub.add_argument("model", help="zoo name, run (a GAN's, too), model folder")
    sub.add_argument("--format", choices=list(FORMATS), default="savedmodel")
    sub.add_argument(
        "--to",
        required=True,
        help="the folder of versions; of the other formats, the folder",
    )
    sub.add_argument(
        "--version", type=int, help="of a SavedModel; default: the next"
    )
    sub.add_argument(
        "--precision",
        help="of a SavedModel: float32, float16, bfloat16; of LiteRT: "
        "float32, float16, int8; of OpenVINO: float32, float16",
    )
    sub.add_argument(
        "--representative",
        help="for int8: a folder of pictures, of which 200 are taken",
    )
    sub.add_argument(
        "--batch-size",
        type=_size,
        help="of LiteRT: a number (default 1), or any",
    )
    _image_size_option(
        sub, _size, "; any any leaves it open, not in a SavedModel"
    )
    sub.add_argument(
        "--labels",
        help="a file of class names, one a line; default: the model's",
    )
    sub.add_argument(
        "--from-logits",
        action=argparse.BooleanOptionalAction,
        help="whether the outputs need a softmax; default: as the last "
        "activation says",
    )

    sub = command(
        "verify",
        _verify,
        "Compare an export, in its own runtime, with the model.",
        "verify runs/mine.litert --model runs/mine --data photos/val",
    )
    sub.add_argument("artifact", help="SavedModel, or folder that export wrote")
    sub.add_argument(
        "--model", required=True, help="zoo name, run, model folder"
    )
    sub.add_argument("--data", help="folder of pictures; not of a generator")
    sub.add_argument(
        "--count", type=int, default=200, help="pictures, default 200"
    )
    _image_size_option(sub)
    sub.add_argument("--threads", type=int, default=1, help="default 1")
    sub.add_argument(
        "--min-agreement",
        type=float,
        default=0.95,
        help="fail below this share of equal answers (default 0.95)",
    )

    sub = command(
        "models-config",
        _models_config,
        "Write models.config, for a TensorFlow Serving of several models.",
        "models-config savedmodels",
    )
    sub.add_argument("directory", help="holds a folder of versions per model")
    sub.add_argument(
        "--base-path",
        default="/models",
        help="where the server sees the directory (default /models)",
    )

    gan_commands.add_commands(command)

    sub = command("list", _list, "The models of the zoo.", "list 'kanet_qkv*'")
    sub.add_argument("pattern", nargs="?", default="*")
    sub.add_argument(
        "--task", help="classification, segmentation or generation"
    )

    sub = command(
        "demo",
        _demo,
        "Train, evaluate and export on the embedded pictures.",
        "demo --to runs/demo",
    )
    sub.add_argument("--to", default="runs/demo", help="default runs/demo")
    sub.add_argument("--epochs", type=int, help="instead of the recipe's")
    return parser


def _size(text):
    return text if text == "any" else int(text)


def _image_size_option(sub, kind=int, more=""):
    sub.add_argument(
        "--image-size",
        type=kind,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help=f"default: the model's{more}",
    )


if __name__ == "__main__":
    sys.exit(main())
