"""Patterns, against the official masks and their definitions."""

import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest

from ylg import patterns
from ylg.layers import LocalSparseAttention2D
from ylg.patterns import (
    PATTERNS,
    GroupPattern,
    NeighbourPattern,
    SummaryPattern,
    make_patterns,
    ylg_heads,
)

GOLDEN = np.load(Path(__file__).parent.parent / "golden" / "ylg_masks.npz")
OFFICIAL = {
    "LeftFloorMask": patterns.left_floor,
    "RightFloorMask": patterns.right_floor,
    "LeftRepetitiveMask": patterns.left_repetitive,
    "RightRepetitiveMask": patterns.right_repetitive,
    "StridedMask1": patterns.strided_window,
    "StridedMask2": patterns.strided_repetitive,
}
MASKS = sorted(
    name.removesuffix("__packed")
    for name in GOLDEN.files
    if name.endswith("__packed")
)
SHAPES = (1, 2, 7, 20, 23, (1, 1), (1, 6), (5, 3), (4, 4), (6, 10), (7, 7))


def official(name):
    shape = GOLDEN[f"{name}__shape"]
    bits = np.unpackbits(GOLDEN[f"{name}__packed"])[: np.prod(shape)]
    return bits.reshape(shape).astype(bool)


def sides(text):
    return tuple(int(side) for side in text.split("x"))


@pytest.mark.parametrize("name", MASKS)
def test_equal_to_the_official_masks(name):
    kind, *rest = name.split("_")
    expected = official(name)
    if kind == "grid8":
        queries, keys = (sides(part[1:]) for part in rest)
        heads = ylg_heads(queries, keys, official=True)
        actual = np.stack([pattern.mask() for pattern in heads])
        edges = sum(pattern.num_edges for pattern in heads)
    else:
        size = int(rest[1]) if kind == "oned" else sides(rest[1])
        options = {"partial_block": False} if "Repetitive" in rest[0] else {}
        pattern = OFFICIAL[rest[0]](size, **options)
        actual, edges = pattern.mask(), pattern.num_edges
    np.testing.assert_array_equal(actual, expected)
    assert edges == GOLDEN[f"{name}__count"]


@pytest.mark.parametrize("side", (8, 16, 32))
def test_esa_order_is_the_official_one(side):
    rows, columns = GOLDEN[f"esa_{side}x{side}"].T
    order = patterns.esa_order((side, side))
    np.testing.assert_array_equal(order, rows * side + columns)


def test_esa_order_by_hand():
    # 0 1 2    Manhattan distances 0 1 2
    # 3 4 5                        1 2 3
    expected = [0, 1, 3, 2, 4, 5]
    np.testing.assert_array_equal(patterns.esa_order((2, 3)), expected)
    np.testing.assert_array_equal(patterns.esa_order(4), [0, 1, 2, 3])


