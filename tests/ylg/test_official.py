"""Reading the authors' checkpoints, against their numbers and by hand."""

import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from tests.backends import to_numpy
from tests.ylg.test_generator import run
from ylg import patterns
from ylg.official import load_discriminator, load_generator
from ylg.ops import dense_weights

GOLDEN = Path(__file__).parent.parent / "golden"
VARIABLES = json.loads((GOLDEN / "ylg_variables.json").read_text())
VECTOR = "spectral_normalize/spectral_norm/spectral_norm_u"
ADAM = {
    "beta1_power": np.float32(0.5),
    "Generator/generator/g_bn/gamma/Adam": np.zeros((1, 1, 1, 16), "float32"),
    "Discriminator/discriminator/d_embedding/embedding_map/Adam_1": np.zeros(
        (10, 512), "float32"
    ),
}


def random_variables(which):
    """Numbers of a sensible size under the official names and shapes."""
    rng, arrays = np.random.default_rng(0), {}
    for name, shape in VARIABLES[which].items():
        if name == "global_step":
            arrays[name] = np.int64(900_000)
            continue
        values = rng.normal(size=shape)
        end = name.rpartition("/")[2]
        if end in ("kernel", "weights"):
            values *= np.prod(shape[:-1]) ** -0.5
        elif end in ("gamma", "moving_variance"):
            values = np.exp(0.1 * values)
        elif end in ("beta", "moving_mean", "bias"):
            values *= 0.1
        arrays[name] = np.asarray(values, "float32")
    return arrays


def write(path, arrays):
    """A checkpoint as TensorFlow 1 writes it."""
    import tensorflow as tf

    names = sorted(arrays)
    tf.raw_ops.SaveV2(
        prefix=str(path),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(arrays[name]) for name in names],
    )
    return path


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "ylg_generator.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def folder(golden, tmp_path_factory):
    """A generator's checkpoints of two steps; the last one is right."""
    folder = tmp_path_factory.mktemp("generator")
    arrays = random_variables("generator")
    for key, array in golden.items():
        if key.startswith("var:"):
            arrays[key.removeprefix("var:")] = array
    write(folder / "model.ckpt-900000", {**arrays, **ADAM})
    write(folder / "model.ckpt-70000", {"other": np.float32(0)})
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return load_generator(folder)


def after_block2(model, *names):
    """From the output of block2 and the labels to the named layers."""
    return keras.Model(
        [model.get_layer("block2").output, model.inputs[1]],
        [model.get_layer(name).output for name in names],
    )


@pytest.mark.thorough
def test_generator_pictures(model, golden):
    part = after_block2(model, "block3", "images")
    features, pictures = run(part, [golden["block2"], golden["labels"]])
    np.testing.assert_allclose(pictures, golden["images"], atol=5e-6)
    attention = model.get_layer("attention")
    weights = attention.attention_weights(
        ops.convert_to_tensor(features[:1]),
    )
    matrices = dense_weights(weights, attention.patterns_for(features.shape))
    np.testing.assert_allclose(
        to_numpy(matrices), golden["attention"], atol=5e-6
    )


def test_generator_training_call(model, golden):
    part = after_block2(model, "block3", "images")
    before = model.get_weights()
    _, pictures = part(
        [
            ops.convert_to_tensor(golden["block2_training"]),
            ops.convert_to_tensor(golden["labels"]),
        ],
        training=True,
    )
    pictures = to_numpy(pictures)
    after = {v.path: to_numpy(v) for v in model.weights}
    model.set_weights(before)
    # The official float32 variance, E[x^2] - E[x]^2, is off by 1e-5.
    np.testing.assert_allclose(pictures, golden["images_training"], atol=1e-4)
    compared = 0
    for key, expected in golden.items():
        if not key.startswith("var_after_train_call:"):
            continue
        found = after[our_path(key.partition(":")[2])]
        if "g_ops/sn_conv_attn" in key:
            found = official_rows(found)
        np.testing.assert_allclose(
            found.ravel(), expected.ravel(), atol=2e-6, err_msg=key
        )
        compared += 1
    # Of blocks 3 to 5, the attention, the last norm and convolution.
    assert compared == 3 * (2 * 2 + 3) + 4 + 2 + 1


