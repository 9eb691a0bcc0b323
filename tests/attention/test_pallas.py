"""The kernels, against masked dense attention and against their XLA twins.

On a CPU they are interpreted. That they lower for GPUs and TPUs is tested
without either; how fast they are there is the matter of
`benchmarks/accelerator.py`.
"""

import contextlib
import functools

import keras
import numpy as np
import pytest
from keras import ops

import kanets
from kanets.layers import KroneckerAttention
from tests.backends import BACKEND, compiled, to_numpy
from tests.layer_checks import random
from ylg import patterns
from ylg.layers import LocalSparseAttention2D
from ylg.ops import pattern_attention
from ylg.patterns import GroupPattern, NeighbourPattern, ylg_heads

# A layer's own argument works as before, and says what to type instead.
pytestmark = pytest.mark.filterwarnings(
    "ignore:A layer's argument implementation:DeprecationWarning"
)
needs_jax = pytest.mark.skipif(BACKEND != "jax", reason="Pallas is JAX's")
# Rectangular, tiny, finer queries, a sequence: (queries, keys).
GRIDS = (
    ((5, 7), None),
    ((1, 1), None),
    ((6, 10), (3, 5)),
    ((9, 9), (4, 4)),
    (150, None),
)
IDS = [f"{queries}-{keys}" for queries, keys in GRIDS]
OTHERS = (
    patterns.dense,
    patterns.strided_window,
    patterns.strided_repetitive,
)
CHECKS = ("__gpu$xla.gpu.triton", "tpu_custom_call")


def heads_of(queries, keys):
    """The four kinds of YLG, two official and two repaired."""
    official = ylg_heads(queries, keys, official=True)
    repaired = ylg_heads(queries, keys, partial_block=True, alignment="spatial")
    return [official[0], official[1], repaired[4], repaired[5]]


def tensors(heads, size=5, value_size=3, batch=2):
    count, queries = len(heads), heads[0].num_queries
    keys = heads[0].num_keys
    return (
        random(batch, queries, count, size),
        random(batch, keys, count, size, seed=1),
        random(batch, keys, count, value_size, seed=2),
    )


def value_and_gradients(function, inputs):
    """Output of a function, and the gradients of its product with noise."""
    import jax

    def loss(*inputs):
        output = ops.cast(function(*inputs), "float32")
        return ops.sum(output * random(*output.shape, seed=3)), output

    run = jax.value_and_grad(loss, tuple(range(len(inputs))), has_aux=True)
    (_, output), gradients = jax.jit(run)(*inputs)
    return [to_numpy(ops.cast(x, "float32")) for x in (output, *gradients)]


@needs_jax
@pytest.mark.parametrize("grids", GRIDS, ids=IDS)
def test_equal_to_the_reference(grids):
    heads = heads_of(*grids)
    if grids == (150, None):  # several tiles a group
        heads = [make(*grids) for make in OTHERS]
    inputs = tensors(heads)
    actual, expected = (
        value_and_gradients(
            lambda *x, how=implementation: pattern_attention(
                *x, heads, scale=0.7, implementation=how
            ),
            inputs,
        )
        for implementation in ("pallas", "reference")
    )
    for found, wanted in zip(actual, expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)
        assert np.abs(wanted).max() > 1e-2 or grids[0] == (1, 1)


@needs_jax
@pytest.mark.parametrize(
    "dtype, tolerance",
    (
        pytest.param("float16", 5e-3, marks=pytest.mark.thorough),
        ("bfloat16", 4e-2),
    ),
)
def test_half_precision(dtype, tolerance):
    import jax

    heads = heads_of((6, 10), (3, 5))[:2]
    half = [ops.cast(x, dtype) for x in tensors(heads)]
    attend = functools.partial(
        pattern_attention, patterns=heads, implementation="pallas"
    )
    assert jax.eval_shape(attend, *half).dtype == dtype
    actual = value_and_gradients(attend, half)
    exact = [ops.cast(x, "float32") for x in half]
    expected = value_and_gradients(
        lambda *x: pattern_attention(*x, heads, implementation="reference"),
        exact,
    )
    for found, wanted in zip(actual, expected, strict=True):
        error = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
        assert error < tolerance