RULES = {
    "dense": lambda i, j, s, n: True,
    "left_floor": lambda i, j, s, n: i // s == j // s and j <= i,
    "right_floor": lambda i, j, s, n: i // s == j // s and j >= i,
    "left_repetitive": lambda i, j, s, n: i == j or j % s == s - 1,
    "right_repetitive": lambda i, j, s, n: (
        i == j or (j % s == 0 and j + s <= n)
    ),
    "strided_window": lambda i, j, s, n: 0 <= i - j < s,
    "strided_repetitive": lambda i, j, s, n: (i - j) % s == 0,
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", PATTERNS)
def test_definition(name, shape):
    """The rule of each pattern on ESA ranks, cell by cell."""
    (pattern,) = make_patterns([name], shape, official=True)
    order = patterns.esa_order(shape)
    n = len(order)
    stride = int(n**0.5)
    mask = pattern.mask()
    assert mask.shape == (n, n)
    for i in range(n):
        for j in range(n):
            expected = RULES[name](i, j, stride, n)
            assert mask[order[i], order[j]] == expected, (i, j)


def test_stride_and_overlap():
    mask = patterns.left_repetitive(12, stride=4, overlap=2).mask()
    summaries = np.flatnonzero(mask.all(axis=0))
    np.testing.assert_array_equal(summaries, [2, 3, 6, 7, 10, 11])
    mask = patterns.right_repetitive(12, stride=4, overlap=2).mask()
    summaries = np.flatnonzero(mask.all(axis=0))
    np.testing.assert_array_equal(summaries, [0, 1, 4, 5, 8, 9])
    mask = patterns.left_floor(12, stride=4).mask()
    np.testing.assert_array_equal(mask.sum(axis=1), [1, 2, 3, 4] * 3)


def test_summaries_of_an_incomplete_block():
    """n = 11, stride 3: blocks 012 345 678 and the incomplete 9 10."""
    for make, without, added in (
        (patterns.left_repetitive, [2, 5, 8], 10),
        (patterns.right_repetitive, [0, 3, 6], 9),
    ):
        official = make(11, partial_block=False).summary
        np.testing.assert_array_equal(official, without)
        repaired = make(11, partial_block=True).summary
        np.testing.assert_array_equal(repaired, [*without, added])


def test_tiled_queries_repeat_the_key_grid():
    fine = patterns.left_floor((6, 4), (3, 2), alignment="tiled").mask()
    square = patterns.left_floor((3, 2)).mask()
    np.testing.assert_array_equal(fine, np.tile(square, (4, 1)))


@pytest.mark.parametrize("name", PATTERNS)
def test_spatial_queries_look_where_their_key_cell_does(name):
    make = PATTERNS[name]
    fine = make((6, 4), (3, 2), alignment="spatial").mask()
    square = make((3, 2)).mask().reshape(3, 2, 6)
    expected = square.repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(fine.reshape(6, 4, 6), expected)


def test_where_queries_of_the_official_model_look():
    """What docs/ylg.md says of "tiled" against "spatial"."""
    i, j = np.divmod(np.arange(32 * 32), 32)
    own_cell = i // 2 * 16 + j // 2
    found = {}
    for alignment in patterns.ALIGNMENTS:
        local = patterns.left_floor((32, 32), (16, 16), alignment=alignment)
        keys = local.neighbours
        seen = keys >= 0
        rows, columns = np.divmod(keys, 16)  # centres at 2 k + 1/2
        distance = abs(2 * rows + 0.5 - i[:, None])
        distance += abs(2 * columns + 0.5 - j[:, None])
        sees_itself = np.any(keys == own_cell[:, None], axis=1)
        found[alignment] = (sees_itself.mean(), distance[seen].mean())
    np.testing.assert_allclose(found["tiled"], (0.05, 18.9), atol=0.05)
    np.testing.assert_allclose(found["spatial"], (1.0, 13.5), atol=0.05)


@pytest.mark.parametrize("alignment", patterns.ALIGNMENTS)
@pytest.mark.parametrize("grids", (((7, 5), (4, 3)), ((3, 3), (5, 4))))
def test_uneven_grids_keep_one_row_of_the_pattern_for_each_query(
    alignment, grids
):
    (h, w), (hk, wk) = grids
    for make in PATTERNS.values():
        square = make(grids[1]).mask()
        fine = make(*grids, alignment=alignment).mask()
        for query in range(h * w):
            cell = query % (hk * wk)
            if alignment == "spatial":
                i, j = divmod(query, w)
                cell = (i * hk // h) * wk + j * wk // w
            np.testing.assert_array_equal(fine[query], square[cell])


@pytest.mark.parametrize("shape", (64, (16, 16), (9, 20)))
def test_edges_grow_like_n_sqrt_n(shape):
    for pattern in ylg_heads(shape, partial_block=True):
        n = pattern.num_keys
        assert pattern.num_edges <= 2 * n * (n**0.5 + 1)
        degree = pattern.neighbours.shape[1]
        assert pattern.neighbours.shape == (n, degree)
        assert degree <= n**0.5 + 3


def test_neighbours_agree_with_the_mask():
    for pattern in ylg_heads((4, 6), (2, 3), official=True):
        for mask, keys in zip(pattern.mask(), pattern.neighbours, strict=True):
            np.testing.assert_array_equal(
                np.sort(keys[keys >= 0]), np.flatnonzero(mask)
            )
        with pytest.raises(ValueError, match="read-only"):
            pattern.neighbours[0, 0] = 1


def test_equal_arguments_give_the_same_object():
    first = patterns.left_floor((8, 8), stride=8)
    assert patterns.left_floor([8, 8]) is first
    assert patterns.right_floor((8, 8)) is not first
    assert len({id(p) for p in ylg_heads((8, 8))}) == 4


def test_ylg_heads_at_other_settings():
    names = [p.name for p in ylg_heads((4, 4))]
    assert names == list(patterns.YLG_HEADS)
    plain = ylg_heads(
        (3, 6), official=True
    )  # stride 4: an incomplete block of two
    repaired = ylg_heads((3, 6), partial_block=True)
    assert [len(p.summary) for p in plain[1::2]] == [4, 4, 4, 4]
    assert [len(p.summary) for p in repaired[1::2]] == [5, 5, 5, 5]


QUIET = {"alignment": "spatial", "partial_block": True}


@pytest.mark.parametrize("grids", (((6, 10), (3, 5)), ((3, 6), None), (9, 9)))
def test_defaults_are_those_of_the_layer(grids):
    queries, keys = grids
    layer = LocalSparseAttention2D(8, pool_size=1 if keys is None else 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        heads = ylg_heads(queries, keys)
        assert heads == make_patterns(patterns.YLG_HEADS, queries, keys)
        for name, pattern in zip(patterns.YLG_HEADS, heads, strict=True):
            assert PATTERNS[name](queries, keys) is pattern
    assert heads == ylg_heads(queries, keys, **QUIET)
    if queries != 9:
        assert heads == layer.patterns_for((1, *queries, 8))
    official = ylg_heads(queries, keys, official=True)
    assert official == ylg_heads(
        queries, keys, alignment="tiled", partial_block=False
    )
    assert heads == ylg_heads(queries, keys, official=True, **QUIET)


@pytest.mark.parametrize(
    "call, name",
    (
        (lambda: patterns.left_floor((6, 4), (3, 2)), "alignment"),
        (lambda: patterns.strided_window((6, 4), (3, 2)), "alignment"),
        (lambda: ylg_heads((8, 8), (4, 4)), "alignment"),
        (lambda: patterns.left_repetitive(11), "partial_block"),
        (lambda: ylg_heads((3, 6), alignment="tiled"), "partial_block"),
    ),
)
def test_a_default_that_changed_says_so_where_it_matters(call, name):
    with pytest.warns(DeprecationWarning, match=f"default of {name}") as found:
        call()
    assert {Path(w.filename).name for w in found} == {Path(__file__).name}


def test_a_default_that_makes_no_difference_is_quiet():
    for make in PATTERNS.values():
        make(9, 9)
        make((4, 4))
    patterns.dense((6, 4), (3, 2))
    patterns.left_floor((1, 1), (5, 5))
    ylg_heads((6, 4), (3, 2), official=True)


def test_neighbour_pattern():
    pattern = NeighbourPattern([[0, 2], [1, -1]], key_shape=3, name="mine")
    expected = [[True, False, True], [False, True, False]]
    np.testing.assert_array_equal(pattern.mask(), expected)
    assert pattern.num_edges == 3
    assert "mine (2,) x (3,)" in repr(pattern)


GROUPS = np.array([[0, 1, 2], [3, 4, -1]])
HALF = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 1]]) > 0


