"""ViT: another implementation's outputs, sizes, mechanisms, daily use."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import safetensors.numpy

import kanets
from kanets import ViT, attention, zoo
from kanets.nets import feature_maps, vit
from kanets.zoo.loading import carry
from tests.backends import (
    counts_once,
    dot,
    gradient,
    needs_tensorflow,
    to_numpy,
)
from tests.layer_checks import fill_weights
from tests.layers.test_resize_like import interpolate

GOLDEN = np.load(Path(__file__).parent.parent / "golden" / "vit_hf.npz")
TINY = vit.Variant(channels=16, depth=1, num_heads=2, mlp_channels=24)
# By our layer: the name there, and of which axes ours are.
NAMES = {
    "attention_norm": "layernorm_before",
    "mlp_norm": "layernorm_after",
    "attention/query": "attention.q_proj",
    "attention/key": "attention.k_proj",
    "attention/value": "attention.v_proj",
    "attention/output": "attention.o_proj",
    "mlp_expand": "mlp.fc1",
    "mlp_project": "mlp.fc2",
}


@pytest.fixture
def sizes(monkeypatch):
    """Two variants for tests: the golden arrays' and the smallest."""
    monkeypatch.setitem(vit.VARIANTS, "hf", vit.Variant(32, 2, 4, 64))
    monkeypatch.setitem(vit.VARIANTS, "test", TINY)


def make(input_shape=(16, 24, 3), **arguments):
    arguments = {"variant": "test", "patch_size": 4, "classes": 5, **arguments}
    model = ViT(input_shape, **arguments)
    fill_weights(model.weights)
    return model


def pixels(*shape, seed=0):
    values = np.random.default_rng(seed).uniform(0, 255, shape)
    return values.astype("float32")


def run(model, x):
    return to_numpy(model(x, training=False))


def hf(path, kind="weight"):
    """What the golden arrays have for a variable of ours; None if nothing."""

    def of(name):
        return GOLDEN[f"{'grad_' * (kind == 'grad')}weight:{name}"]

    layer, _, part = path.rpartition("/")
    if path == "positions/positions":
        return of("embeddings.position_embeddings")[:, 1:].reshape(1, 4, 6, 32)
    if path == "positions/class_token":
        # Ours holds its position, too; the gradients of both are equal.
        first = of("embeddings.position_embeddings")[:, :1]
        token = of("embeddings.cls_token")
        if kind == "grad":
            np.testing.assert_allclose(token, first, atol=1e-6)
            return first
        return token + first
    if layer == "patches":
        name = "embeddings.patch_embeddings.projection"
    elif layer == "norm":
        name = "layernorm"
    elif layer == "representation":
        name = "pooler.dense"
    else:
        _, block, rest = layer.split("_", 2)
        name = f"layers.{block}.{NAMES[rest]}"
    array = of(f"{name}.{'bias' if part in ('bias', 'beta') else 'weight'}")
    axes = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[array.ndim]
    return array.transpose(axes)


@pytest.fixture
def of_hf(sizes):
    """The model of the golden arrays; its output is that of the pooler."""
    model = ViT(
        (16, 24, 3),
        "hf",
        classes=32,
        classifier_activation=None,
        patch_size=4,
        representation_size=32,
        include_preprocessing=False,
    )
    model = keras.Model(model.input, model.get_layer("representation").output)
    for variable in model.weights:
        variable.assign(hf(variable.path))
    return model


def test_outputs_are_those_of_another_implementation(of_hf):
    x = GOLDEN["pixel_values"].transpose(0, 2, 3, 1)
    ends = {
        "positions": "hidden_0_embeddings",
        "block_0_mlp_add": "hidden_1",
        "block_1_mlp_add": "hidden_2",
        "norm": "last_hidden_state",
        "representation": "pooler_output",
    }
    outputs = [of_hf.get_layer(name).output for name in ends]
    for output, name in zip(
        keras.Model(of_hf.input, outputs)(x), ends.values(), strict=True
    ):
        np.testing.assert_allclose(
            to_numpy(output), GOLDEN[name], atol=1e-5, err_msg=name
        )
    for block in range(2):
        layer = of_hf.get_layer(f"block_{block}_attention")
        entering = keras.Model(of_hf.input, layer.input)(x)
        _, weights = layer(entering, return_attention_scores=True)
        np.testing.assert_allclose(
            to_numpy(weights), GOLDEN[f"attention_{block + 1}"], atol=1e-5
        )


