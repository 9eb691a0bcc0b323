"""Weights under other names: kinds, tables, errors, reports."""

import json

import keras
import numpy as np
import pytest
import safetensors.numpy

from kanets.layers import BatchNormalization
from kanets.zoo import foreign, weights
from tests.backends import to_numpy

TABLE = {
    "stem": ("conv", "conv_stem"),
    "stem_norm": ("norm", "bn1"),
    "depthwise": ("depthwise", "blocks.0.conv_dw"),
    "fc": ("dense", "classifier"),
}
RANDOM = np.random.default_rng(0)
TENSORS = {
    "conv_stem.weight": RANDOM.normal(size=(5, 3, 2, 3)),
    "bn1.weight": RANDOM.normal(size=5),
    "bn1.bias": RANDOM.normal(size=5),
    "bn1.running_mean": RANDOM.normal(size=5),
    "bn1.running_var": RANDOM.uniform(0.5, 2, size=5),
    "bn1.num_batches_tracked": np.array(7),
    "blocks.0.conv_dw.weight": RANDOM.normal(size=(5, 1, 3, 2)),
    "blocks.0.conv_dw.bias": RANDOM.normal(size=5),
    "classifier.weight": RANDOM.normal(size=(4, 5)),
    "classifier.bias": RANDOM.normal(size=4),
}
TENSORS = {
    name: x.astype("float32" if x.ndim else "int64")
    for name, x in TENSORS.items()
}
PICTURES = RANDOM.uniform(0, 255, (2, 6, 7, 3)).astype("float32")
CONFIG = {
    "architecture": "tiny",
    "pretrained_cfg": {
        "input_size": [3, 6, 7],
        "mean": [0.4, 0.5, 0.6],
        "std": [0.1, 0.2, 0.3],
        "crop_pct": 0.875,
        "interpolation": "bicubic",
    },
}


def make_net(classes=4, extra=False):
    inputs = keras.Input((6, 7, 3))
    x = keras.layers.Rescaling(1 / 128, name="preprocessing")(inputs)
    x = keras.layers.Conv2D(5, (2, 3), use_bias=False, name="stem")(x)
    x = BatchNormalization(epsilon=1e-3, name="stem_norm")(x)
    if extra:
        x = keras.layers.Conv2D(
            5, 1, kernel_initializer="zeros", name="attention"
        )(x) + keras.layers.Identity(name="same")(x)
    x = keras.layers.DepthwiseConv2D((3, 2), name="depthwise")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(classes, name="fc")(x)
    return keras.Model(inputs, x, name="tiny")


def expected(pictures, scale=1 / 128, offset=0.0):
    """The net in loops, from the tensors in PyTorch's layout."""
    x = (pictures * scale + offset).transpose(0, 3, 1, 2)
    kernel = TENSORS["conv_stem.weight"]
    maps = np.zeros((len(x), 5, 5, 5))
    for row in range(5):
        for column in range(5):
            patch = x[:, :, row : row + 2, column : column + 3]
            maps[..., row, column] = np.einsum("bchw,ochw->bo", patch, kernel)
    norm = [
        TENSORS[f"bn1.{name}"][:, None, None]
        for name in ("weight", "bias", "running_mean", "running_var")
    ]
    maps = (maps - norm[2]) / np.sqrt(norm[3] + 1e-3) * norm[0] + norm[1]
    kernel = TENSORS["blocks.0.conv_dw.weight"][:, 0]
    after = np.zeros((len(x), 5, 3, 4))
    for row in range(3):
        for column in range(4):
            patch = maps[:, :, row : row + 3, column : column + 2]
            after[..., row, column] = np.einsum("bchw,chw->bc", patch, kernel)
    after += TENSORS["blocks.0.conv_dw.bias"][:, None, None]
    weight, bias = TENSORS["classifier.weight"], TENSORS["classifier.bias"]
    return after.mean((2, 3)) @ weight.T + bias


def predict(model):
    return to_numpy(model(PICTURES, training=False))


def changed(**tensors):
    """The tensors with others: `a__b` is "a.b", None takes one away."""
    new = {name.replace("__", "."): value for name, value in tensors.items()}
    return {k: v for k, v in {**TENSORS, **new}.items() if v is not None}


def test_every_kind_lies_as_pytorch_computes():
    model = make_net()
    filled = foreign.fill(model, TENSORS, TABLE, "a file")
    np.testing.assert_allclose(predict(model), expected(PICTURES), rtol=1e-4)
    assert filled.tensors == 9
    assert filled.layers == tuple(TABLE)
    assert filled.ignored == ("bn1.num_batches_tracked",)
    assert filled.fresh == filled.skipped == filled.left_out == ()
    assert str(filled) == (
        "a file: 9 tensors filled 4 layers; ignored 1 num_batches_tracked"
    )


def test_what_the_table_does_not_name_stays_and_is_told():
    model = make_net(extra=True)
    filled = foreign.fill(model, TENSORS, TABLE, "a file")
    assert filled.fresh == ("attention",)
    assert "as built: attention" in str(filled)
    np.testing.assert_allclose(predict(model), expected(PICTURES), rtol=1e-4)


