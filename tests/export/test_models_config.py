"""kanets.export.models_config against the server's own message."""

import pathlib

import pytest

from kanets.export.models_config import (
    write_batching_parameters,
    write_models_config,
)

ROOT = pathlib.Path(__file__).parents[2]


def add_version(folder, version="1"):
    (folder / version).mkdir(parents=True)
    (folder / version / "saved_model.pb").touch()


def read(path):
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse(path.read_text(encoding="utf-8"), config)
    return config.model_config_list.config


def test_each_folder_of_versions_is_a_model(tmp_path):
    for name, version in [("wasps", "2"), ("Bees", "1"), ("bees", "007")]:
        add_version(tmp_path / name, version)
    add_version(tmp_path / "bees", "12")
    (tmp_path / "README.md").write_text("no model")
    (tmp_path / "1.zip").touch()
    (tmp_path / "begun" / "1").mkdir(parents=True)  # a copy under way
    add_version(tmp_path / "killed", ".tmp-1-ab")
    add_version(tmp_path, "3")  # a version, not a folder of them
    path = write_models_config(tmp_path)
    assert path == tmp_path / "models.config"
    models = read(path)
    names = ["Bees", "bees", "wasps"]
    assert [model.name for model in models] == names
    for model, name in zip(models, names, strict=True):
        assert model.base_path == f"/models/{name}"
        assert model.model_platform == "tensorflow"
        # Left alone, the server takes the highest version.
        assert not model.HasField("model_version_policy")
    lines = path.read_text().splitlines()
    assert lines[:5] == [
        "model_config_list {",
        "  config {",
        '    name: "Bees"',
        '    base_path: "/models/Bees"',
        '    model_platform: "tensorflow"',
    ]


NAMES = ['a"b', "a\\b", "a'b", "c\u00f4te", "a\nb", "a\tb", "a b", "{x}", "#1"]


def test_any_name_is_read_back(tmp_path):
    for name in NAMES:
        add_version(tmp_path / name)
    models = read(write_models_config(str(tmp_path), 'gs://a "b"/'))
    assert [model.name for model in models] == sorted(NAMES)
    for model in models:
        assert model.base_path == f'gs://a "b"/{model.name}'


def test_is_replaced_whole(tmp_path, monkeypatch):
    add_version(tmp_path / "bees")
    path = write_models_config(tmp_path, "/")
    assert read(path)[0].base_path == "/bees"
    before = path.read_bytes()
    add_version(tmp_path / "ants")

    def fail(source, _):
        assert b"ants" in source.read_bytes()
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", fail)
        with pytest.raises(OSError, match="disk full"):
            write_models_config(tmp_path)
    assert path.read_bytes() == before
    write_models_config(tmp_path)
    assert [model.name for model in read(path)] == ["ants", "bees"]
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"ants", "bees", "models.config"}


def test_nothing_to_serve(tmp_path):
    for directory in (tmp_path, tmp_path / "missing", tmp_path / "bees" / "1"):
        with pytest.raises(
            ValueError, match=f"must hold folders of .*='{directory}'$"
        ):
            write_models_config(directory)
    add_version(tmp_path / "bees")
    # One model's folder of versions, instead of the folder around it.
    with pytest.raises(ValueError, match="must hold folders of .*bees'$"):
        write_models_config(tmp_path / "bees")
    for base_path in ("models", "", "./models"):
        with pytest.raises(ValueError, match=f"absolute.*path='{base_path}'$"):
            write_models_config(tmp_path, base_path)
    assert [path.name for path in tmp_path.iterdir()] == ["bees"]


def batching_parameters():
    """A message class with the fields of the server's BatchingParameters.

    No package brings it: `servables/tensorflow/session_bundle_config.proto`.
    """
    from google.protobuf import (
        descriptor_pb2,
        descriptor_pool,
        message_factory,
        wrappers_pb2,
    )

    file = descriptor_pb2.FileDescriptorProto(name="batching.proto")
    file.dependency.append(wrappers_pb2.DESCRIPTOR.name)
    message = file.message_type.add(name="BatchingParameters")
    kind = descriptor_pb2.FieldDescriptorProto
    for number, name in enumerate(
        ("max_batch_size", "batch_timeout_micros"), 1
    ):
        message.field.add(
            name=name,
            number=number,
            label=kind.LABEL_OPTIONAL,
            type=kind.TYPE_MESSAGE,
            type_name=".google.protobuf.Int64Value",
        )
    message.field.add(
        name="allowed_batch_sizes",
        number=6,
        label=kind.LABEL_REPEATED,
        type=kind.TYPE_INT64,
    )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName("BatchingParameters")
    )()


def test_batching_parameters(tmp_path):
    from google.protobuf import text_format

    path = write_batching_parameters(tmp_path, [1, 8, 32])
    assert path == tmp_path / "batching_parameters.txt"
    read = text_format.Parse(path.read_text(), batching_parameters())
    assert list(read.allowed_batch_sizes) == [1, 8, 32]
    assert read.max_batch_size.value == 32  # the last of them, as it has to be
    assert read.batch_timeout_micros.value > 0


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([], r"that increase\. Received: batch_sizes=\[\]"),
        (8, r"that increase\. Received: batch_sizes=8"),
        ([8, 1], r"that increase\. Received: batch_sizes=\[8, 1\]"),
        ([1, 1], r"that increase\. Received: batch_sizes=\[1, 1\]"),
        ([0, 1], "positive integer. Received: batch_sizes=0"),
    ],
)
def test_sizes_that_are_none(tmp_path, sizes, message):
    with pytest.raises(ValueError, match=message):
        write_batching_parameters(tmp_path, sizes)
    assert not list(tmp_path.iterdir())


def test_the_compose_file_names_what_is_written():
    text = (ROOT / "savedmodels" / "compose.yaml").read_text()
    for name in ("models.config", "batching_parameters.txt"):
        assert f"=/models/{name}\n" in text
