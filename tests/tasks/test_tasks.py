"""Each kind of model is told from the others, and answers for itself."""

import ast
import math
import pkgutil
from pathlib import Path

import keras
import pytest

import ylg
from kanets import export, layers, nets, recipes, tasks, zoo
from kanets.tasks.base import lazy
from tests.photos import write_photos, write_streets

TASKS = tasks.TASKS
every = pytest.mark.parametrize("name", TASKS)


def of_shapes(inputs, outputs):
    """A model that joins its inputs to outputs of some shapes."""
    given = [keras.Input(shape) for shape in inputs]
    flat = [keras.layers.Flatten()(x) for x in given]
    x = flat[0] if len(flat) == 1 else keras.layers.Concatenate()(flat)
    made = [
        keras.layers.Reshape(shape)(keras.layers.Dense(math.prod(shape))(x))
        for shape in outputs
    ]
    return keras.Model(given, made)


MODELS = {
    "classifier": ([(4, 4, 3)], [(2,)], "classification", True),
    "segmenter": ([(4, 4, 3)], [(4, 4, 2)], "segmentation", True),
    "generator": ([(5,)], [(4, 4, 3)], "generation", False),
    "generator of classes": ([(5,), ()], [(4, 4, 3)], "generation", False),
    # No task knows these: whoever runs one says what is wrong with it.
    "discriminator of classes": (
        [(4, 4, 3), ()],
        [(1,)],
        "classification",
        False,
    ),
    "of two answers": ([(4, 4, 3)], [(2,), (2,)], "classification", True),
}
UNSURE = ("discriminator of classes", "of two answers")


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_told_by_its_tensors(name):
    inputs, outputs, task, takes_pictures = MODELS[name]
    model = of_shapes(inputs, outputs)
    assert tasks.of_model(model) is TASKS[task]
    assert export.is_generator(model) == (task == "generation")
    assert export.is_segmenter(model) == (task == "segmentation")
    assert tasks.takes_pictures(model) == takes_pictures
    assert zoo.saving.takes_pictures is tasks.takes_pictures
    ranks = [[1 + len(shape) for shape in part] for part in (inputs, outputs)]
    sure = [t.name for t in TASKS.values() if t.recognizes(*ranks)]
    assert sure == ([] if name in UNSURE else [task])


def test_a_model_that_does_not_tell_counts_as_a_classifier():
    class Silent(keras.Model):
        pass

    assert tasks.of_model(Silent()) is TASKS["classification"]
    assert not export.is_segmenter(Silent())


@pytest.mark.parametrize(
    ("inputs", "outputs", "task"),
    [
        (["image_bytes"], ["classes", "probabilities"], "classification"),
        (["images"], ["probabilities"], "classification"),
        (["image_bytes"], ["label_map", "png"], "segmentation"),
        (["images"], ["label_map", "probabilities"], "segmentation"),
        (["z"], ["images", "png"], "generation"),
        (["z", "label"], ["images"], "generation"),
        (["x"], ["probabilities"], None),
        (["images", "x"], ["probabilities"], None),
        (["z"], ["probabilities"], None),
        (["images"], ["output_0"], None),
    ],
)
def test_an_export_is_told_by_its_names(inputs, outputs, task):
    found = tasks.of_export(inputs, outputs)
    assert found is (None if task is None else TASKS[task])
    sure = [t for t in TASKS.values() if t.answers({*inputs}, {*outputs})]
    assert sure == [found] * (found is not None)


@pytest.mark.parametrize(
    ("fields", "task", "kind"),
    [
        ({"model": {"name": "KANet"}}, "classification", recipes.Recipe),
        (
            {"segmenter": {"name": "KANetSegmenter"}},
            "segmentation",
            recipes.SegmentationRecipe,
        ),
        ({"gan": {}}, "generation", recipes.GANRecipe),
    ],
)
def test_a_recipe_is_told_by_its_section(fields, task, kind):
    assert tasks.of_recipe(fields) is TASKS[task]
    recipe = recipes.from_dict(fields)
    assert type(recipe) is kind is TASKS[task].recipe
    assert tasks.of_recipe(recipe) is TASKS[task]


