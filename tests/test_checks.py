"""kanets.checks: integers, positive ones, and misspelt names."""

import numpy as np
import pytest

import kanets
import ylg
from kanets import checks


@pytest.mark.parametrize(
    ("value", "integer"),
    [
        (3, 3),
        (np.int64(3), 3),
        (np.uint8(3), 3),
        (-1, -1),
        (True, None),
        (np.True_, None),
        (3.0, None),
        (np.float32(3), None),
        ("3", None),
        (None, None),
        ((3,), None),
    ],
)
def test_what_is_an_integer(value, integer):
    found = checks.as_integer(value)
    assert found == integer and type(found) is type(integer)
    assert checks.is_positive(value) is (integer == 3)


def test_a_positive_integer():
    found = checks.positive_integer("count", np.int32(7))
    assert found == 7 and type(found) is int
    for name in ("count", "`count`"):
        for value in (0, -2, True, 1.0, "1", None):
            with pytest.raises(ValueError) as error:
                checks.positive_integer(name, value)
            assert str(error.value) == (
                f"{name} must be a positive integer. Received: count={value!r}"
            )


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: kanets.KANet((32, 32, 3), classes=True), "classes"),
        (lambda: kanets.KANetSegmenter((32, 32, 3), classes=True), "classes"),
        (lambda: kanets.create_model("x", num_classes=True), "num_classes"),
        (lambda: ylg.gan.generator(32, width=True), "width"),
        (lambda: ylg.gan.generator(32, latent_size=True), "latent_size"),
        (lambda: ylg.gan.discriminator(32, num_heads=True), "num_heads"),
        (
            lambda: ylg.invert(None, None, None, starts=True),
            "starts",
        ),
    ],
)
def test_a_bool_is_no_number_of_anything(call, name):
    message = f"^{name} must be a positive integer. Received: {name}=True$"
    with pytest.raises(ValueError, match=message):
        call()


def test_the_nearest_is_shown_or_nothing():
    assert checks.nearest("kao_vk", ["dense", "kao_kv"]) == " (nearest: kao_kv)"
    assert checks.nearest("zzz", ["dense", "kao_kv"]) == ""
    several = checks.nearest({"alpah": 1, "zzz": 2}, ["alpha", "dense"])
    assert several == " (nearest: alpha)"
