"""Entries and architectures, and every model that the zoo has."""

import dataclasses
import functools
import json
from pathlib import Path

import keras
import numpy as np
import pytest

import kanets
from kanets import zoo
from kanets.nets.multiply_adds import multiply_adds
from kanets.nets.registry import NETS
from tests.backends import counts_once, needs_tensorflow, to_numpy
from tests.zoo.common import make_entry

QUICKEST = {"kanet_qkv_cifar10", "kanet_qkv"}  # stand for the others


def quickest(things, name=str):
    """Parameters of a test: all but the quickest ones are thorough."""
    return [
        pytest.param(
            thing,
            id=name(thing),
            marks=() if name(thing) in QUICKEST else pytest.mark.thorough,
        )
        for thing in things
    ]


NAMES = quickest([entry.name for entry in zoo.list_models()])
WHOLE = [entry.name for entry in zoo.list_models() if not entry.weights_of]


def test_an_entry_reads_what_it_wrote(tmp_path):
    written = make_entry(
        tmp_path, pictures=("curve.png",), metrics={"loss": 0.25}, notes="Ö"
    )
    path = tmp_path / "entry.json"
    assert zoo.Entry.from_json(path) == written
    values = json.loads(path.read_text(encoding="utf-8"))
    assert list(values) == [f.name for f in dataclasses.fields(zoo.Entry)]
    for name in ("metrics", "pictures", "notes", "weights_of"):
        del values[name]
    path.write_text(json.dumps(values))
    read = zoo.Entry.from_json(path)
    assert (read.metrics, read.pictures) == ({}, ())
    assert (read.notes, read.weights_of) == ("", "")


def test_an_entry_tells_what_it_was_measured_on(tmp_path):
    command = "kanets evaluate it --data camvid/val --ignore-label 11"
    entry = make_entry(tmp_path, evaluate_command=command)
    assert entry.measured_on == ("camvid/val", {"ignore_label": 11})


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"flops": 1}, r"entry.json' with unknown fields \['flops'\]"),
        ({"seed": None}, r"entry.json' .* without \['seed'\]"),
        (
            {"flops": 1, "versions": {"kanets": "99.1"}},
            "made by kanets 99.1, newer than the installed .*'flops'",
        ),
        ({"task": "pose"}, "task must be one of .*entry.json' .*task='pose'"),
        ({"seeds": 1}, r"\(nearest: seed\). Received: .* fields \['seeds'\]"),
        (
            {"parameters": "many"},
            "parameters must be a valid integer. Received: .*entry.json' with "
            "parameters='many'",
        ),
        (
            {"input_shape": [16, 16]},
            r"input_shape must be \(height, width, channels\). .*=\[16, 16\]",
        ),
        (
            {"versions": {"kanets": 99}},
            "versions.kanets must be a valid string. It was made by kanets 99, "
            "newer .*entry.json' with kanets=99",
        ),
        ({"versions": "new", "flops": 1}, r"unknown fields \['flops'\]"),
    ],
    ids=str,
)
def test_fields_of_another_version_are_named(tmp_path, change, text):
    make_entry(tmp_path)
    path = tmp_path / "entry.json"
    values = {**json.loads(path.read_text()), **change}
    path.write_text(
        json.dumps({k: v for k, v in values.items() if v is not None})
    )
    with pytest.raises(ValueError, match=text):
        zoo.Entry.from_json(path)


def test_an_entry_made_in_python_is_checked(tmp_path):
    with pytest.raises(ValueError, match="name must be given. Rec.*name=None"):
        zoo.Entry(task="classification")
    entry = make_entry(tmp_path)
    with pytest.raises(ValueError, match="task must be one of .*task='pose'"):
        dataclasses.replace(entry, task="pose")


def test_an_entry_cut_short_is_named(tmp_path):
    path = tmp_path / "entry.json"
    path.write_text('{"name": ')
    with pytest.raises(ValueError, match="must be JSON. .*entry.json'"):
        zoo.Entry.from_json(path)
    path.write_text("[]")
    with pytest.raises(ValueError, match="a JSON object. .*entry.json'"):
        zoo.Entry.from_json(path)


def test_models_are_listed_by_name_and_task(directory):
    for name, task in (
        ("b_net", "classification"),
        ("a_net", "segmentation"),
        ("c_gan", "generation"),
    ):
        (directory / name).mkdir()
        make_entry(directory / name, task=task)

    def names(*arguments, **options):
        return [m.name for m in kanets.list_models(*arguments, **options)]

    assert names() == ["a_net", "b_net", "c_gan"]
    assert names("*_net") == ["a_net", "b_net"]
    assert names(task="generation") == ["c_gan"]
    assert names("b*", task="generation") == []
    assert names(pretrained=False, task="segmentation") == [
        "a_net",
        "kanet_segmenter_qkv",
    ]
    header, first, *_ = repr(kanets.list_models(pretrained=False)).split("\n")
    assert header.split() == [
        "name",
        "figure",
        "parameters",
        "multiply-adds",
        "size",
        "data",
    ]
    assert first.startswith("a_net") and " 0.5000 top-1 accuracy " in first
    with pytest.raises(ValueError, match="'generation'.*task='pose'"):
        kanets.list_models(task="pose")


