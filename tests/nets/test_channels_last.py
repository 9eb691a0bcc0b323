"""Nets have their channels last, whatever Keras's global format is."""

import keras
import numpy as np
import pytest

from kanets.nets import (
    EfficientNetLite,
    EfficientViT,
    KANet,
    KANetSegmenter,
    MobileNetV2,
    MobileNetV3Small,
    MobileNetV4,
    SHViT,
    ViT,
)
from kanets.train.augment import Augmentation
from tests.backends import BACKEND, to_numpy
from tests.layer_checks import fill_weights, random
from ylg.gan import discriminator, generator

SHAPE = (32, 36, 3)
NETS = {
    "kanet": lambda: KANet(SHAPE, 0.25, classes=5, attention="ylg"),
    "efficientnet_lite": lambda: EfficientNetLite(SHAPE, classes=5),
    "features": lambda: KANet(SHAPE, 0.25, include_top=False, pooling="avg"),
    "maxima": lambda: KANet(SHAPE, 0.25, include_top=False, pooling="max"),
    "segmenter": lambda: KANetSegmenter(SHAPE, 0.25, classes=5),
    "mobilenet_v2": lambda: MobileNetV2(SHAPE, 0.35, classes=5),
    "mobilenet_v3": lambda: MobileNetV3Small(SHAPE, 0.35, classes=5),
    "mobilenet_v4": lambda: MobileNetV4(SHAPE, classes=5),
    "hybrid": lambda: MobileNetV4(SHAPE, "hybrid_medium", classes=5),
    "efficientvit": lambda: EfficientViT(SHAPE, classes=5),
    "shvit": lambda: SHViT(SHAPE, classes=5),
    "vit": lambda: ViT(SHAPE, classes=5, patch_size=8, depth=1),
    "generator": lambda: generator(32, 4, 3, latent_size=8),
    "discriminator": lambda: discriminator(32, 4, 3),
}

# As the others: what all nets are made of keeps its channels last.
ALIKE = set(NETS) - {"kanet", "generator"}


@pytest.fixture
def global_format():
    before = keras.config.image_data_format()
    yield keras.config.set_image_data_format
    keras.config.set_image_data_format(before)


@pytest.mark.thorough
@pytest.mark.skipif(
    BACKEND == "jax", reason="how nets are built, alike on all backends"
)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[pytest.mark.slow] if n in ALIKE else [])
        for n in NETS
    ],
)
def test_a_global_format_builds_no_other_net(name, global_format):
    expected = NETS[name]()
    global_format("channels_first")
    found = NETS[name]()
    assert keras.config.image_data_format() == "channels_first"
    paths = [(v.path, v.shape) for v in expected.weights]
    assert [(v.path, v.shape) for v in found.weights] == paths
    for model in (expected, found):
        fill_weights(model.weights)
    x = [
        np.ones((2, *t.shape[1:]), t.dtype)
        if "int" in t.dtype
        else 100 * random(2, *t.shape[1:])
        for t in expected.inputs
    ]
    x = x[0] if len(x) == 1 else x
    np.testing.assert_array_equal(
        *(to_numpy(model(x, training=False)) for model in (expected, found))
    )


@pytest.mark.slow
def test_nor_another_augmentation(global_format):
    images, labels = 255 * np.abs(random(4, 9, 11, 3)), np.arange(4) % 3
    results = []
    for data_format in ("channels_last", "channels_first"):
        global_format(data_format)
        augmentation = Augmentation(
            3, (9, 11), crop=2, randaugment=2, mixup=0.4, cutmix=1.0
        )
        augmentation.reseed(1)
        results.append(to_numpy(augmentation(images, labels)[0]))
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize(
    "shape", [(3, 32, 32), (1, 28, 28), (3, None, 64), [3, 224, 224]]
)
@pytest.mark.parametrize("net", [KANet, KANetSegmenter, MobileNetV2])
def test_channels_first_by_mistake_are_refused(net, shape):
    text = r"The last axis .* channels, .* Received: input_shape=\([13], "
    with pytest.raises(ValueError, match=text):
        net(shape, 0.35)


@pytest.mark.parametrize(
    "shape",
    [
        (32, 32, 13),
        (3, 20, 3),
        *(
            pytest.param(shape, marks=pytest.mark.slow)
            for shape in ((32, 32, 1), (16, 16, 32), (1, 40, 12))
        ),
    ],
    ids=str,
)
def test_odd_channels_are_taken(shape):
    model = KANet(shape, 0.25, classes=2)
    assert model.input_shape == (None, *shape)
