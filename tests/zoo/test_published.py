"""The table of published weights, and how it is shown."""

import json
from pathlib import Path

import numpy as np
import pytest

from kanets import cli, zoo
from kanets.nets.registry import NETS

GOLDEN = Path(__file__).parents[1] / "golden" / "timm_compact.npz"


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("the Hub was asked")

    monkeypatch.setattr("kanets.zoo.sources.snapshot", refuse)
    monkeypatch.setattr("socket.socket.connect", refuse)


def test_every_net_with_timms_names_has_weights():
    found = zoo.list_hub()
    expected = [a.name for a in zoo.ARCHITECTURES if NETS[a.net].timm]
    assert sorted({w.net for w in found}) == sorted(expected)
    assert len({w.weights for w in found}) == len(found) == 34
    sides = {a.name: a.input_shape[0] for a in zoo.ARCHITECTURES}
    for net in expected:
        assert sides[net] in [w.side for w in found if w.net == net]


def test_parameters_are_those_of_the_nets():
    with np.load(GOLDEN) as file:
        for weights in zoo.list_hub("[ems][foh][bfv]*"):
            if (key := f"{weights.net}/parameters") in file:
                assert round(file[key] / 1e6, 2) == weights.parameters


@pytest.mark.parametrize(
    ("pattern", "figures"),
    [
        ("shvit_s4", {("hf://timm/shvit_s4.in1k", 256, 79.362, "mit")}),
        (
            "*tf_efficientnet_lite0*",
            {("hf://timm/tf_efficientnet_lite0.in1k", 224, 74.846, None)},
        ),
        (
            "vit_tiny",
            {
                (
                    "hf://timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k",
                    224,
                    75.452,
                    None,
                )
            },
        ),
    ],
)
def test_figures_are_as_published(pattern, figures):
    figures = {(*f[:3], f[3] or "apache-2.0") for f in figures}
    found = zoo.list_hub(pattern)
    assert {(w.weights, w.side, w.top1, w.licence) for w in found} == figures


def test_the_command(capsys):
    assert cli.main(["list", "mobilenetv4_conv_s*", "--hub"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == (
        "weights net pictures top-1 parameters licence".split()
    )
    assert len(lines) == 4
    assert " ".join(lines[2].split()) == (
        "hf://timm/mobilenetv4_conv_small.e2400_r224_in1k "
        "mobilenetv4_conv_small 224x224 73.8 % 3.77 M apache-2.0"
    )
    assert cli.main(["list", "shvit_s1", "--hub", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {
            "weights": "hf://timm/shvit_s1.in1k",
            "net": "shvit_s1",
            "side": 224,
            "top1": 72.78,
            "parameters": 6.33,
            "licence": "mit",
        }
    ]
    assert cli.main(["list", "--hub", "--task", "generation"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert cli.main(["list", "--hub", "--task", "generating"]) == 1
    assert "classification" in capsys.readouterr().err
