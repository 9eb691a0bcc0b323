"""Names of packages: each stands for one thing."""

import importlib
import inspect
import pkgutil

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


@pytest.mark.parametrize("former", FORMER)
def test_former_modules_can_be_imported_from(former):
    package, _, name = former.rpartition(".")
    module = importlib.import_module(FORMER[former])
    assert importlib.import_module(former) is module
    function = getattr(importlib.import_module(package), name)
    assert inspect.isfunction(function) and getattr(module, name) is function


@pytest.mark.parametrize("home", FORMER_HOMES)
def test_names_can_be_imported_from_former_homes(home):
    module = importlib.import_module(home)
    for name in FORMER_HOMES[home].split():
        assert getattr(module, name) is not None, name
