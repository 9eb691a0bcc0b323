"""timm's files, with its names, into our nets: the logits are timm's."""

import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

import kanets
from tests import timm_files
from tests.backends import to_numpy

GOLDEN = Path(__file__).parents[1] / "golden"
LITES = np.load(GOLDEN / "timm_lites.npz")
LAST = (0, 2, 4, 7, 10, 14, 15)  # the last block of each stage
LAST_OF_LITE1 = (0, 3, 6, 10, 14, 19, 20)
LOGITS = {"include_preprocessing": False, "classifier_activation": None}


def write(folder, variant):
    return timm_files.write(
        folder,
        LITES[f"{variant}/names"],
        LITES[f"{variant}/shapes"],
        GOLDEN / "timm_lite0_config.json",
    )


def inputs_of(variant, size):
    return timm_files.inputs(f"tf_efficientnet_{variant}", size)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write(tmp_path_factory.mktemp("timm") / "lite0", "lite0")


@pytest.fixture(scope="module")
def model(file):
    """With timm's scale of pixels, for any size; not to be changed."""
    return kanets.create_model(
        "efficientnet_lite0",
        weights=file,
        input_shape=(None, None, 3),
        classifier_activation=None,
    )


def stages(model, variant):
    """The model to the means of each stage's maps, and its logits."""
    ends, last = [], {"lite0": LAST, "lite1": LAST_OF_LITE1}[variant]
    names = {layer.name for layer in model.layers}
    for block in last:
        add = f"block_{block}_add"
        name = add if add in names else f"block_{block}_project_norm"
        ends.append(model.get_layer(name).output)
    means = [keras.ops.mean(x, (1, 2)) for x in ends]
    return keras.Model(model.input, [*means, model.output])


def assert_timms(model, variant, size, inputs):
    outputs = [to_numpy(x) for x in stages(model, variant)(inputs)]
    key = f"{variant}/{size[0]}x{size[1]}"
    for stage, output in enumerate(outputs[:-1]):
        wanted = LITES[f"{key}/stage{stage}_mean"]
        np.testing.assert_allclose(output, wanted, atol=2e-5, err_msg=stage)
    np.testing.assert_allclose(outputs[-1], LITES[f"{key}/logits"], atol=1e-5)


@pytest.mark.parametrize("size", [(64, 96), (97, 65)])
def test_maps_and_logits_of_pixels_are_timms(model, size):
    pixels = 127.5 * inputs_of("lite0", size) + 127.5  # mean and std are 0.5
    assert_timms(model, "lite0", size, pixels)


@pytest.mark.thorough
def test_scaled_pictures_and_the_report(file, capsys):
    model = kanets.create_model(
        "efficientnet_lite0", weights=file, input_shape=(64, 96, 3), **LOGITS
    )
    inputs = inputs_of("lite0", (64, 96))
    assert_timms(model, "lite0", (64, 96), inputs)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        f"{file}: 247 tensors filled 99 layers; ignored 49 "
        "num_batches_tracked; pictures: mean [0.5, 0.5, 0.5], std [0.5, 0.5, "
        "0.5], 224x224, bicubic, the centre 87.5% of the side; licence: "
        "apache-2.0\n"
    )


@pytest.mark.thorough  # lite0 above is quicker
def test_the_deeper_lite(tmp_path):
    model = kanets.create_model(
        "efficientnet_lite1",
        weights=write(tmp_path / "lite1", "lite1"),
        input_shape=(64, 96, 3),
        **LOGITS,
    )
    inputs = inputs_of("lite1", (64, 96))
    assert_timms(model, "lite1", (64, 96), inputs)


@pytest.mark.thorough
def test_from_the_hub_with_a_new_head(hub, file, model, capsys):
    shutil.copytree(file.parent, hub.root / "timm" / "lite0.in1k")
    new = kanets.create_model(
        "efficientnet_lite0", weights="hf://timm/lite0.in1k", num_classes=3
    )
    assert new.input_shape == (None, 224, 224, 3) and new.output_shape[1] == 3
    assert "; as built: fc; " in capsys.readouterr().err
    for layer in ("stem", "block_15_project_norm", "head"):
        for ours, theirs in zip(
            new.get_layer(layer).get_weights(),
            model.get_layer(layer).get_weights(),
            strict=True,
        ):
            np.testing.assert_array_equal(ours, theirs)
    norm = new.get_layer("stem_norm")
    assert norm.momentum == 0.9


@pytest.mark.thorough
def test_another_variant_is_refused(file):
    with pytest.raises(
        ValueError, match="lite0.*'efficientnet_lite1', missing"
    ):
        kanets.create_model("efficientnet_lite1", weights=file)


@pytest.mark.thorough
def test_a_saved_one_keeps_the_scale_of_its_pixels(model, tmp_path):
    model.save(tmp_path / "lite0.keras")
    body = kanets.create_model(
        "efficientnet_lite0",
        weights=tmp_path / "lite0.keras",
        include_top=False,
    )
    scale = body.get_layer("preprocessing")
    assert (scale.scale, scale.offset) == pytest.approx((1 / 127.5, -1))
    ours = body.get_layer("head").get_weights()
    theirs = model.get_layer("head").get_weights()
    np.testing.assert_array_equal(ours[0], theirs[0])