@needs_jax
def test_what_would_overflow_float16():
    """Scores beyond 65504, and sums of values that are within it."""
    heads = [patterns.left_floor(64), patterns.left_repetitive(64)]
    large = ops.full((1, 64, 2, 64), 40.0, "float16")
    attend = functools.partial(
        pattern_attention, patterns=heads, scale=0.125, implementation="pallas"
    )
    output = compiled(attend)(large, large, large * 50)
    np.testing.assert_allclose(to_numpy(output), 2000.0, rtol=1e-2)


@needs_jax
def test_what_the_kernels_leave_to_xla():
    """Weights, lists of neighbours, and groups that see no interval."""
    groups = np.arange(16).reshape(4, 4)
    striped = GroupPattern(
        "striped", (16,), (16,), groups, groups, np.eye(4) + np.eye(4)[::-1] > 0
    )
    floor = patterns.left_floor(16)
    heads = [striped, NeighbourPattern(floor.neighbours), floor]
    inputs = tensors(heads)
    output, weights = pattern_attention(
        *inputs, heads, implementation="pallas", return_weights=True
    )
    expected, wanted = pattern_attention(
        *inputs, heads, implementation="reference", return_weights=True
    )
    np.testing.assert_allclose(to_numpy(output), to_numpy(expected), atol=1e-6)
    for found, weight in zip(weights, wanted, strict=True):
        np.testing.assert_allclose(to_numpy(found), to_numpy(weight), atol=1e-6)
    output = pattern_attention(*inputs, heads, implementation="pallas")
    np.testing.assert_allclose(to_numpy(output), to_numpy(expected), atol=1e-6)


@needs_jax
def test_a_query_that_sees_nothing_gets_zeros():
    groups = np.arange(4)[None]
    visible = np.tri(4, k=-1, dtype=bool)
    pattern = GroupPattern("before", (4,), (4,), groups, groups, visible)
    output, *gradients = value_and_gradients(
        lambda *x: pattern_attention(*x, pattern, implementation="pallas"),
        tensors([pattern]),
    )
    assert np.all(output[:, 0] == 0) and np.all(output[:, 1:] != 0)
    assert all(np.all(np.isfinite(g)) for g in gradients)


@needs_jax
def test_no_score_leaves_the_chip():
    """Neither n x n numbers nor n x degree, in either direction."""
    import jax

    heads = ylg_heads((32, 32))
    n, size = 32 * 32, 16
    shapes = [jax.ShapeDtypeStruct((1, n, 8, size), "float32")] * 3

    def loss(implementation, *inputs):
        return ops.sum(
            pattern_attention(*inputs, heads, implementation=implementation)
            ** 2
        )

    largest = {
        name: max(
            sizes_of(
                jax.make_jaxpr(
                    jax.grad(functools.partial(loss, name), argnums=(0, 1, 2))
                )(*shapes)
            )
        )
        for name in ("pallas", "xla")
    }
    assert largest["pallas"] <= 8 * n * size
    assert largest["xla"] >= 2 * n * 32  # two heads at a time


def sizes_of(program):
    """Elements of every tensor in device memory; a kernel's are its own."""
    from jax.extend.core import jaxprs_in_params

    for equation in program.eqns:
        for variable in equation.outvars:
            yield int(np.prod(variable.aval.shape))
        if equation.primitive.name != "pallas_call":
            for inner in jaxprs_in_params(equation.params):
                yield from sizes_of(inner)


