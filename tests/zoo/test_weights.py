"""`create_model(weights=...)` with weights of our own."""

import keras
import numpy as np
import pytest

import kanets
from kanets.nets.registry import NETS, Net
from tests.backends import to_numpy
from tests.zoo.common import NAMES, make_entry, make_plain, predict

OTHERS = tuple(f"other {i}" for i in range(3))


def build(input_shape, classes, width=4, include_top=True):
    """The cheapest net with a head; `nets.registry` finds it here."""
    inputs = keras.Input(input_shape)
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(width, 3, name="stem")(x)
    x = keras.layers.BatchNormalization(name="stem_norm")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    if include_top:
        x = keras.layers.Dense(classes, name="predictions")(x)
    return keras.Model(inputs, x, name="net")


@pytest.fixture
def entry(directory, monkeypatch):
    """An entry of that net."""
    net = Net("net", f"{__name__}:build", "classification", "a net")
    monkeypatch.setitem(NETS, "net", net)
    folder = directory / "net_x"
    kanets.save_model(build((16, 16, 3), 3), folder, NAMES)
    return make_entry(folder, net="net", arguments={"width": 4})


@pytest.fixture(scope="module")
def other():
    """A net as the entry's, with other weights. Not to be changed."""
    return build((16, 16, 3), 3)


@pytest.fixture(params=["folder", ".keras", ".weights.h5"])
def source(request, other, tmp_path):
    path = tmp_path / f"model{request.param}"
    if request.param == "folder":
        return kanets.save_model(other, path, OTHERS)
    save = other.save if request.param == ".keras" else other.save_weights
    save(path)
    return path


def test_an_entry_with_other_weights(entry, other, source, capsys):
    model = kanets.create_model("net_x", weights=source)
    np.testing.assert_allclose(predict(model), predict(other), atol=1e-6)
    labels = OTHERS if source.is_dir() else None
    assert getattr(model, "class_names", None) == labels
    error = capsys.readouterr().err
    assert error == f"{source}: 8 tensors filled 3 layers\n"


def test_other_weights_with_a_new_head(entry, other, source, capsys):
    model = kanets.create_model(
        "net_x", weights=source, num_classes=5, input_shape=(24, 20, 3)
    )
    assert model.output_shape == (None, 5)
    assert model.input_shape == (None, 24, 20, 3)
    assert getattr(model, "class_names", None) is None
    for layer in ("stem", "stem_norm"):
        new, wanted = (m.get_layer(layer).weights for m in (model, other))
        for value, expected in zip(new, wanted, strict=True):
            np.testing.assert_array_equal(to_numpy(value), to_numpy(expected))
    assert model.get_layer("stem_norm").momentum == 0.9
    assert "as built: predictions" in capsys.readouterr().err
    same = kanets.create_model("net_x", weights=source, num_classes=3)
    np.testing.assert_allclose(predict(same), predict(other), atol=1e-6)


def test_weights_that_do_not_fit(entry, source):
    with pytest.raises(ValueError, match=f"Received: .*{source.name}"):
        kanets.create_model("net_x", weights=source, width=5)


# A .weights.h5 file is of a whole net, as it was built.
@pytest.mark.parametrize("source", ["folder", ".keras"], indirect=True)
def test_without_the_top(entry, other, source):
    body = kanets.create_model("net_x", weights=source, include_top=False)
    wanted = keras.Model(other.input, other.get_layer("pool").output)
    np.testing.assert_allclose(predict(body), predict(wanted), atol=1e-6)
    assert getattr(body, "class_names", None) is None


def test_weights_are_for_a_net_by_name(entry, tmp_path):
    with pytest.raises(ValueError, match="pretrained=False for 'net_x'"):
        kanets.create_model("net_x", pretrained=False, weights="net_x")
    plain = kanets.save_model(make_plain(), tmp_path / "plain", NAMES)
    with pytest.raises(ValueError, match="an architecture or an entry"):
        kanets.create_model(plain, weights="net_x")
    with pytest.raises(ValueError, match="No such model folder"):
        kanets.create_model("net_x", weights="none_of_that_name")


def test_an_architecture_says_that_weights_fill_it():
    with pytest.raises(ValueError, match=r"weights=\.\.\. fills it"):
        kanets.create_model("kanet_kv")


@pytest.mark.parametrize(
    "overrides, text",
    [
        ({"variant": "lite9"}, r"one of \['lite0'.* Received: variant='lite9'"),
        ({"widht": 3}, r"arguments of EfficientNetLite.*Received: \['widht'\]"),
    ],
)
def test_overrides_are_checked_before_weights_are_sought(
    overrides, text, monkeypatch
):
    monkeypatch.setattr("kanets.zoo.creating.find_weights", None)
    with pytest.raises(ValueError, match=text):
        kanets.create_model(
            "efficientnet_lite0", weights="hf://a/b", **overrides
        )