@pytest.mark.parametrize(
    "pattern, expected",
    (
        *((p, False) for p in make_patterns(PATTERNS, (5, 4), (3, 2), **QUIET)),
        (GroupPattern("a", (5,), (5,), GROUPS, GROUPS, HALF), True),
        (GroupPattern("b", (5,), (6,), GROUPS, [[0, 1, 2]] * 2, HALF), False),
        (GroupPattern("c", (5,), (6,), GROUPS, GROUPS, None), False),
        (GroupPattern("d", (5,), (6,), GROUPS, GROUPS * 0 - 1, None), True),
        (GroupPattern("e", (3,), (3,), GROUPS[:1], GROUPS[:1], ~HALF), False),
        (SummaryPattern("f", (2,), (2,), [], [0, -1]), True),
        (SummaryPattern("g", (2,), (2,), [], [1, 0]), False),
        (NeighbourPattern([[0, -1], [-1, -1]]), True),
        (NeighbourPattern([[0, -1], [-1, 0]]), False),
    ),
    ids=lambda value: getattr(value, "name", value),
)
def test_empty_rows(pattern, expected):
    assert pattern.has_empty_rows is expected
    assert pattern.has_empty_rows == (not pattern.mask().any(axis=1).all())


@pytest.mark.parametrize("name", PATTERNS)
def test_what_a_pattern_keeps_is_small(name):
    """Patterns stay in a cache: an n x n array of one would, too."""
    grid, edges = (63, 65), 64**3  # of no other test
    tracemalloc.start()
    (pattern,) = make_patterns([name], grid, **QUIET)
    assert not pattern.has_empty_rows
    found, peak = tracemalloc.get_traced_memory()
    assert pattern.neighbours.shape[0] == pattern.num_queries
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found < 2**20 and peak < 2**22
    assert kept < 2**20 + 2 * 4 * edges  # a window is padded to twice its size
    assert peak < pattern.num_queries * pattern.num_keys / 4


@pytest.mark.parametrize(
    "call, message",
    (
        (lambda: patterns.left_floor(0), "Received: 0"),
        (lambda: patterns.left_floor((2, 2, 2)), r"Received: \(2, 2, 2\)"),
        (lambda: patterns.left_floor((4, 2.5)), r"Received: \(4, 2.5\)"),
        (lambda: patterns.left_floor(4, (2, 2)), r"key_shape=\(2, 2\)"),
        (lambda: patterns.left_floor(9, stride=10), "stride=10"),
        (lambda: patterns.left_floor(9, stride=0), "stride=0"),
        (lambda: patterns.dense(9, alignment="best"), "alignment='best'"),
        (lambda: patterns.left_repetitive(9, overlap=4), "overlap=4, stride=3"),
        (lambda: patterns.make_patterns(["floor"], 9), "Received: 'floor'"),
        (lambda: NeighbourPattern([[0.5]]), "dtype=float64"),
        (lambda: NeighbourPattern([[3]], key_shape=3), "values 0..3"),
        (lambda: NeighbourPattern([[0, 0]]), r"neighbours\[0\]=\[0, 0\]"),
        (lambda: NeighbourPattern([[0]], query_shape=2), "1 rows"),
    ),
)
def test_errors_name_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_plot(tmp_path):
    from matplotlib.image import imread

    path = tmp_path / "patterns.png"
    patterns.plot(ylg_heads((8, 8))[:2], path)
    picture = imread(path)
    assert picture.shape[:2] == (600, 600) and picture[..., :3].std() > 0.1
    patterns.plot(patterns.left_floor(9), path, query=4)
    assert imread(path).shape[:2] == (600, 300)
