"""Names of packages: each stands for one thing."""

import importlib
import inspect
import pkgutil

import keras
import pytest

import kanets
import ylg

PACKAGES = [
    name
    for root in (kanets, ylg)
    for name in (
        root.__name__,
        *(
            found.name
            for found in pkgutil.walk_packages(
                root.__path__, f"{root.__name__}."
            )
            if found.ispkg
        ),
    )
]
FORMER = {
    "kanets.augment": "kanets.train.augment",
    "kanets.checkpoints": "kanets.train.checkpoints",
    "kanets.losses": "kanets.train.losses",
    "kanets.optimizers": "kanets.train.optimizers",
    "kanets.optimizers.layerwise": "kanets.train.optimizers",
    "kanets.recipes": "kanets.train.recipes",
    "kanets.recipes.fields": "kanets.train.recipes.fields",
    "kanets.recipes.finetune": "kanets.train.recipes.finetune",
    "ylg.layers.pattern_attention_2d": "kanets.attention.local_sparse",
    "ylg.layers.spectral_normalization": (
        "kanets.attention.spectral_normalization"
    ),
    "ylg.layers.superconcentrator_attention": (
        "kanets.attention.superconcentrator_attention"
    ),
    "ylg.ops.attention": "kanets.attention.sparse",
    "ylg.ops.pallas": "kanets.attention.kernels.pallas",
    "ylg.ops.reference": "kanets.attention.kernels.reference",
    "ylg.ops.scale": "kanets.attention.checks",
    "ylg.ops.softmax": "kanets.attention.core",
    "ylg.ops.xla": "kanets.attention.kernels.xla",
    "ylg.patterns": "kanets.attention.patterns",
    "ylg.superconcentrator": "kanets.attention.superconcentrator",
}
FUNCTIONS = {
    "kanets.nets.multiply_adds": "kanets.nets.counting",
    "ylg.gan.discriminator": "ylg.gan.discriminator_network",
    "ylg.gan.generator": "ylg.gan.generator_network",
}
# What can still be imported from where it once stood.
FORMER_HOMES = {
    "kanets.data.batches": "BadPicturesError Batches Steps",
    "kanets.data.folders": "TEST find_beside find_folder has_splits list_files "
    "validates_on_test warn_of_others",
    "kanets.data.label_maps": "FileLabelMaps fit_label_map read_label_map "
    "sample_nearest",
    "kanets.data.loading": "SAMPLE check_arguments check_validation "
    "unpack_sample",
    "kanets.export.bundle": "positive_int",
    "kanets.export.runtimes": "BLOCKED SUFFIXES find load main "
    "silence_openvino",
    "ylg.inversion": "INTERPOLATIONS resize_saliency saliency "
    "weighted_distance",
    "ylg.metrics.statistics": "GaussianStatistics KernelDistance "
    "frechet_distance inception_score kernel_distance precision_recall",
}


def test_no_package_hides_a_module_of_its_own():
    """`import package.module as m` gives what the package has by that name."""
    assert {"kanets", "kanets.nets", "ylg", "ylg.gan"} <= set(PACKAGES)
    hidden = []
    for name in PACKAGES:
        package = importlib.import_module(name)
        for module in pkgutil.iter_modules(package.__path__):
            value = getattr(package, module.name, None)
            if value is not None and not inspect.ismodule(value):
                hidden.append(f"{name}.{module.name}")
    assert not hidden


NAMES = {  # of modules that have the names of others
    "kanets.layers": ("DenseAttention", "KroneckerAttention"),
    "kanets.layers.grid_attention": ("DenseAttention", "KroneckerAttention"),
    "kanets.layers.inverted_residual": ("ATTENTIONS", "make_attention"),
    "kanets.ops": (
        *("IMPLEMENTATIONS", "attention", "axis_means", "dense_attention"),
        *("kao_kv", "kao_qkv", "outer_sum"),
    ),
    "ylg.information_flow": ("Digraph", "union_edges"),
    "ylg.layers": (
        *("LocalSparseAttention2D", "NonLocalAttention2D"),
        *("SpectralNormalization", "SuperconcentratorAttention"),
    ),
    "ylg.layers.initializers": ("fresh",),
    "ylg.ops": ("dense_weights", "pattern_attention"),
    "ylg.ops.scale": ("check_scale", "logit_scale"),
    "ylg.ops.softmax": ("HIDDEN", "masked_softmax", "scores"),
    "ylg.patterns": (
        *("ALIGNMENTS", "PATTERNS", "YLG_HEADS", "Pattern", "GroupPattern"),
        *("NeighbourPattern", "SummaryPattern", "dense", "esa_order"),
        *("left_floor", "left_repetitive", "make_patterns", "plot"),
        *("right_floor", "right_repetitive", "strided_repetitive"),
        *("strided_window", "ylg_heads"),
    ),
    "ylg.superconcentrator": ("Superconcentrator",),
}


@pytest.mark.parametrize("former", {**FORMER, **FUNCTIONS})
def test_former_modules_can_be_imported_from(former):
    module = importlib.import_module({**FORMER, **FUNCTIONS}[former])
    assert importlib.import_module(former) is module


@pytest.mark.parametrize("former", FUNCTIONS)
def test_a_function_has_the_name_of_a_former_module(former):
    package, _, name = former.rpartition(".")
    module = importlib.import_module(former)
    function = getattr(importlib.import_module(package), name)
    assert inspect.isfunction(function) and getattr(module, name) is function


@pytest.mark.parametrize("home", FORMER_HOMES)
def test_names_can_be_imported_from_former_homes(home):
    module = importlib.import_module(home)
    for name in FORMER_HOMES[home].split():
        assert getattr(module, name) is not None, name


@pytest.mark.parametrize("module", NAMES)
def test_names_are_where_they_were(module):
    found = importlib.import_module(module)
    assert not [name for name in NAMES[module] if not hasattr(found, name)]


def test_classes_are_registered_as_they_were():
    for name in ("KroneckerAttention", "DenseAttention"):
        kind = keras.saving.get_registered_object(f"kanets>{name}")
        assert kind is getattr(kanets.layers, name)
    for name in NAMES["ylg.layers"]:
        kind = keras.saving.get_registered_object(f"ylg>{name}")
        assert kind is getattr(ylg.layers, name)