@needs_jax
@pytest.mark.parametrize(
    "shape", ((2, 5, 7, 6), (1, 1, 1, 1), (1, 64, 40, 3), (1, 3, 67, 24))
)
def test_axis_means(shape):
    x = random(*shape)

    def tokens(x, implementation):
        means = kanets.ops.axis_means(x, implementation=implementation)
        return ops.concatenate(means, axis=1)

    actual, expected = (
        value_and_gradients(functools.partial(tokens, implementation=how), [x])
        for how in ("pallas", "xla")
    )
    for found, wanted in zip(actual, expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)


@needs_jax
def test_axis_means_of_half_precision():
    x = ops.cast(300 + random(1, 96, 96, 8), "float16")  # sums overflow
    for mean in kanets.ops.axis_means(x, implementation="pallas"):
        assert keras.backend.standardize_dtype(mean.dtype) == "float16"
        np.testing.assert_allclose(to_numpy(mean), 300, atol=1)


@needs_jax
@pytest.mark.parametrize(
    ("mode", "num_heads"),
    [
        ("qkv", 1),
        ("kv", 3),
        pytest.param("qkv", 3, marks=pytest.mark.thorough),
        pytest.param("kv", 1, marks=pytest.mark.thorough),
    ],
)
def test_kronecker_attention(mode, num_heads):
    x = random(2, 9, 14, 12)
    operator = {"kv": kanets.ops.kao_kv, "qkv": kanets.ops.kao_qkv}[mode]
    actual, expected = (
        value_and_gradients(
            functools.partial(
                operator,
                num_heads=num_heads,
                scale="rsqrt",
                implementation=how,
            ),
            [x],
        )
        for how in ("pallas", "xla")
    )
    for found, wanted in zip(actual, expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    _, weights = operator(
        x, implementation="pallas", return_attention_scores=True
    )
    np.testing.assert_allclose(to_numpy(weights).sum(-1), 1, atol=1e-5)


@needs_jax
@pytest.mark.parametrize(
    "make",
    (
        functools.partial(KroneckerAttention, "kv", num_heads=2),
        functools.partial(LocalSparseAttention2D, 2, residual=False),
    ),
    ids=("kronecker", "sparse"),
)
def test_layers_take_it(make):
    x = random(2, 6, 5, 16)
    layers = [make(implementation=how) for how in ("pallas", "xla")]
    for layer in layers:
        layer.build(x.shape)
    layers[1].set_weights(layers[0].get_weights())
    actual, expected = (to_numpy(compiled(layer)(x)) for layer in layers)
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    inputs = keras.Input(x.shape[1:])
    assert layers[0](inputs).shape == (None, *x.shape[1:])


@needs_jax
def test_an_eager_call_is_traced_once(monkeypatch):
    """Kernels are made for new shapes and options, and not for new numbers."""
    import jax

    from kanets.attention.kernels import calls

    make, made = calls.pallas_call, []

    def count(*arguments, **options):
        made.append(arguments)
        return make(*arguments, **options)

    monkeypatch.setattr(calls, "pallas_call", count)
    floor = patterns.left_floor(17)

    def attend(x, scale):
        return ops.sum(
            pattern_attention(
                x, x, x, floor, scale=scale, implementation="pallas"
            )
        )

    slope = jax.grad(attend)
    layer = KroneckerAttention("kv", implementation="pallas")
    x, picture = random(1, 17, 1, 3), random(1, 2, 11, 3)
    for call in (
        lambda shift: attend(x + shift, 0.5),
        lambda shift: slope(x + shift, 0.25),
        lambda shift: layer(picture + shift),
    ):
        before = len(made)
        first = to_numpy(call(0))
        once = len(made)
        second = to_numpy(call(1))
        assert before < once == len(made)
        assert not np.array_equal(first, second)  # it is no old answer


@needs_jax
@pytest.mark.filterwarnings(
    "ignore:The Pallas Triton backend is deprecated:DeprecationWarning"
)
@pytest.mark.parametrize("platform", ("cuda", "tpu"))
@pytest.mark.parametrize(
    "dtype",
    ("bfloat16", pytest.param("float32", marks=pytest.mark.thorough)),
)
def test_lowers_without_a_device(platform, dtype, monkeypatch):
    """To Triton's and to Mosaic's language; their compilers are elsewhere."""
    import jax
    from jax import export

    from kanets.attention.kernels import calls

    monkeypatch.setattr(calls, "platform", lambda: platform)
    heads = heads_of((16, 16), (8, 8))
    attend = functools.partial(
        pattern_attention, patterns=heads, implementation="pallas"
    )

    def loss(x, keys, picture):
        output = attend(x, keys, keys)
        grid = kanets.ops.kao_kv(picture, 2, implementation="pallas")
        return sum(ops.sum(ops.cast(y, "float32") ** 2) for y in (output, grid))

    shapes = [
        jax.ShapeDtypeStruct(shape, dtype)
        for shape in (
            (1, 256, len(heads), 4),
            (1, 64, len(heads), 4),
            (1, 28, 36, 48),
        )
    ]
    exported = export.export(
        jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2))),
        platforms=[platform],
        disabled_checks=map(export.DisabledSafetyCheck.custom_call, CHECKS),
    )
    with gpu() if platform == "cuda" else contextlib.nullcontext():
        program = exported(*shapes).mlir_module()
    # Three kernels a pattern and for the picture's attention; its means.
    count = 3 * (len(heads) + 1) + 1
    assert sum(program.count(f"@{name}") for name in CHECKS) == count