@every
def test_all_of_a_task_is_there(name):
    task = TASKS[name]
    assert task.name == name and isinstance(task, tasks.Task)
    for text in ("model", "section", "figure", "column", "metric", "contract"):
        assert getattr(task, text)
    for text in ("pipeline", "title"):
        assert getattr(task, text)
    assert "{name}" in task.usage
    if task.sized_by is not None:
        assert task.sized_by in task.outputs
    for place in vars(type(task)).values():
        if isinstance(place, lazy):
            assert callable(place.__get__(task, type(task)))
    for function in ("train", "evaluate", "add_endpoints", "make_graph"):
        assert callable(getattr(task, function))
    assert callable(task.recipe)
    assert hasattr(task, "iter_predict") == task.takes_pictures


def test_tasks_import_nothing_of_ours_before_they_are_asked():
    folder = Path(tasks.__file__).parent
    for path in folder.glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module]
            else:
                continue
            for name in names:
                assert name.partition(".")[0] in ("abc", "pkgutil") or (
                    name.startswith("kanets.tasks.")
                )


MEASURED = {
    "classification": (
        {"accuracy": 0.75, "correct": 1500, "pictures": 2000},
        "accuracy 0.7500 (1500 of 2000 pictures)",
        {"correct": "1,500 of 2,000"},
    ),
    "segmentation": (
        {
            "mean_iou": 0.5,
            "pixel_accuracy": 0.625,
            "iou": {"sky": 0.25, "road": 0.75},
            "pictures": 7,
        },
        "  sky: 0.2500\n  road: 0.7500\n"
        "mean IoU 0.5000, pixel accuracy 0.6250 (7 pictures)",
        {
            "pixel accuracy": "0.6250",
            "IoU, sky": "0.2500",
            "IoU, road": "0.7500",
        },
    ),
    "generation": (
        {
            "frechet_distance": 7.578,
            "kernel_distance": 0.01234567,
            "precision": 0.5,
            "recall": 0.25,
            "extractor": "a net",
            "pictures": 50,
        },
        "Frechet distance 7.58, kernel distance 0.01235, precision 0.500, "
        "recall 0.250 (50 pictures, a net)",
        {
            "kernel distance": "0.01235",
            "precision": "0.500",
            "recall": "0.250",
        },
    ),
}


@every
def test_what_was_measured_is_said(name):
    measured, summary, details = MEASURED[name]
    task = TASKS[name]
    assert tasks.of_result(measured) is task
    assert task.summary(measured) == summary
    assert task.details(measured) == details


def test_top_5_accuracy_is_said_where_it_is_measured():
    measured, summary, details = MEASURED["classification"]
    measured = {**measured, "top_5_accuracy": 0.96874}
    task = TASKS["classification"]
    assert task.summary(measured) == f"{summary}, top-5 accuracy 0.9687"
    expected = {**details, "top-5 accuracy": "0.9687"}
    assert task.details(measured) == expected


@pytest.mark.parametrize(
    ("name", "result", "summary"),
    [
        (
            "classification",
            {"epoch": 2, "epochs": 3, "accuracy": 0.5, "val_accuracy": 0.25},
            "epoch 2 of 3 kept, validation accuracy 0.2500; log.csv, best/",
        ),
        (
            "segmentation",
            {"epoch": 3, "epochs": 3, "mean_iou": 0.5},
            "epoch 3 of 3 kept, training mean iou 0.5000; log.csv, best/",
        ),
        (
            "generation",
            {"epochs": 4, "generator_loss": 1.0},
            "4 epochs; log.csv, samples/, generator/, discriminator/",
        ),
        (
            "generation",
            {"epochs": 4, "generator_loss": 1.0, "frechet_distance": 8.123},
            "4 epochs; Frechet distance 8.12; log.csv, samples/, generator/, "
            "discriminator/",
        ),
    ],
)
def test_what_a_run_did_is_said(name, result, summary):
    assert TASKS[name].run_summary(result) == summary


NAMES = ("blue", "red")


def with_attention(head):
    x = inputs = keras.Input((8, 12, 3))
    x = layers.KroneckerAttention(name="attention")(x)
    model = keras.Model(inputs, head(x))
    model.class_names = NAMES
    return model


