"""One identifier everywhere: what is written, and what it stands for."""

import functools
import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest

import kanets
import ylg
from kanets import attention, layers, recipes, visualize
from kanets.train.recipes.files import arguments
from tests.backends import to_numpy
from tests.layer_checks import fill_weights, random

TINY = {"alpha": 0.01, "classes": 3, "strides": (2, 1, 2, 2, 1)}
HEADS = {"name": "kao_kv", "num_heads": 4}


@keras.saving.register_keras_serializable(package="tests")
class MeanAttention(keras.layers.Layer):
    """Every cell looks at all cells alike: a mechanism of twenty lines."""

    def __init__(self, gain=1.0, **kwargs):
        super().__init__(**kwargs)
        self.gain = gain

    def call(self, query):
        mean = keras.ops.mean(query, axis=(1, 2), keepdims=True)
        return self.gain * mean + keras.ops.zeros_like(query)

    def attention_maps(self, inputs, position):
        batch, height, width, _ = inputs.shape
        return np.full((batch, 1, height, width), 1 / (height * width))

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {**super().get_config(), "gain": self.gain}


@pytest.fixture
def mean(monkeypatch):
    """Its line in the table."""
    line = attention.Mechanism(MeanAttention)
    monkeypatch.setitem(attention.MECHANISMS, "mean", line)
    return {"name": "mean", "gain": 2.0}


def attentions_of(model):
    found = [getattr(layer, "attention", None) for layer in model.layers]
    return [layer for layer in found if layer is not None]


def test_a_new_mechanism_in_a_kanet_and_drawn(mean, tmp_path):
    model = kanets.KANet((32, 32, 3), attention=mean, **TINY)
    made = attentions_of(model)
    assert made and {(type(m), m.gain) for m in made} == {(MeanAttention, 2.0)}
    picture = np.zeros((32, 32, 3), "uint8")
    assert len(visualize.attention_layers(model)) == len(made)
    path = visualize.attention_sheet(model, [picture], tmp_path / "sheet.png")
    assert path.stat().st_size
    config = json.loads(json.dumps(model.get_config()))
    copy = keras.Model.from_config(config)
    assert {m.gain for m in attentions_of(copy)} == {2.0}


def test_a_new_mechanism_in_a_segmenter(mean):
    model = kanets.KANetSegmenter(
        (32, 32, 3), 0.01, 3, attention="mean", backbone_attention=mean
    )
    assert isinstance(model.get_layer("attention"), MeanAttention)
    assert {m.gain for m in attentions_of(model)} == {2.0}


def test_a_new_mechanism_in_a_gan(mean):
    gan = ylg.SAGAN(32, 2, latent_size=4, attention=mean)
    gan = ylg.SAGAN.from_config(json.loads(json.dumps(gan.get_config())))
    for network in (gan.generator, gan.discriminator, gan.averaged_generator):
        gated = network.get_layer("attention")
        assert isinstance(gated.attention, MeanAttention)
        assert gated.attention.gain == 2.0
        assert visualize.attention_layers(network)


