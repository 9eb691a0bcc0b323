"""Windows and neighbourhoods: the golden arrays, loops, and what they share."""

import itertools
from pathlib import Path

import keras
import numpy as np
import pytest

from kanets import attention
from kanets.attention import local_tiles
from kanets.attention.neighborhood import neighborhood_axes
from kanets.attention.windows import window_axes
from tests.attention.golden_local import MAPS, name_of
from tests.attention.references import cases, from_golden
from tests.backends import BACKEND, compiled, dot, gradient, to_numpy
from tests.layer_checks import random

GOLDEN = Path(__file__).parent.parent / "golden"
ALL = {
    f"{file} {case}": (file, case, arrays)
    for file in MAPS
    for case, arrays in cases(GOLDEN / f"{file}.npz").items()
}
NUMBERS = [name for name, case in ALL.items() if "output" in case[2]]
INPUTS = {
    *("query", "key", "value", "input", "hidden_states", "extra_key"),
    *("extra_value", "additional_key", "additional_value"),
}


def golden(name):
    """A case: inputs, masks, all arrays, layer, call, tolerances."""
    file, case, arrays = ALL[name]
    if BACKEND != "tensorflow":  # Keras has no float64 there by itself
        arrays = {
            k: a.astype("float32") if a.dtype == "float64" else a
            for k, a in arrays.items()
        }
    layer, call = from_golden(f"{file}.npz", case, arrays)
    given = {k: arrays[k] for k in arrays if k in INPUTS}
    masks = {k: arrays[k] for k in ("mask", "global") if k in arrays}
    wide = arrays["output"].dtype == "float64"
    close = {"atol": 1e-12} if wide else {"atol": 1e-5, "rtol": 1e-5}
    return given, masks, arrays, layer, call, close


@pytest.mark.parametrize("name", NUMBERS)
def test_equals_other_code(name):
    """Outputs, and gradients for inputs and weights."""
    given, masks, arrays, layer, call, close = golden(name)
    found = to_numpy(call(**given, **masks))
    np.testing.assert_allclose(found, arrays["output"], **close)
    expected = {key: arrays[f"grad_{key}"] for key in given}
    weights = [] if layer is None else layer.weights
    if weights:
        maps = MAPS[ALL[name][0]](arrays, "grad_")
        assert len(maps) == len(weights)
        expected |= {name_of(w): maps[name_of(w)] for w in weights}

    def loss(*tensors):
        inputs, values = tensors[: len(given)], tensors[len(given) :]
        pairs = list(zip(weights, values, strict=True))
        with keras.StatelessScope(pairs):
            found = call(**dict(zip(given, inputs, strict=True)), **masks)
        return dot(found, arrays["cotangent"])

    found = gradient(loss, *given.values(), *map(to_numpy, weights))
    for values, (key, array) in zip(found, expected.items(), strict=True):
        np.testing.assert_allclose(values, array, err_msg=key, **close)


@pytest.mark.parametrize(
    "name", [name for name in NUMBERS if "attention" in ALL[name][2]]
)
def test_weights_equal_other_code(name):
    given, masks, arrays, _, call, close = golden(name)
    output, weights = call(**given, **masks, return_attention_scores=True)
    np.testing.assert_allclose(to_numpy(output), arrays["output"], **close)
    queries = weights.shape[2]  # extra tokens stand before the cells
    expected = arrays["attention"][:, :, -queries:]
    np.testing.assert_allclose(to_numpy(weights), expected, **close)


def test_masks_equal_natten_bit_for_bit():
    tested = 0
    for file, _, arrays in ALL.values():
        if file != "natten" or "mask__packed" not in arrays:
            continue
        shape = arrays["mask__shape"]
        bits = np.unpackbits(arrays["mask__packed"], count=shape.prod())
        found = attention.neighborhood_mask(
            arrays["grid"],
            arrays["kernel_size"],
            arrays["dilation"],
            arrays["stride"],
            arrays["is_causal"].astype(bool),
        )
        np.testing.assert_array_equal(found, bits.reshape(shape))
        tested += 1
    assert tested == 16


def window_by_loop(query, size, window, dilation, causal):
    """The positions that one query of an axis sees."""
    half = window // 2
    steps = range(-half, 1 if causal else half + 1)
    seen = [query + step * dilation for step in steps]
    return [key for key in seen if 0 <= key < size]