def gpu():
    """A GPU to lower for, which is not there."""
    from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh

    device = AbstractDevice("NVIDIA H200", num_cores=132, platform="gpu")
    return use_abstract_mesh(AbstractMesh((), (), abstract_device=device))


@pytest.mark.skipif(BACKEND == "jax", reason="JAX has Pallas")
@pytest.mark.parametrize(
    "call",
    (
        lambda x, how: pattern_attention(
            x, x, x, patterns.left_floor(5), implementation=how
        ),
        lambda x, how: kanets.ops.axis_means(x, implementation=how),
        lambda x, how: kanets.ops.kao_kv(x, implementation=how),
        lambda x, how: kanets.ops.kao_qkv(x, implementation=how),
        lambda x, how: KroneckerAttention(implementation=how)(x),
        lambda x, how: LocalSparseAttention2D(implementation=how)(x),
    ),
)
def test_other_backends_are_named(call):
    with pytest.raises(ValueError, match=f"Received: backend='{BACKEND}'"):
        call(random(2, 5, 4, 8), "pallas")


@needs_jax
@pytest.mark.parametrize(
    "shape, mask, message",
    (
        ((2, 5, 4), None, r"x.shape=\(2, 5, 4\), dtype=float32, mask=None"),
        ((2, 3, 5, 7, 4), None, r"x.shape=\(2, 3, 5, 7, 4\)"),
        ((2, 5, 3, 4), np.ones((2, 5, 3), bool), "mask=given"),
    ),
)
def test_what_is_no_plain_picture_is_refused(shape, mask, message):
    for call in (
        kanets.ops.axis_means,
        kanets.ops.kao_kv,
        kanets.ops.kao_qkv,
        KroneckerAttention(implementation="pallas"),
    ):
        options = (
            {}
            if isinstance(call, KroneckerAttention)
            else {"implementation": "pallas"}
        )
        with pytest.raises(ValueError, match=f"no mask. Received: .*{message}"):
            call(random(*shape), mask=mask, **options)


@pytest.mark.parametrize(
    "call",
    (
        lambda how: kanets.ops.axis_means(random(1, 2, 2, 1), None, how),
        lambda how: kanets.ops.kao_kv(random(1, 2, 2, 1), implementation=how),
        lambda how: kanets.ops.kao_qkv(random(1, 2, 2, 1), implementation=how),
        lambda how: KroneckerAttention(implementation=how),
        lambda how: LocalSparseAttention2D(implementation=how),
    ),
)
def test_unknown_implementations_are_named(call):
    with pytest.raises(ValueError, match="implementation='fast'"):
        call("fast")