@counts_once
@pytest.mark.parametrize(
    "architecture", quickest(zoo.ARCHITECTURES, lambda a: a.name)
)
def test_architectures_are_built(architecture, directory):
    is_kanet = architecture.net.startswith("KANet")
    model = kanets.create_model(
        architecture.name,
        pretrained=False,
        num_classes=4,
        input_shape=(32, 48, 3),
        **({"alpha": 0.1} if is_kanet else {}),
    )
    assert model.input_shape == (None, 32, 48, 3)
    assert model.output_shape[-1] == 4
    assert (len(model.output_shape) == 4) == (
        architecture.task == "segmentation"
    )
    if is_kanet:
        attention = model.get_layer("stage4_block1").get_config()["attention"]
        assert attention == f"kao_{architecture.name.split('_')[-1]}"
    with pytest.raises(ValueError, match="no pretrained .*pretrained=False"):
        kanets.create_model(architecture.name)


@pytest.mark.thorough
@counts_once
def test_an_architecture_is_as_large_as_it_says():
    model = kanets.create_model("kanet_kv", pretrained=False)
    assert model.input_shape == (None, 224, 224, 3)
    assert model.output_shape == (None, 1000)


@functools.cache
def created(name):
    """The entry's model, for all tests of it; not to be changed."""
    return kanets.create_model(name)


def inputs_of(model):
    """Random pictures, or latents and labels."""
    random = np.random.default_rng(0)
    arrays = []
    for tensor in model.inputs:
        shape = (
            2,
            *(32 if size is None else size for size in tensor.shape[1:]),
        )
        if "int" in keras.backend.standardize_dtype(tensor.dtype):
            arrays.append(np.zeros(shape, "int32"))
        else:
            arrays.append(random.normal(size=shape).astype("float32"))
    return arrays[0] if len(arrays) == 1 else arrays


@pytest.mark.parametrize("name", NAMES)
def test_every_entry_is_whole(name):
    [entry] = kanets.list_models(name)
    folder = zoo.models_directory() / name
    model = created(name)
    assert entry.name == folder.name
    assert entry.net in NETS
    assert model.count_params() == entry.parameters
    if entry.task == "generation":
        assert model.output_shape[1:] == entry.input_shape
    else:
        for size, trained in zip(
            model.input_shape[1:], entry.input_shape, strict=True
        ):
            assert size in (None, trained)
        assert model.output_shape[-1] == entry.num_classes
    if entry.num_classes is not None:
        assert len(model.class_names) == entry.num_classes
    if entry.weights_of:
        return check_borrowed_weights(entry, model)
    for part in {Path(file).parent for file in entry.files}:
        loaded = kanets.load_model(folder / part) if part.name else model
        # As somebody reads it who has Keras, and has imported kanets.
        plain = keras.saving.load_model(folder / part)
        inputs = inputs_of(plain)
        np.testing.assert_allclose(
            to_numpy(plain(inputs, training=False)),
            to_numpy(loaded(inputs, training=False)),
            atol=1e-6,
        )
    present = {
        path.relative_to(folder).as_posix(): path
        for name in ("config.json", "labels.txt", "model.weights.h5")
        for path in folder.rglob(name)
    }
    assert set(entry.files) == set(present)
    assert entry.weights_bytes == sum(
        path.stat().st_size for path in present.values() if path.suffix == ".h5"
    )


def check_borrowed_weights(entry, model):
    """Those of the other entry, and it answers the same."""
    [owner] = kanets.list_models(entry.weights_of)
    folder = zoo.models_directory() / entry.name
    assert set(entry.files) == {"config.json", "labels.txt"}
    assert not (folder / "model.weights.h5").exists()
    assert entry.weights_bytes == owner.weights_bytes
    assert (entry.value, entry.metrics) == (owner.value, owner.metrics)
    assert entry.parameters > owner.parameters
    body = kanets.create_model(owner.name)
    inputs = inputs_of(body)
    np.testing.assert_array_equal(
        to_numpy(model(inputs, training=False)),
        to_numpy(body(inputs, training=False)),
    )


@pytest.mark.thorough
@pytest.mark.parametrize("name", NAMES)
def test_every_entry_is_built_by_its_arguments(name):
    """The trained weights fit what the builder of today makes of them."""
    [entry] = kanets.list_models(name)
    override = "seed" if entry.net == "SAGAN" else "dropout_rate"
    trained = created(name)
    rebuilt = kanets.create_model(name, **{override: 0})
    inputs = inputs_of(trained)
    np.testing.assert_allclose(
        to_numpy(rebuilt(inputs, training=False)),
        to_numpy(trained(inputs, training=False)),
        atol=1e-5,
    )


@pytest.mark.thorough
@needs_tensorflow
@pytest.mark.parametrize("name", NAMES)
def test_every_entry_states_its_multiply_adds(name):
    [entry] = kanets.list_models(name)
    shape = None if entry.task == "generation" else entry.input_shape
    assert multiply_adds(created(name), shape) == entry.multiply_adds


@pytest.mark.parametrize("name", WHOLE)
def test_every_entry_is_a_repository_of_the_hub(name):
    hub = pytest.importorskip("huggingface_hub")
    folder = zoo.models_directory() / name
    for file in ("config.json", "metadata.json", "model.weights.h5"):
        assert (folder / file).is_file()
    assert (folder / "README.md").read_text("utf-8").startswith("---\n")
    card = hub.ModelCard.load(folder / "README.md")
    assert card.data.library_name == "keras"
    assert card.data.license
    assert card.data.pipeline_tag in {
        "image-classification",
        "image-segmentation",
        "unconditional-image-generation",
    }
    assert len(card.text) > 200