def test_gradients_are_those_of_another_implementation(of_hf):
    x = GOLDEN["pixel_values"].transpose(0, 2, 3, 1)
    [found] = gradient(lambda t: dot(of_hf(t), GOLDEN["cotangent_pooler"]), x)
    expected = GOLDEN["grad_pixel_values_of_pooler"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(
        found, expected, atol=1e-5 * np.abs(expected).max()
    )
    body = keras.Model(of_hf.input, of_hf.get_layer("norm").output)
    variables = body.trainable_variables

    def loss(t, *values):
        pairs = list(zip(variables, values, strict=True))
        with keras.StatelessScope(pairs):
            return dot(body(t), GOLDEN["cotangent"])

    values = [to_numpy(v) for v in variables]
    found, *of_weights = gradient(loss, x, *values)
    expected = GOLDEN["grad_pixel_values"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(
        found, expected, atol=1e-5 * np.abs(expected).max()
    )
    for variable, found in zip(variables, of_weights, strict=True):
        expected = hf(variable.path, "grad")
        # Of a key's bias it is zero, but for rounding.
        scale = 1.0 if "key/bias" in variable.path else np.abs(expected).max()
        np.testing.assert_allclose(
            found, expected, atol=1e-5 * scale, err_msg=variable.path
        )


@counts_once
@pytest.mark.parametrize(
    ("variant", "count"),
    [
        # The published numbers, without the position of the class token.
        ("tiny", 5_717_416 - 192),
        pytest.param("small", 22_050_664 - 384, marks=pytest.mark.thorough),
    ],
)
def test_full_size(variant, count):
    model = kanets.create_model(f"vit_{variant}", pretrained=False)
    assert model.name == f"vit_{variant}"
    assert model.input_shape == (None, 224, 224, 3)
    assert model.output_shape == (None, 1000)
    assert model.count_params() == count
    with pytest.raises(ValueError, match="include_top=False gives. Received"):
        feature_maps(model)


def test_tops(sizes):
    x = pixels(2, 16, 24, 3)
    model = make(dropout_rate=0.5)
    probabilities = run(model, x)
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)
    assert model.get_layer("dropout").rate == 0.5
    logits = run(make(classifier_activation=None), x)
    found = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(found, probabilities, atol=1e-5)
    bare = make(include_preprocessing=False)
    np.testing.assert_allclose(
        run(bare, x / 127.5 - 1), probabilities, atol=1e-5
    )
    maps = run(make(include_top=False), x)
    assert maps.shape == (2, 4, 6, 16)
    means = run(make(include_top=False, pooling="avg"), x)
    np.testing.assert_allclose(means, maps.mean((1, 2)), atol=1e-5)
    token = run(make(include_top=False, pooling="token"), x)
    kernel, bias = map(to_numpy, model.get_layer("predictions").weights)
    np.testing.assert_allclose(token @ kernel + bias, logits, atol=1e-4)


def test_without_a_token_the_head_sees_the_mean(sizes):
    x = pixels(2, 16, 24, 3)
    model = make(attention="kao_qkv", classifier_activation=None)
    means = run(make(attention="kao_qkv", include_top=False), x).mean((1, 2))
    kernel, bias = map(to_numpy, model.get_layer("predictions").weights)
    np.testing.assert_allclose(means @ kernel + bias, run(model, x), atol=1e-4)


def test_maps_and_heads_where_it_is_not_said(sizes):
    def layer(written):
        return make(attention=written).get_layer("block_0_attention")

    made = layer("kao_kv")
    assert (made.num_heads, made.projections, made.mode) == (2, "qkvo", "kv")
    assert made.use_bias and made.scale == "rsqrt"
    made = layer({"name": "dense", "num_heads": 4, "projections": "v"})
    assert (made.num_heads, made.projections) == (4, "v")
    assert made.input.shape == (None, 25, 16)
    assert layer("dense_pool").input.shape == (None, 4, 6, 16)
    assert layer("ylg").num_heads == 8

    def factory(*, scale, dtype, name):
        return attention.KroneckerAttention(scale=scale, dtype=dtype, name=name)

    made = layer(factory)
    assert (made.num_heads, made.projections, made.scale) == (1, "v", "rsqrt")


def check_mechanism(name):
    model = make(attention=name)
    x = pixels(2, 16, 24, 3)
    output = run(model, x)
    np.testing.assert_allclose(output.sum(-1), 1, atol=1e-5)
    assert np.ptp(output) > 1e-3
    config = json.loads(json.dumps(model.get_config()))
    copy = keras.Model.from_config(config)
    copy.set_weights(model.get_weights())
    np.testing.assert_allclose(run(copy, x), output, atol=1e-6)
    return model


def test_a_mechanism_by_name(sizes):
    check_mechanism("axial")


@pytest.mark.thorough
@pytest.mark.parametrize(
    "name",
    [
        name
        if name == "kao_qkv"
        else pytest.param(name, marks=pytest.mark.slow)
        for name in attention.names()
    ],
)
def test_every_mechanism_by_name(name, sizes, tmp_path):
    model = check_mechanism(name)
    before = [to_numpy(w).copy() for w in model.trainable_weights]
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(pixels(8, 16, 24, 3), np.arange(8) % 5, batch_size=4, verbose=0)
    for weight, old in zip(model.trainable_weights, before, strict=True):
        assert np.all(np.isfinite(to_numpy(weight)))
        if "key" not in weight.path:
            assert np.abs(to_numpy(weight) - old).max() > 0, weight.path
    picture = pixels(16, 24, 3).astype("uint8")
    looks = kanets.visualize.attention_map(model, picture, position=(3, 20))
    reaches = kanets.visualize.rollout_map(model, picture)
    assert looks.shape == reaches.shape == (4, 6)
    np.testing.assert_allclose(looks.sum(), 1, atol=1e-5)
    assert 0 < reaches.sum() < 1 + 1e-5
    assert kanets.visualize.grad_cam(model, picture).shape == (4, 6)


@pytest.mark.parametrize("written", ["dense", "kao_qkv"])
def test_positions_follow_the_size(written, sizes, tmp_path):
    x = pixels(2, 20, 18, 3)
    trained = make(attention=written)
    # The graph of another size keeps its weights and resizes at each call.
    kanets.save_model(trained, tmp_path / "model")
    kept = kanets.create_model(str(tmp_path / "model"), input_shape=(20, 18, 3))
    assert kept.get_layer("positions").positions.shape == (1, 4, 6, 16)
    # A net of that size has weights of it: of what it carries, of a file.
    carried = make((20, 18, 3), attention=written)
    fresh = to_numpy(carried.get_layer("positions").positions)
    carry(trained, carried)
    positions = to_numpy(carried.get_layer("positions").positions)
    old = to_numpy(trained.get_layer("positions").positions)
    np.testing.assert_allclose(positions, interpolate(old, (5, 5)), atol=1e-5)
    assert np.abs(positions - fresh).max() > 0.01
    file = tmp_path / "trained.weights.h5"
    trained.save_weights(file)
    arguments = {"variant": "test", "patch_size": 4, "classes": 5}
    loaded = ViT((20, 18, 3), attention=written, weights=file, **arguments)
    expected = run(kept, x)
    np.testing.assert_allclose(run(carried, x), expected, atol=1e-5)
    np.testing.assert_allclose(run(loaded, x), expected, atol=1e-5)
    # With open sizes, too.
    open_sizes = kanets.create_model(
        str(tmp_path / "model"), input_shape=(None, None, 3)
    )
    x = pixels(2, 16, 24, 3)
    np.testing.assert_allclose(run(open_sizes, x), run(trained, x), atol=1e-6)
    opened = ViT((None, None, 3), attention=written, **arguments)
    assert opened.get_layer("positions").grid == (56, 56)


def test_weights_of_another_size_by_name(sizes, monkeypatch, tmp_path, capsys):
    """`create_model` reads a folder and a file, and resizes positions."""
    architecture = zoo.Architecture(
        name="vit_test",
        task="classification",
        net="ViT",
        arguments={"variant": "test", "patch_size": 4},
        input_shape=(16, 24, 3),
        num_classes=5,
    )
    monkeypatch.setattr("kanets.zoo.creating.ARCHITECTURES", (architecture,))
    trained = make()
    kanets.save_model(trained, tmp_path / "model")
    trained.save_weights(tmp_path / "a.weights.h5")
    x = pixels(1, 20, 18, 3)
    expected = make((20, 18, 3))
    carry(trained, expected)
    for source in ("model", "a.weights.h5"):
        model = kanets.create_model(
            "vit_test", weights=tmp_path / source, input_shape=(20, 18, 3)
        )
        np.testing.assert_allclose(run(model, x), run(expected, x), atol=1e-5)
    new = kanets.create_model(
        "vit_test", weights=tmp_path / "model", num_classes=2
    )
    assert new.output_shape == (None, 2)
    assert "as built: predictions" in capsys.readouterr().err


def timms():
    """The golden arrays' weights under timm's names, with a head."""
    of = {k[7:]: GOLDEN[k] for k in GOLDEN.files if k.startswith("weight:")}
    embedding, found = "embeddings.patch_embeddings.projection", {}
    found["cls_token"] = of["embeddings.cls_token"]
    found["pos_embed"] = of["embeddings.position_embeddings"]
    for part in ("weight", "bias"):
        found[f"patch_embed.proj.{part}"] = of[f"{embedding}.{part}"]
        found[f"norm.{part}"] = of[f"layernorm.{part}"]
        for block in range(2):
            theirs, timm = f"layers.{block}.", f"blocks.{block}."
            qkv = [of[f"{theirs}attention.{x}_proj.{part}"] for x in "qkv"]
            found[f"{timm}attn.qkv.{part}"] = np.concatenate(qkv)
            for name, other in {
                "attn.proj": "attention.o_proj",
                "norm1": "layernorm_before",
                "norm2": "layernorm_after",
                "mlp.fc1": "mlp.fc1",
                "mlp.fc2": "mlp.fc2",
            }.items():
                found[f"{timm}{name}.{part}"] = of[f"{theirs}{other}.{part}"]
    rng = np.random.default_rng(0)
    found["head.weight"] = rng.normal(size=(5, 32)).astype("float32")
    found["head.bias"] = rng.normal(size=5).astype("float32")
    return found


def test_timms_files(sizes, monkeypatch, tmp_path, capsys):
    """Its names and its one product of queries, keys and values."""
    architecture = zoo.Architecture(
        name="vit_test",
        task="classification",
        net="ViT",
        arguments={"variant": "hf", "patch_size": 4},
        input_shape=(224, 224, 3),
        num_classes=5,
    )
    monkeypatch.setattr("kanets.zoo.creating.ARCHITECTURES", (architecture,))
    tensors = timms()
    file = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(
        {k: np.ascontiguousarray(v) for k, v in tensors.items()}, file
    )
    config = {"input_size": [3, 16, 24], "mean": [0.5] * 3, "std": [0.5] * 3}
    (tmp_path / "config.json").write_text(
        json.dumps({"pretrained_cfg": config})
    )
    model = kanets.create_model(
        "vit_test", weights=file, classifier_activation=None
    )
    x = GOLDEN["pixel_values"].transpose(0, 2, 3, 1)
    token = GOLDEN["cls_output"]
    expected = token @ tensors["head.weight"].T + tensors["head.bias"]
    found = run(model, 127.5 * x + 127.5)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert "left over" not in capsys.readouterr().err
    # Another size, and another head.
    other = kanets.create_model(
        "vit_test", weights=file, input_shape=(20, 18, 3), num_classes=2
    )
    positions = to_numpy(other.get_layer("positions").positions)
    expected = interpolate(
        tensors["pos_embed"][:, 1:].reshape(1, 4, 6, 32), (5, 5)
    )
    np.testing.assert_allclose(positions, expected, atol=1e-5)
    with pytest.raises(ValueError, match="must be those of the net"):
        kanets.create_model("vit_test", weights=file, attention="kao_qkv")


def test_sizes_that_patches_do_not_divide(sizes):
    model = make((18, 22, 3), include_top=False)
    assert model.output_shape == (None, 5, 6, 16)
    x = pixels(1, 18, 22, 3)
    edge = x.copy()
    edge[:, -1, -1] = 0
    assert np.abs(run(model, x) - run(model, edge)).max() > 1e-3


@pytest.mark.parametrize("written", ["dense", "axial"])
def test_a_saved_model_is_the_same(written, sizes, tmp_path):
    model, x = make(attention=written), pixels(2, 16, 24, 3)
    model.save(tmp_path / "vit.keras")
    loaded = keras.saving.load_model(tmp_path / "vit.keras")
    np.testing.assert_allclose(run(loaded, x), run(model, x), atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision(policy, sizes):
    x = pixels(2, 16, 24, 3)
    expected = run(make(), x)
    keras.config.set_dtype_policy(policy)
    try:
        model = make()
    finally:
        keras.config.set_dtype_policy("float32")
    half = policy.removeprefix("mixed_")
    assert model.get_layer("norm").output.dtype == half
    assert model.output.dtype == "float32"
    np.testing.assert_allclose(run(model, x), expected, atol=0.03)


@pytest.mark.thorough
def test_it_learns(sizes):
    """Which half of a picture is bright, in a few steps."""
    keras.utils.set_random_seed(0)
    x, y = pixels(32, 16, 16, 3) / 4, np.arange(32) % 2
    x[y == 0, :8] += 150
    x[y == 1, 8:] += 150
    model = ViT((16, 16, 3), "test", classes=2, patch_size=4)
    model.compile(
        keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy"
    )
    history = model.fit(x, y, batch_size=16, epochs=25, verbose=0)
    assert history.history["loss"][-1] < 0.3  # chance has 0.69


@needs_tensorflow
@pytest.mark.thorough
def test_export(sizes, tmp_path):
    import tensorflow as tf

    model, x = make(), pixels(1, 16, 24, 3).astype("uint8")
    names = tuple("abcde")
    kanets.export_savedmodel(model, tmp_path / "vit", class_names=names)
    predict = kanets.load_savedmodel(tmp_path / "vit")
    _, _, found = predict([tf.io.encode_png(x[0]).numpy()])
    expected = run(model, x.astype("float32"))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"variant": "huge"}, r"one of \['tiny', 'small'\].* variant='huge'"),
        ({"depth": 0}, "depth must be a positive integer. Received: depth=0"),
        ({"patch_size": 0}, "Received: patch_size=0"),
        ({"classes": 0}, "Received: classes=0"),
        ({"representation_size": 0}, "Received: representation_size=0"),
        ({"pooling": "sum"}, "pooling='sum'"),
        ({"pooling": "token", "attention": "kao_kv"}, "attention='kao_kv'"),
        ({"input_shape": (3, 32, 32)}, r"input_shape=\(3, 32, 32\)"),
        ({"input_shape": (32, 32)}, r"input_shape=\(32, 32\)"),
        ({"attention": None}, "or none. Received: attention=None"),
        ({"attention": "kao_q"}, "Received: .*'kao_q'"),
        ({"attention": keras.layers.Identity()}, "not one layer"),
    ],
    ids=str,
)
def test_errors(arguments, text):
    with pytest.raises(ValueError, match=text):
        ViT(**arguments)
