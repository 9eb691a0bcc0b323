"""A task of one class and one line in the table works everywhere."""

import dataclasses
import json

import keras
import pytest

import kanets
from kanets import cli, evaluation, export, recipes, tasks, zoo
from kanets.nets import registry
from tests.backends import needs_tensorflow
from tests.photos import write_photos
from tests.zoo.common import make_entry
from training import cards

WORDS = ["a", "bee", "here"]


@dataclasses.dataclass(frozen=True)
class CaptionRecipe:
    captioner: dict
    epochs: int = 1


class Captioning(tasks.Task):
    """Pictures (B, 4, 4, 3) to probabilities of words (B, 2, words)."""

    name = "captioning"
    model = "captioner"
    section = "captioner"
    recipe = CaptionRecipe
    figure = "word_accuracy"
    metric = "word accuracy"
    pipeline = "image-to-text"
    title = "Captioners"
    usage = 'model = kanets.create_model("{name}")\n'
    contract = "take images and return words"
    outputs = ("words",)

    def recognizes(self, inputs, outputs):
        return (inputs, outputs) == ([4], [3])

    def answers(self, inputs, outputs):
        return "words" in outputs

    def train(self, recipe, directory, verbose):
        return {"epoch": 1, "epochs": recipe.epochs, "word_accuracy": 0.5}

    def evaluate(self, model, source, *, on_error="stop", beams=1):
        return {"word_accuracy": 1 / beams, "pictures": len(source)}

    def iter_predict(self, model, paths, top_k, on_bad):
        for path in paths:
            yield path, [(" ".join(WORDS[:top_k]), 1.0)]

    def add_endpoints(self, archive, model, class_names, words=2):
        import tensorflow as tf

        images = tf.TensorSpec((None, 4, 4, 3), tf.float32, "images")
        archive.add_endpoint(
            "serving_default", lambda images: {"words": model(images)}, [images]
        )
        request = tf.make_tensor_proto(0.0, tf.float32, (1, 4, 4, 3))
        return class_names or [], [("serving_default", {"images": request})]

    def make_graph(self, model, class_names):
        raise NotImplementedError

    def summary(self, measured):
        return f"word accuracy {measured['word_accuracy']:.2f}"

    def details(self, measured):
        return {}

    def draw(self, folder, model, source, **options):
        return ()


@pytest.fixture
def task(monkeypatch):
    task = Captioning()
    monkeypatch.setitem(tasks.TASKS, task.name, task)
    net = registry.Net("Captioner", f"{__name__}:build", task.name, "ours")
    monkeypatch.setitem(registry.NETS, net.name, net)
    return task


def build(input_shape=(4, 4, 3), classes=3, length=2):
    x = inputs = keras.Input(input_shape)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(length * classes)(x)
    x = keras.layers.Reshape((length, classes))(x)
    return keras.Model(inputs, keras.layers.Softmax()(x))


def test_what_is_left_out_is_named():
    with pytest.raises(TypeError, match="abstract method.*draw"):
        type("Half", (tasks.Task,), {})()


def test_it_is_told_trained_and_asked(task, tmp_path, capsys):
    assert tasks.of_model(build()) is task
    assert tasks.of_export(["images"], ["words"]) is task
    recipe = recipes.from_dict({"captioner": {"length": 2}, "epochs": 3})
    assert type(recipe) is CaptionRecipe
    assert tasks.of_recipe(recipe) is task
    (tmp_path / "recipe.toml").write_text(recipes.to_toml(recipe))
    assert recipes.read(tmp_path / "recipe.toml") == recipe
    assert recipes.train(recipe, tmp_path / "run")["epochs"] == 3
    photos = write_photos(tmp_path / "photos", 1, 1, (4, 4), "png")
    folder = zoo.save_model(build(), tmp_path / "model", WORDS)
    found = evaluation.evaluate(folder, [photos] * 5, beams=2)
    assert found == {"word_accuracy": 0.5, "pictures": 5}
    with pytest.raises(ValueError, match="options of captioning are .*`beams`"):
        evaluation.evaluate(folder, [photos], ignore_label=2)
    [(_, said)] = evaluation.predict(folder, [photos], top_k=2)
    assert said == [("a bee", 1.0)]
    with pytest.raises(ValueError, match="`to` must be a table"):
        evaluation.predict(folder, [photos], to=tmp_path)
    assert cli.main(["evaluate", str(folder), "--data", str(photos)]) == 0
    assert capsys.readouterr().out == "word accuracy 1.00\n"


@needs_tensorflow
def test_it_is_exported_and_measured(task, tmp_path):
    model = build()
    kanets.export_savedmodel(model, tmp_path / "served")
    artifact = evaluation.artifacts.Artifact(tmp_path / "served")
    assert artifact.task is task
    with pytest.raises(ValueError, match="A captioner takes no `top_k`"):
        export.export_savedmodel(model, tmp_path / "other", top_k=2)


def test_it_is_in_the_zoo(task, tmp_path, monkeypatch):
    folder = tmp_path / "tiny"
    folder.mkdir()
    monkeypatch.setattr(zoo.entries, "models_directory", lambda: tmp_path)
    make_entry(folder, task="captioning", net="Captioner", arguments={})
    assert [e.name for e in kanets.list_models(task="captioning")] == ["tiny"]
    values = json.loads((folder / "entry.json").read_text())
    entry = zoo.Entry(**values)
    model = zoo.creating._build(entry, 4, (6, 6, 3), {"length": 5})
    assert model.output_shape == (None, 5, 4)
    monkeypatch.setitem(cards.DATA, "insects", "bees.")
    card = cards.card(entry)
    assert "pipeline_tag: image-to-text" in card
    assert "This is ours for pictures of 16x16" in card
    assert 'create_model("tiny")' in card
    page = cards.zoo_page([entry])
    assert "## Captioners" in page and "| word accuracy |" in page