def test_a_new_mechanism_in_a_recipe(mean, tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(
        '[model]\nname = "KANet"\nalpha = 0.01\n'
        'attention = {name = "mean", gain = 3.0}\n'
    )
    recipe = recipes.read(path)
    options = arguments(recipe.model)
    assert options.pop("name") == "KANet"
    model = kanets.KANet((32, 32, 3), **options)
    assert {m.gain for m in attentions_of(model)} == {3.0}
    path.write_text(recipes.to_toml(recipe))
    assert recipes.read(path) == recipe


@pytest.mark.parametrize(
    ("section", "fields"),
    [
        ("model", {"name": "KANet"}),
        ("segmenter", {"name": "KANetSegmenter"}),
        ("gan", {}),
    ],
)
def test_recipes_of_all_kinds(section, fields, tmp_path):
    written = {**HEADS, "scale": "none", "projections": "qv"}
    fields = {section: {**fields, "attention": written}}
    recipe = recipes.from_dict(fields)
    path = tmp_path / "recipe.toml"
    path.write_text(recipes.to_toml(recipe))
    assert recipes.read(path) == recipe
    found = arguments(getattr(recipe, section))["attention"]
    assert found == {**written, "scale": None}
    for wrong, hint in (
        ("kao_vk", "nearest: kao_kv"),
        ({**HEADS, "num_head": 4}, "nearest: num_heads"),
        ({"name": "kao_kv", "num_heads": 0}, "num_heads=0"),
    ):
        fields[section]["attention"] = wrong
        with pytest.raises(ValueError, match=hint):
            recipes.from_dict(fields)


def test_a_gate_around_any_mechanism():
    keras.utils.set_random_seed(0)
    model = ylg.gan.generator(
        32, 2, latent_size=4, attention="kao_qkv", num_heads=2
    )
    gated = model.get_layer("attention")
    assert gated.attention.num_heads == 2
    fill_weights(gated.attention.weights)
    z = random(2, 4)
    closed = to_numpy(model(z))
    gated.sigma.assign(5.0)
    assert np.abs(to_numpy(model(z)) - closed).max() > 1e-3

    inputs = keras.Input((3, 5, 4))
    layer = ylg.layers.GatedAttention(attention.make("kao_kv"))
    layer(inputs)
    layer.sigma.assign(0.5)
    x = random(2, 3, 5, 4)
    expected = x + 0.5 * to_numpy(layer.attention(x))
    np.testing.assert_allclose(to_numpy(layer(x)), expected, atol=1e-6)
    copy = keras.saving.deserialize_keras_object(
        json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    )
    copy(inputs)
    copy.set_weights(layer.get_weights())
    np.testing.assert_allclose(to_numpy(copy(x)), expected, atol=1e-6)


def test_arguments_of_a_block():
    """SAGAN's own two are blocks, with their maps spectrally normalised."""
    written = {"name": "ylg", "patterns": ["dense", "left_floor"]}
    model = ylg.gan.discriminator(32, 2, attention=written, num_heads=2)
    block = model.get_layer("attention")
    assert block.spectral_norm and block.num_heads == 2
    assert block.patterns == ["dense", "left_floor"]
    written = {"name": "dense", "pool_size": 1, "spectral_norm": False}
    model = ylg.gan.discriminator(32, 2, attention=written)
    block = model.get_layer("attention")
    assert isinstance(block, attention.NonLocalAttention2D)
    assert block.pool_size == 1 and not block.spectral_norm
    with pytest.raises(ValueError, match="Received: attention=<Identity"):
        ylg.gan.generator(32, 2, attention=keras.layers.Identity())
    with pytest.raises(ValueError, match="'projections': 'v'"):
        ylg.gan.discriminator(
            32, 2, attention={"name": "dense", "projections": "v"}
        )


def test_make():
    assert attention.make(None) is None
    layer = attention.make(HEADS, scale="rsqrt", dtype="bfloat16", name="mine")
    assert (layer.num_heads, layer.scale, layer.name) == (4, "rsqrt", "mine")
    assert layer.compute_dtype == "bfloat16" and layer.mode == "kv"
    layer = attention.make({**HEADS, "scale": 0.5, "mode": "qkv"}, scale=2.0)
    assert (layer.scale, layer.mode) == (0.5, "qkv")
    assert attention.make(layer) is layer


def factory(*, scale, dtype, name):
    return attention.DenseAttention(scale=scale, dtype=dtype, name=name)


def test_a_factory_is_told_what_a_name_would_be():
    module = layers.AttnModule(
        8, 2, attention=factory, attention_scale=0.3, dtype="mixed_bfloat16"
    )
    made = module.attention
    assert (made.scale, made.name) == (0.3, "attention")
    assert made.compute_dtype == "bfloat16"


@pytest.mark.parametrize(
    "make",
    [
        attention.KroneckerAttention,
        functools.partial(attention.KroneckerAttention, "kv"),
        lambda: attention.KroneckerAttention(),
        lambda **more: attention.KroneckerAttention(**more),
    ],
)
def test_other_callables_are_called_without_arguments(make):
    """As they were before there were factories."""
    made = attention.make(make, scale="rsqrt", name="mine")
    assert made.scale is None and made.name != "mine"


@pytest.mark.parametrize("kind", [layers.AttnModule, layers.AttnSkipModule])
def test_a_module_keeps_what_was_written(kind):
    module = kind(8, 2, attention={**HEADS, "use_bias": True})
    config = json.loads(json.dumps(module.get_config()))
    assert config["attention"] == {**HEADS, "use_bias": True}
    copy = kind.from_config(config)
    assert copy.attention.num_heads == 4 and copy.attention.scale == "rsqrt"
    assert copy.get_config() == module.get_config()


def test_a_backbone_of_another_attention_is_named():
    backbone = kanets.KANet((32, 32, 3), attention=HEADS, alpha=0.35)
    with pytest.raises(ValueError, match="'num_heads': 4}, not kao_kv"):
        kanets.KANetSegmenter(
            None, 0.35, backbone=backbone, backbone_attention="kao_kv"
        )


@pytest.mark.parametrize(
    ("identifier", "text"),
    [
        ("kao_vk", r"one of \[.*'dense'.*nearest: kao_kv.*attention='kao_vk'"),
        ({"name": "densse"}, "nearest: dense"),
        ({"num_heads": 2}, r"Received: attention=\{'num_heads': 2\}"),
        ({"name": ["dense"]}, "Received: attention="),
        (
            {"name": "dense", "pool": 2},
            r"arguments of attention 'dense' are .*nearest: pool_size",
        ),
        ({"name": "dense", "num_heads": True}, "num_heads=True"),
        (7, "callable that makes a Keras layer. Received: attention=7"),
    ],
)
def test_what_nothing_stands_for(identifier, text):
    for refuse in (attention.make, attention.check):
        with pytest.raises(ValueError, match=text):
            refuse(identifier)


def test_what_a_name_stands_for_counts_when_arguments_are_checked():
    given = {"name": "kao_rectified", "num_heads": 2, "key_dim": 8}
    attention.check(given)  # key_dim needs the maps that the name brings
    assert attention.make(given).key_dim == 8
    with pytest.raises(ValueError, match="key_dim is of layers with"):
        attention.check({**given, "projections": "v"})


def test_a_callable_is_not_called_to_check_it():
    attention.check(lambda: 1 / 0)
    with pytest.raises(ValueError, match="makes a Keras layer. Received"):
        attention.make(lambda: None)


def test_the_guide_has_a_section_for_each():
    guide = Path(__file__).parents[2] / "docs" / "attention.md"
    found = re.findall(r"^## (\w+)$", guide.read_text("utf-8"), re.MULTILINE)
    assert found == attention.names(), "run python docs/make_attention.py"
    for name in found:
        assert (guide.parent / "attention" / f"{name}.png").exists()