def neighborhood_by_loop(query, size, kernel, dilation, stride, causal):
    group = [key for key in range(size) if (key - query) % dilation == 0]
    number = group.index(query)
    first = number - number % stride
    if causal:
        centre = min(first + stride - 1, len(group) - 1)
        return group[max(0, centre - kernel + 1) : number + 1]
    centre = min(first + stride // 2, len(group) - 1)
    kernel = min(kernel, len(group))  # clipped
    while centre - kernel // 2 < 0:
        centre += 1
    while centre - kernel // 2 + kernel > len(group):
        centre -= 1
    return group[centre - kernel // 2 :][:kernel]


def rules():
    """Axes, and loops that say the same, of all sorts."""
    for window, dilation, causal in itertools.product(
        (1, 3, 7), (1, 2, 4), (False, True)
    ):
        rule = (window, dilation, causal)
        yield window_axes(1, *rule)[0][0], window_by_loop, rule
    for kernel, dilation, stride, causal in itertools.product(
        (1, 2, 3, 5, 8), (1, 2, 3), (1, 2, 3), (False, True)
    ):
        rule = (kernel, dilation, stride, causal)
        if causal and stride > kernel:
            continue  # refused
        axis = neighborhood_axes(1, *rule, True)[0]
        yield axis, neighborhood_by_loop, rule


def pairs_of(axes, grid, extras=0):
    """The pairs that tiles see, each once: bool (n, X + n)."""
    tiles = local_tiles.tiles_of(axes, grid, extras)
    queries, keys, visible, home = map(to_numpy, tiles)
    cells = np.prod(grid)
    found = np.zeros((cells, extras + cells), int)
    for cell in range(cells):
        tile, slot = divmod(home[cell], queries.shape[1])
        assert queries[tile, slot] == cell
        np.add.at(found[cell], keys[tile], visible[tile, slot])
    assert found.max() == 1
    return found.astype(bool)


def test_every_rule_on_every_size():
    """What tiles of any side see along an axis is what the loop does."""
    draw = np.random.default_rng(0)
    for axis, loop, rule in rules():
        for size in {1, 2, 5, 13, int(draw.integers(3, 30))}:
            expected = np.zeros((size, size), bool)
            for query in range(size):
                expected[query, loop(query, size, *rule)] = True
            found = local_tiles.seen_along(axis, size)
            np.testing.assert_array_equal(found, expected, str((rule, size)))
            found = pairs_of((axis,), (size,))
            np.testing.assert_array_equal(found, expected, str((rule, size)))


def test_tiles_of_other_sides(monkeypatch):
    draw = np.random.default_rng(0)
    for axis, _, rule in rules():
        side, size = draw.integers(1, 9), int(draw.integers(1, 30))
        monkeypatch.setattr(local_tiles, "_sides", lambda *_, s=side: (s,))
        expected = local_tiles.seen_along(axis, size)
        found = pairs_of((axis,), (size,))
        np.testing.assert_array_equal(found, expected, str((rule, size, side)))


@pytest.mark.parametrize("grid", [(1, 1), (5, 8), (3, 4, 7)], ids=str)
def test_axes_are_independent(grid):
    axes = neighborhood_axes(
        len(grid), (3, 3, 5)[: len(grid)], 1, 1, False, True
    )
    expected = np.zeros((*grid, *grid), bool)
    for query in np.ndindex(*grid):
        seen = [
            neighborhood_by_loop(q, size, axis.kernel_size, 1, 1, False)
            for q, size, axis in zip(query, grid, axes, strict=True)
        ]
        for key in itertools.product(*seen):
            expected[(*query, *key)] = True
    expected = expected.reshape(np.prod(grid), -1)
    np.testing.assert_array_equal(pairs_of(axes, grid), expected)
    found = local_tiles.visible_pairs(axes, grid)
    np.testing.assert_array_equal(found, expected)
    found = pairs_of(axes, grid, extras=2)
    assert found[:, :2].all()
    np.testing.assert_array_equal(found[:, 2:], expected)


def attend_by_loop(query, key, value, pairs, mask, extra_key, extra_value):
    """Softmax over what each query sees, cell by cell, in float64."""
    batch, *grid, heads, size = query.shape
    flat = [
        x.reshape(batch, -1, heads, x.shape[-1]).astype("float64")
        for x in (query, key, value)
    ]
    query, key, value = flat
    mask = mask.reshape(batch, -1)
    output = np.zeros_like(value)
    for item, cell, head in np.ndindex(output.shape[:3]):
        if not mask[item, cell]:
            continue
        seen = pairs[head % len(pairs)][cell] & mask[item]
        keys = np.concatenate([extra_key[item, :, head], key[item, seen, head]])
        values = np.concatenate(
            [extra_value[item, :, head], value[item, seen, head]]
        )
        weights = np.exp(keys @ query[item, cell, head] / size**0.5)
        output[item, cell, head] = weights / weights.sum() @ values
    return output.reshape(batch, *grid, heads, -1)


OPERATORS = {
    "window by head": (
        attention.window_attention,
        (13,),
        {"window_size": 5, "dilation": [[1], [3]], "causal": False},
    ),
    "window on video": (
        attention.window_attention,
        (2, 3, 5),
        {
            "window_size": (1, 3, 3),
            "dilation": 1,
            "causal": (True, False, True),
        },
    ),
    "neighborhood": (
        attention.neighborhood_attention,
        (7, 9),
        {
            "kernel_size": (5, 3),
            "dilation": (1, 2),
            "stride": (2, 1),
            "causal": (False, True),
        },
    ),
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", OPERATORS)
def test_operators_equal_loops(name):
    """In tiles and dense, and so do gradients, with a mask and extra keys."""
    operator, grid, rule = OPERATORS[name]
    query, key = (random(2, *grid, 2, 4, seed=i) for i in range(2))
    value, mask = random(2, *grid, 2, 3, seed=2), random(2, *grid, seed=3) < 1
    extra_key, extra_value = random(2, 3, 2, 4), random(2, 3, 2, 3)
    given = (query, key, value, extra_key, extra_value)
    if "window_size" in rule:
        axes = window_axes(len(grid), **rule)
    else:
        axes = [neighborhood_axes(len(grid), **rule, clip=False)]
    pairs = [local_tiles.visible_pairs(a, grid) for a in axes]
    expected = attend_by_loop(
        query, key, value, pairs, mask, extra_key, extra_value
    )

    def call(query, key, value, extra_key, extra_value, implementation="auto"):
        return operator(
            query,
            key,
            value,
            mask=mask,
            extra_key=extra_key,
            extra_value=extra_value,
            implementation=implementation,
            **rule,
        )

    cotangent, gradients = random(*expected.shape, seed=4), []
    for implementation in ("auto", "reference"):
        found = call(*given, implementation)
        np.testing.assert_allclose(to_numpy(found), expected, atol=1e-5)
        gradients.append(
            gradient(
                lambda *x, how=implementation: dot(call(*x, how), cotangent),
                *given,
            )
        )
    for tiled, dense in zip(*gradients, strict=True):
        assert np.abs(dense).max() > 1e-2
        np.testing.assert_allclose(tiled, dense, atol=1e-5)
    if name == "neighborhood":
        found = compiled(call)(*given)
        np.testing.assert_allclose(to_numpy(found), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("window by head", {"key": (2, 3, 2, 4)}),
        ("window by head", {"value": (2, 3, 2, 3)}),
        ("window by head", {"mask": (2, 3)}),
        ("window by head", {"key": (1, 3, 2, 4), "value": (1, 3, 2, 3)}),
        ("neighborhood", {"key": (2, 3, 1, 4), "value": (2, 3, 1, 3)}),
        ("neighborhood", {"key": (2, 3, 2, 4), "value": (2, 4, 2, 3)}),
        ("neighborhood", {"key": (2, 3, 2, 4)}),
        ("neighborhood", {"value": (2, 3, 2, 3)}),
    ],
)
def test_extra_keys_that_do_not_fit(name, extra):
    operator, grid, rule = OPERATORS[name]
    x, value = random(2, *grid, 2, 4), random(2, *grid, 2, 3)
    given = {f"extra_{part}": random(*shape) for part, shape in extra.items()}
    with pytest.raises(ValueError, match="extra_key and.*Received: extra_key="):
        operator(x, x, value, **given, **rule)


def test_a_causal_stride_beyond_the_kernel_is_refused():
    """Some queries would see nothing, and so whatever a softmax makes of it."""
    options = {"kernel_size": 3, "stride": 5, "causal": True}
    layer = attention.make({"name": "neighborhood", **options})
    with pytest.raises(ValueError, match="stride=5, kernel_size=3"):
        layer(random(1, 12, 12, 4))


@pytest.mark.parametrize("scores", [False, True])
def test_a_query_that_sees_padding_alone_gives_zeros(scores):
    """A stride beyond the kernel, so that a cell does not see itself."""
    x = random(1, 9, 1, 4)
    mask = np.ones((1, 9), bool)
    mask[0, 2] = False
    other = x.copy()
    other[0, 2] = 1e3

    def look(x):
        return attention.neighborhood_attention(
            *(x, x, x, 1),
            stride=4,
            clip=True,
            mask=mask,
            return_attention_scores=scores,
        )

    found, expected = look(other), look(x)
    if scores:
        found, expected = found[0], expected[0]
    found = to_numpy(found)
    assert np.abs(found).max() < 10 and (found[0, :2] == 0).all()
    np.testing.assert_array_equal(found, to_numpy(expected))