def our_path(name):
    """Path of a state of ours from its official name."""
    name = name.removeprefix("Generator/generator/")
    scope, _, end = name.partition("/")
    maps = {"snconv1": "conv1", "snconv2": "conv2", "snconv3": "shortcut"}
    if name.endswith(VECTOR):
        end = end.partition("/")[0]
        vector = "left_singular_vector"
        if scope == "g_ops":
            ours = {"attn": "out"}.get(end[8:], end[8:])
            return f"attention/{ours}_sn/{vector}"
        if scope == "g_snconv_last":
            return f"conv/{vector}"
        return f"{scope[2:]}_{maps[end]}/{vector}"
    if scope == "g_bn":
        return f"norm/{end}"
    norm, _, end = end.partition("/")
    return f"{scope[2:]}_norm{int(norm[-1]) + 1}/{end}"


def official_rows(vector):
    """(head, d) -> (d, head)."""
    return vector.reshape(8, -1).T


def test_generator_head(model):
    """What comes before block 3 is where it belongs."""
    arrays = random_variables("generator")
    scope = "Generator/generator/"
    for layer, official in (
        ("dense", "g_snh0/dense/"),
        ("block1_conv1", "g_block1/snconv1/snconv1/"),
        ("block1_shortcut", "g_block1/snconv3/snconv3/"),
        ("block2_conv2", "g_block2/snconv2/snconv2/"),
    ):
        layer, official = model.get_layer(layer), scope + official
        for variable, name in (
            (layer.layer.kernel, official + "kernel"),
            (layer.layer.bias, official + "bias"),
            (
                layer.left_singular_vector,
                f"{official}{official}kernel/{VECTOR}",
            ),
        ):
            expected = arrays[name].reshape(variable.shape)
            np.testing.assert_array_equal(to_numpy(variable), expected)
    for layer, official in (
        ("block1_norm2", "g_block1/cbn_1/"),
        ("block2_norm1", "g_block2/cbn_0/"),
    ):
        for name in ("gamma", "beta", "moving_mean", "moving_variance"):
            found = to_numpy(getattr(model.get_layer(layer), name))
            expected = arrays[scope + official + name].reshape(found.shape)
            np.testing.assert_array_equal(found, expected)


def test_generator_prefix_and_sizes(model, folder):
    assert model.input_shape == [(None, 128), (None,)]
    assert model.output_shape == (None, 128, 128, 3)
    assert model.get_layer("block1_norm1").num_classes == 10
    by_prefix = load_generator(str(folder / "model.ckpt-900000"))
    for one, other in zip(model.weights, by_prefix.weights, strict=True):
        np.testing.assert_array_equal(to_numpy(one), to_numpy(other))


@pytest.mark.thorough
def test_discriminator_by_hand(tmp_path):
    arrays = random_variables("discriminator")
    model = load_discriminator(
        write(tmp_path / "model.ckpt-1", {**arrays, **ADAM})
    )
    assert model.count_params() == sum(
        array.size for name, array in arrays.items() if name != "global_step"
    )
    rng = np.random.default_rng(1)
    pictures = rng.uniform(-1, 1, (2, 128, 128, 3)).astype("float32")
    labels = np.array([9, 4], "int32")
    by_hand = OfficialDiscriminator(arrays)
    expected = by_hand(pictures, labels)
    assert by_hand.used == set(arrays) - {"global_step"}
    found = run(model, [pictures, labels])
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, atol=1e-4 * scale)


