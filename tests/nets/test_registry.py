"""The table of nets, and what else knows their names."""

import inspect
import sys

import pytest

import kanets
from kanets import nets, recipes, zoo
from kanets.nets import registry

names = pytest.mark.parametrize("name", registry.NETS)


@names
def test_a_net_is_found(name):
    net = registry.NETS[name]
    assert net.name == name and net.task in zoo.TASKS
    known = inspect.signature(net.builder).parameters
    for architecture, fields in net.architectures.items():
        assert set(fields["arguments"]) <= set(known)
        [found] = [a for a in zoo.ARCHITECTURES if a.name == architecture]
        assert (found.net, found.task) == (name, net.task)


def test_public_names_are_those_of_the_table():
    assert registry.NETS["KANet"].builder is kanets.KANet
    assert registry.builders("segmentation") == {
        "KANetSegmenter": kanets.KANetSegmenter
    }
    assert nets.CLASSIFIERS == {
        "KANet": kanets.KANet,
        "EfficientNetLite": kanets.EfficientNetLite,
        "ViT": kanets.ViT,
        "MobileNetV4": kanets.MobileNetV4,
        "EfficientViT": kanets.EfficientViT,
        "SHViT": kanets.SHViT,
        "MobileNetV2": nets.MobileNetV2,
        "MobileNetV3Small": nets.MobileNetV3Small,
    }
    assert [a.name for a in zoo.ARCHITECTURES] == [
        "kanet_kv",
        "kanet_qkv",
        "efficientnet_lite0",
        "efficientnet_lite1",
        "efficientnet_lite2",
        "vit_tiny",
        "vit_small",
        "mobilenetv4_conv_small",
        "mobilenetv4_conv_medium",
        "mobilenetv4_conv_large",
        "mobilenetv4_hybrid_medium",
        "mobilenetv4_hybrid_large",
        *(f"efficientvit_b{n}" for n in range(4)),
        *(f"shvit_s{n}" for n in range(1, 5)),
        "kanet_segmenter_qkv",
    ]


def test_what_a_recipe_may_name_is_its_own(monkeypatch):
    assert recipes.NETS == nets.CLASSIFIERS
    monkeypatch.setitem(recipes.NETS, "tiny", lambda **arguments: None)
    assert "tiny" not in {*nets.CLASSIFIERS, *registry.NETS}
    recipe = recipes.from_dict({"model": {"name": "tiny"}})
    assert recipe.model == {"name": "tiny"}


def test_sides_are_those_of_the_nets():
    """The registry imports no net; what a variant knows, it must say, too."""
    checked = 0
    for net in registry.NETS.values():
        variants = getattr(sys.modules[net.builder.__module__], "VARIANTS", {})
        for fields in net.architectures.values():
            known = variants.get(fields["arguments"].get("variant"))
            side = known[-1] if type(known) is tuple else None
            side = getattr(known, "side", side)
            if side is not None:
                assert fields["input_shape"][0] == side
                checked += 1
    assert checked > 10
