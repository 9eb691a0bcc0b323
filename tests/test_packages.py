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