class OfficialDiscriminator:
    """The official network written once more, in float64 NumPy."""

    def __init__(self, arrays):
        self.arrays, self.used = arrays, set()

    def __call__(self, x, labels):
        x = self.first_block(x.astype("float64"), "d_optimized_block1")
        x = self.attention(self.block(x, "d_block2"))
        for name in ("d_block3", "d_block4", "d_block5"):
            x = self.block(x, name)
        x = self.block(x, "d_block6", halve=False)
        h = relu(x).sum((1, 2))
        table = self.variable("d_embedding/embedding_map")
        u = self.variable(f"d_embedding/{VECTOR}")
        table = table / max(1, norm_by_one_step(table.T, u))
        kernel, bias = self.normalized("d_sn_linear/dense/")
        product = np.einsum("bc,bc->b", h, table[labels])
        return h @ kernel + bias + product[:, None]

    def first_block(self, x, name):
        y = self.conv(relu(self.conv(x, name, 1)), name, 2)
        return half(y) + self.conv(half(x), name, 3)

    def block(self, x, name, halve=True):
        y = self.conv(relu(x), name, 1)
        y = self.conv(relu(y), name, 2)
        if not halve:
            return x + y
        return half(self.conv(x, name, 3)) + half(y)

    def conv(self, x, name, number):
        kernel, bias = self.normalized(
            f"{name}/sn_conv{number}/sn_conv{number}/"
        )
        pad = len(kernel) // 2
        padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        y = np.zeros((*x.shape[:-1], kernel.shape[-1])) + bias
        for i, j in np.ndindex(*kernel.shape[:2]):
            window = padded[:, i : i + x.shape[1], j : j + x.shape[2]]
            y += window @ kernel[i, j]
        return y

    def attention(self, x):
        batch, height, width, channels = x.shape
        query = self.project(x, "theta")
        key = largest(self.project(x, "phi"))
        value = largest(self.project(x, "g"))
        query, key, value = (
            t.reshape(batch, -1, 8, t.shape[-1] // 8)
            for t in (query, key, value)
        )
        logits = np.einsum("bqhd,bkhd->bhqk", query, key)
        heads = patterns.ylg_heads(
            (height, width), (height // 2, width // 2), alignment="tiled"
        )
        masks = np.stack([pattern.mask() for pattern in heads])
        logits = logits - 1000.0 * (1 - masks)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        merged = np.einsum("bhqk,bkhd->bqdh", weights, value)  # d before head
        merged = merged.reshape(batch, height, width, channels // 2)
        gate = self.variable("d_ops/sigma_ratio")
        return x + gate * self.project(merged, "attn")

    def project(self, x, name):
        kernel, _ = self.normalized(f"d_ops/sn_conv_{name}/", "weights")
        return x @ kernel[0, 0]

    def normalized(self, scope, kernel="kernel"):
        name = f"Discriminator/discriminator/{scope}{kernel}"
        u = self.variable(f"{scope}{name}/{VECTOR}")
        weights = self.variable(scope + kernel)
        matrix = weights.reshape(-1, weights.shape[-1])
        sigma = norm_by_one_step(matrix, u)
        if kernel == "weights":
            return weights / sigma, None
        return weights / max(1, sigma), self.variable(scope + "bias")

    def variable(self, name):
        name = f"Discriminator/discriminator/{name}"
        self.used.add(name)
        return self.arrays[name].astype("float64")


def norm_by_one_step(matrix, u):
    v = matrix.T @ u
    v /= np.linalg.norm(v)
    u = matrix @ v
    u /= np.linalg.norm(u)
    return (u.T @ matrix @ v).item()


def relu(x):
    return np.maximum(x, 0)


def windows(x):
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels)


def half(x):
    return windows(x).mean((2, 4))


def largest(x):
    return windows(x).max((2, 4))


def test_differences_are_listed(tmp_path):
    arrays = random_variables("generator")
    scope = "Generator/generator/"
    del arrays[scope + "g_block3/cbn_0/beta"]
    arrays[scope + "g_bn/gamma"] = np.ones(16, "float32")
    arrays[scope + "g_bn/gamma/ExponentialMovingAverage"] = np.ones(16)
    path = write(tmp_path / "model.ckpt-1", arrays)
    with pytest.raises(ValueError, match="exactly the variables") as error:
        load_generator(path)
    listed = str(error.value).splitlines()[1:]
    assert listed == [
        f"missing: {scope}g_block3/cbn_0/beta (10, 1, 1, 128)",
        f"of another shape: {scope}g_bn/gamma (16,), not (1, 1, 1, 16)",
        f"unexpected: {scope}g_bn/gamma/ExponentialMovingAverage (16,)",
    ]


def test_another_network(folder):
    with pytest.raises(
        ValueError,
        match="d_embedding/embedding_map of rank 2.*no such variable",
    ):
        load_discriminator(folder)


@pytest.mark.parametrize("load", [load_generator, load_discriminator])
def test_no_checkpoint(load, tmp_path):
    with pytest.raises(ValueError, match="folder must hold a checkpoint"):
        load(tmp_path)
    path = tmp_path / "model.ckpt-3"
    with pytest.raises(
        ValueError, match="prefix of a checkpoint.*" + re.escape(str(path))
    ):
        load(path)