def test_a_classifier_in_an_entry(tmp_path):
    photos = write_photos(tmp_path / "photos", 1, 2, (8, 12), "png")

    def head(x):
        x = keras.layers.GlobalAveragePooling2D()(x)
        return keras.layers.Dense(2, activation="softmax")(x)

    model = with_attention(head)
    task = tasks.of_model(model)
    drawn = task.draw(tmp_path, model, photos / "val")
    assert drawn == ("attention.png",)
    assert all((tmp_path / name).is_file() for name in drawn)
    given = {"name": "KANet", "alpha": 0.5}
    assert task.entry_fields(given, model) == {
        "net": "KANet",
        "arguments": {"alpha": 0.5},
        "input_shape": (8, 12, 3),
        "num_classes": 2,
    }


def test_a_segmenter_in_an_entry(tmp_path):
    streets = write_streets(tmp_path / "streets", 1, 4, (8, 12))
    model = with_attention(keras.layers.Conv2D(2, 1, activation="softmax"))
    task = tasks.of_model(model)
    drawn = task.draw(tmp_path, model, streets / "val", ignore_label=7)
    assert drawn == ("overlays.png", "attention.png")
    assert all((tmp_path / name).is_file() for name in drawn)
    given = {
        "name": "KANetSegmenter",
        "backbone": "kanet_qkv_cifar10",
        "attention": None,
    }
    fields = {
        "net": "KANetSegmenter",
        "arguments": {"attention": None},
        "num_classes": 2,
    }
    assert task.entry_fields(given, model) == {
        **fields,
        "input_shape": (8, 12, 3),
    }
    x = keras.Input((None, None, 3))
    model = keras.Model(x, keras.layers.Conv2D(2, 1)(x))
    model.class_names = NAMES
    assert task.entry_fields(given, model, (360, 480)) == {
        **fields,
        "input_shape": (360, 480, 3),
    }
    assert given["backbone"] and given["name"]  # they stay as they were
    # What a body is, not only where its weights came from.
    light = nets.EfficientNetLite((32, 32, 3), include_top=False)
    model = nets.KANetSegmenter(None, 0.25, 2, backbone=light)
    model.class_names = NAMES
    kept = task.entry_fields(given, model, (32, 32))["arguments"]
    assert kept == {"attention": None, "backbone": given["backbone"]}


def test_a_generator_in_an_entry(tmp_path):
    model = of_shapes([(5,)], [(4, 4, 3)])
    task = tasks.of_model(model)
    assert task.draw(tmp_path, model, None) == ("samples.png",)
    width, height = keras.utils.load_img(tmp_path / "samples.png").size
    assert width == 10 * 96 + 6 and height == 6 * 96 + 6  # six rows of ten
    named = ylg.gan.generator(32, 2, 2, latent_size=8, num_heads=2)
    named.class_names = NAMES
    task.draw(tmp_path, named, None)
    width, height = keras.utils.load_img(tmp_path / "samples.png").size
    panel = 960 // len(NAMES)  # a column a class, below its name
    assert width == 960 + 6 and height == 6 * panel + 18 + 6
    given = {"width": 2, "conditional": False}
    assert task.entry_fields(given, model) == {
        "net": "SAGAN",
        "arguments": {"width": 2, "image_size": 4},
        "input_shape": (4, 4, 3),
        "num_classes": None,
    }


@pytest.mark.parametrize(
    "name",
    [
        "evaluation:evaluate",
        "evaluation:iter_predict",
        "evaluation:predict",
        "export.generator:is_generator",
        "export.segmenter:is_segmenter",
        "export:is_generator",
        "export:is_segmenter",
        "nets:CLASSIFIERS",
        "recipes.classifier:train_classifier",
        "recipes.gan:train_gan",
        "recipes.segmenter:train_segmenter",
        "recipes:NETS",
        "zoo.saving:takes_pictures",
        "zoo:ARCHITECTURES",
        "zoo:TASKS",
    ],
)
def test_former_names_stay(name):
    assert pkgutil.resolve_name(f"kanets.{name}")