@pytest.mark.parametrize(
    "tensors, said",
    [
        (changed(bn1__bias=None), "missing bn1.bias$"),
        (changed(bn2__bias=np.zeros(3)), "left over bn2.bias$"),
        (
            changed(conv_stem__weight=np.zeros((5, 3, 3, 2), "float32")),
            r"another shape conv_stem.weight \(5, 3, 3, 2\) for \(5, 3, 2, 3\)",
        ),
        (
            changed(classifier__bias=None, bn2__bias=np.zeros(3)),
            "missing classifier.bias; left over bn2.bias$",
        ),
        ({}, "missing conv_stem.weight, bn1.weight, .* and 4 more$"),
    ],
)
def test_all_tensors_fit_or_none_is_read(tensors, said):
    model = make_net()
    before = predict(model)
    with pytest.raises(ValueError, match=f"'a file' for 'tiny', .*{said}"):
        foreign.fill(model, tensors, TABLE, "a file")
    np.testing.assert_array_equal(predict(model), before)


def test_a_table_of_another_net():
    table = {**TABLE, "block": ("conv", "conv_stem")}
    with pytest.raises(ValueError, match="without layers block"):
        foreign.fill(make_net(), TENSORS, table, "a file")


def test_a_head_of_another_size_only_if_it_may_be():
    model = make_net(classes=2)
    with pytest.raises(ValueError, match="another shape classifier.weight"):
        foreign.fill(model, TENSORS, TABLE, "a file")
    filled = foreign.fill(model, TENSORS, TABLE, "a file", ("fc",))
    assert filled.skipped == filled.fresh == ("fc",)
    assert filled.left_out == ("classifier.bias", "classifier.weight")
    full = make_net()
    foreign.fill(full, TENSORS, TABLE, "a file")
    bodies = [keras.Model(m.input, m.layers[-2].output) for m in (model, full)]
    np.testing.assert_array_equal(*map(predict, bodies))


def test_a_net_without_the_head_leaves_it_out():
    model = make_net()
    model = keras.Model(model.input, model.layers[-2].output, name="tiny")
    filled = foreign.fill(model, TENSORS, TABLE, "a file", ("fc",))
    assert filled.skipped == ("fc",) and filled.fresh == ()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(TENSORS, path)
    return path


def read(path, model, optional=()):
    found = weights.find_weights(path, "tiny", TABLE, [])
    return weights.fill(model, found, optional), found


def test_pixels_are_scaled_as_the_config_says(file):
    file.with_name("config.json").write_text(json.dumps(CONFIG))
    model = make_net()
    report, found = read(file, model)
    mean, std = np.array([0.4, 0.5, 0.6]), np.array([0.1, 0.2, 0.3])
    wanted = expected((PICTURES / 255 - mean) / std, 1, 0)
    np.testing.assert_allclose(predict(model), wanted, rtol=1e-4)
    assert found.input_shape == (6, 7, 3)
    assert "mean [0.4, 0.5, 0.6]" in report
    assert "6x7, bicubic, the centre 87.5% of the side" in report
    again = keras.Model.from_config(model.get_config())
    again.set_weights(model.get_weights())
    np.testing.assert_allclose(predict(again), wanted, rtol=1e-4)


def test_without_a_config_the_net_scales_as_it_does(file):
    model = make_net()
    report, found = read(file, model)
    np.testing.assert_allclose(predict(model), expected(PICTURES), rtol=1e-4)
    assert found.input_shape is None
    assert "without config.json, pixels are scaled as the net" in report


def test_label_names_go_with_the_head(file):
    labels = [f"class {i}" for i in range(4)]
    config = json.dumps({**CONFIG, "label_names": labels})
    file.with_name("config.json").write_text(config)
    model, other = make_net(), make_net(classes=2)
    read(file, model)
    read(file, other, ["fc"])
    assert model.class_names == tuple(labels)
    assert getattr(other, "class_names", None) is None


@pytest.mark.parametrize("text", ["no json", "{}", '{"pretrained_cfg": 3}'])
def test_a_config_that_is_none(file, text):
    file.with_name("config.json").write_text(text)
    with pytest.raises(ValueError, match="mean, std and input_size.*config"):
        read(file, make_net())


def test_a_file_that_is_none(file):
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match="no .safetensors file.*model.safet"):
        read(file, make_net())


def test_weights_that_are_not_finite(file):
    tensors = changed(bn1__bias=np.full(5, np.nan, "float32"))
    safetensors.numpy.save_file(tensors, file)
    with pytest.raises(ValueError, match="must be finite"):
        read(file, make_net())


def test_half_precision_is_read(file):
    half = {k: v.astype("float16") for k, v in TENSORS.items() if v.ndim}
    safetensors.numpy.save_file(half, file)
    model = make_net()
    read(file, model)
    np.testing.assert_allclose(predict(model), expected(PICTURES), rtol=0.02)


def test_a_net_without_a_table(file):
    with pytest.raises(ValueError, match="table of its names.*for 'KANet'"):
        weights.find_weights(file, "KANet", None, [])
