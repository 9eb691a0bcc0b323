"""Learned spans on grids: the operator by loops, the layer, its nets."""

import math

import keras
import numpy as np
import pytest

import kanets
from kanets import attention
from kanets.attention import span_operator
from kanets.attention.tiles import cut
from tests.attention.span_references import GOLDEN, attend_by_loop, golden
from tests.backends import (
    BACKEND,
    compiled,
    dot,
    gradient,
    needs_tensorflow,
    to_numpy,
    weight_gradients,
)
from tests.layer_checks import check_layer, fill_weights, random

MASKS = ("max16_ramp4", "max64_ramp8", "max64_ramp32", "max100_ramp1")


@pytest.mark.parametrize("case", MASKS)
def test_the_mask_is_the_authors(case):
    _, call, arrays = golden("adaptive_mask.npz", case, "_")
    z = np.load(GOLDEN / "adaptive_mask.npz")["z"]
    mask = to_numpy(call(z))
    np.testing.assert_array_equal(mask, arrays["mask"])
    [trimmed] = [a for name, a in arrays.items() if "trimmed" in name]
    np.testing.assert_array_equal(mask[:, -trimmed.shape[1] :], trimmed)
    direction = arrays["cotangent"].sum(1)
    [found] = gradient(lambda z: dot(call(z), direction), z)
    np.testing.assert_allclose(found, arrays["grad_z"], rtol=1e-6, atol=1e-5)
    assert arrays["grad_has_tie"].any()  # all backends keep the rule of ends


@pytest.mark.parametrize("case", MASKS)
def test_what_is_computed_is_what_the_authors_compute(case):
    """Of their sizes with the ramp: ours has no last step where m is 0."""
    _, _, arrays = golden("adaptive_mask.npz", case, "_")
    size = arrays["mask"].shape[1]
    ramp = int(case.partition("ramp")[2])
    layer = attention.CausalSpanAttention(size, ramp)
    layer.build((1, 3, 2))
    for z, mask, theirs in zip(
        np.load(GOLDEN / "adaptive_mask.npz")["z"],
        arrays["mask"],
        arrays["current_max_size_with_ramp"],
        strict=True,
    ):
        layer.z.assign([z])
        computed = layer._reach(layer._spans(None, None), training=None) + 1
        assert (mask > 0).sum() <= computed <= theirs


CASES = {
    "cut": {"grid": (11, 7), "reach": 1},
    "cut, last tiles partial": {"grid": (11, 13), "reach": 2},
    "one axis cut": {"grid": (2, 13), "reach": 1, "scale": "rsqrt"},
    "whole": {"grid": (3, 5), "reach": 2},
    "itself alone": {"grid": (3, 5), "reach": 0},
    "one cell": {"grid": (1, 1), "reach": 3},
    "sequence": {"grid": (13,), "reach": 2, "dynamic": True},
    "dynamic": {"grid": (7, 11), "reach": 1, "dynamic": True},
    "everything": {"grid": (3, 5), "reach": None, "dynamic": True},
    "video": {"grid": (2, 7, 3), "reach": 1},
    "causal": {"grid": (13,), "reach": 2, "causal": -1},
    "causal, its own": {"grid": (13,), "reach": 2, "causal": 0},
    "causal, the last alone": {"grid": (5,), "reach": 0, "causal": -1},
    "causal, short memory": {
        "grid": (11,), "past": 1, "reach": 2, "causal": -1, "dynamic": True
    },
    "causal, long memory": {
        "grid": (11,), "past": 7, "reach": 2, "causal": 0
    },
    "causal, all": {"grid": (5,), "past": 4, "reach": None, "causal": -1},
}  # fmt: skip


# JAX compiles each for seconds.
ON_JAX = [pytest.mark.slow] if BACKEND == "jax" else []
THOROUGH = {"cut", "one axis cut", "everything", "video", "causal, all"}


@pytest.mark.parametrize(
    ("case", "masked"),
    [
        *(
            pytest.param(
                case,
                True,
                marks=[pytest.mark.slow] if case in THOROUGH else ON_JAX,
            )
            for case in CASES
        ),
        pytest.param("cut", False),
        pytest.param("causal", False, marks=ON_JAX),
    ],
)
def test_operator(case, masked):
    options = dict(CASES[case])
    grid, past = options.pop("grid"), options.pop("past", 0)
    dynamic, scale = options.pop("dynamic", False), options.pop("scale", 0.7)
    heads, size, ramp = 2, 3, 2
    keys = (grid[0] + past, *grid[1:])
    x, context = (
        random(2, *axes, heads * size, seed=seed)
        for seed, axes in enumerate((grid, keys))
    )
    if options.get("causal") is None:
        context = x
    tables = [random(5, size, seed=7 + axis) for axis in range(len(grid))]
    span = 2 * np.random.default_rng(3).uniform(
        size=(2, *grid, heads) if dynamic else heads
    ).astype("float32")
    mask = None
    if masked:
        mask = np.random.default_rng(4).uniform(size=(2, *keys)) < 0.6

    def operator(x, context, span, *tables):
        causal = options.get("causal") is not None
        return attention.adaptive_span_attention(
            x,
            heads,
            scale,
            mask=None if causal else mask,
            span=span,
            ramp=ramp,
            relative_keys=[attention.RelativePositions(t, -2) for t in tables],
            context=context if causal else None,
            context_mask=mask if causal else None,
            **options,
        )

    def loop(x, context, span, *tables):
        output, weights = attend_by_loop(
            [
                t.reshape(*t.shape[:-1], heads, size)
                for t in (x, context, context)
            ],
            tables,
            -2,
            size**-0.5 if scale == "rsqrt" else scale,
            options["reach"],
            span,
            ramp,
            options.get("causal"),
            mask,
        )
        output = output.reshape(x.shape)
        if masked and options.get("causal") is None:
            output = output * mask[..., None]
        return output, weights

    given = (x, context, span, *tables)
    output, weights = loop(*given)
    found = to_numpy(operator(*given))
    np.testing.assert_allclose(found, output, atol=1e-5)
    if case in ("cut", "dynamic", "causal, long memory"):
        axes = cut(x, context, options["reach"], options.get("causal"), False)
        assert not any(axis.whole for axis in axes)
    cotangent = random(*output.shape, seed=5)
    grads = gradient(lambda *t: dot(operator(*t), cotangent), *given)
    wide = [np.asarray(t, "float64") for t in given]
    steps = [random(*t.shape, seed=9 + i) for i, t in enumerate(given)]
    if context is x:  # the same tensor, and the operator takes it once
        steps[1], grads[1], wide[1] = steps[0], np.float32(0), wide[0]
    ahead, behind = (
        loop(*(t + sign * 1e-6 * s for t, s in zip(wide, steps, strict=True)))
        for sign in (1, -1)
    )
    slope = ((ahead[0] - behind[0]) * cotangent).sum() / 2e-6
    pairs = zip(grads, steps, strict=True)
    found = sum((g * s).sum() for g, s in pairs)
    largest = max(np.abs(g).sum() for g in grads)
    np.testing.assert_allclose(found, slope, atol=1e-5 * max(largest, 1))


def test_scores():
    x, grid = random(2, 7, 11, 4), (7, 11)
    tables = [random(3, 2, seed=axis) for axis in range(2)]
    span = np.array([0.3, 0.8], "float32")
    tokens = [x.reshape(2, *grid, 2, 2)] * 3
    _, expected = attend_by_loop(tokens, tables, -1, 1.0, 1, span, 2)
    arguments = {
        "num_heads": 2,
        "reach": 1,
        "span": span,
        "ramp": 2,
        "relative_keys": [
            attention.RelativePositions(t, -1) for t in tables
        ],
    }  # fmt: skip
    again, weights = attention.adaptive_span_attention(
        x, return_attention_scores=True, **arguments
    )
    np.testing.assert_allclose(
        to_numpy(weights), expected.reshape(2, 2, 77, 77), atol=1e-6
    )
    output = attention.adaptive_span_attention(x, **arguments)
    np.testing.assert_allclose(to_numpy(again), to_numpy(output), atol=1e-6)


def make(**arguments):
    return attention.AdaptiveSpanAttention(
        **{"max_span": 3, "num_heads": 2, "projections": "qkvo", **arguments}
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        {"max_span": 1, "num_heads": 3},
        {"span": "dynamic", "use_bias": True},
        {"span": "fixed", "num_heads": 1},
    ],
    ids=str,
)
def test_checks_of_every_layer(arguments):
    blind = {"key/bias": "it adds the same to all logits of a query"}
    check_layer(
        lambda **more: make(**arguments, **more),
        (2, 5, 7, 6),
        no_gradient=blind if arguments.get("use_bias") else None,
    )


@pytest.mark.parametrize("span", ["adaptive", "dynamic"])
def test_half_precision_compiled_and_saved(span, tmp_path):
    x = random(2, 5, 7, 6)
    inputs = keras.Input(x.shape[1:])
    layer = make(span=span, max_span=1)
    model = keras.Model(inputs, layer(inputs))
    fill_weights(model.weights, layer.name)
    expected = to_numpy(model(x))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(to_numpy(loaded(x)), expected, atol=1e-6)
    half = make(span=span, max_span=1, dtype="mixed_float16")
    half.build(x.shape)
    half.set_weights(layer.get_weights())
    largest = np.abs(expected).max()
    output, weights = half(100 * x, return_attention_scores=True)
    assert np.all(np.isfinite(to_numpy(keras.ops.cast(output, "float32"))))
    assert keras.backend.standardize_dtype(weights.dtype) == "float32"
    output = to_numpy(keras.ops.cast(half(x), "float32"))
    np.testing.assert_allclose(output, expected, atol=0.02 * largest)
    if span == "adaptive":
        found = compiled(lambda t: layer(t, training=False))(x)
        np.testing.assert_allclose(to_numpy(found), expected, atol=1e-5)


@pytest.fixture
def reaches(monkeypatch):
    """The reaches that operators were called with."""
    found, operator = [], span_operator.adaptive_span_attention

    def watched(*arguments, **named):
        found.append(named["reach"])
        return operator(*arguments, **named)

    from kanets.attention import adaptive_span

    monkeypatch.setattr(adaptive_span, "adaptive_span_attention", watched)
    return found


def test_the_cost_follows_the_span(reaches):
    """What is beyond is left out, and the numbers are those of the rest."""
    x = random(2, 13, 11, 6)
    layer = make(max_span=5, ramp=2)
    whole = keras.Sequential([keras.Input(x.shape[1:]), layer])
    fill_weights(layer.weights, layer.name)
    layer.z.assign([0.1, 0.25])
    np.testing.assert_allclose(layer.spans(), [0.5, 1.25])
    eager = to_numpy(layer(x))
    assert reaches == [math.ceil(1.25 + 2) - 1]
    del reaches[:]
    predicted = whole.predict(x, verbose=0)
    np.testing.assert_allclose(predicted, eager, atol=1e-5)
    with attention.trimmed_spans(whole):
        predicted = whole.predict(x, verbose=0)
    np.testing.assert_allclose(predicted, eager, atol=1e-5)
    layer.z.assign([1.0, 0.0])  # what was traced then is not used now
    predicted = whole.predict(x, verbose=0)
    np.testing.assert_allclose(predicted, to_numpy(layer(x)), atol=1e-5)
    if BACKEND != "torch":  # which runs what is written
        assert reaches == [5, 3, 5, 5]


@needs_tensorflow
def test_training_is_not_trimmed_by_a_trace(reaches):
    import tensorflow as tf

    layer, x = make(max_span=5), random(1, 7, 7, 6)
    layer.build(x.shape)
    with attention.trimmed_spans(layer):
        for training in (True, False):
            tf.function(layer)(x, training=training)
    assert reaches == [5, 1]


@pytest.mark.slow
@needs_tensorflow
def test_an_export_is_trimmed(reaches, tmp_path):
    picture = keras.Input((8, 8, 3))
    x = make(name="looks")(keras.layers.Conv2D(6, 1)(picture))
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(picture, keras.layers.Dense(2)(x))
    kanets.export_savedmodel(model, tmp_path, ["a", "b"], from_logits=True)
    assert reaches and set(reaches) == {1}
    assert model.get_layer("looks")._at_trace is None


@pytest.mark.thorough
def test_the_penalty_shrinks_spans():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5, 7, 4))
    layer = make(initial_span=0.75, span_penalty=0.5, max_span=2)
    model = keras.Model(inputs, layer(inputs))
    x = random(8, 5, 7, 4)
    model(x)
    [loss] = model.losses
    np.testing.assert_allclose(to_numpy(loss), 0.5 * 2 * 0.75, rtol=1e-6)
    model.compile(keras.optimizers.SGD(0.5), "mse", run_eagerly=True)
    spans = [layer.spans()]
    for _ in range(8):
        model.fit(x, 0 * x, batch_size=8, verbose=0)
        spans.append(layer.spans())
    assert np.all(np.diff(spans, axis=0)[:2] < 0)
    assert np.all(spans[-1] == 0)  # no less, whatever the penalty


def test_the_penalty_of_spans_of_cells():
    layer, x = make(span="dynamic", span_penalty=0.1), random(2, 3, 5, 6)
    layer(x)
    fill_weights(layer.weights, layer.name)
    mask = np.arange(5) < np.array([[[2]], [[5]]]) + 0 * np.arange(3)[:, None]
    layer(x, mask=mask)
    [loss] = layer.losses
    logits = x @ to_numpy(layer.span_kernel) + to_numpy(layer.span_bias)
    z = 3 / (1 + np.exp(-logits))
    expected = 0.1 * z[mask].mean()
    np.testing.assert_allclose(to_numpy(loss), expected, rtol=1e-5)
    assert not make(span="fixed").losses
    silent = make(span_penalty=0)
    silent(x)
    assert not silent.losses
    gradients = weight_gradients(layer, x)
    assert np.abs(gradients[f"{layer.name}/span_kernel"]).max() > 1e-4


def test_a_mask_hides_and_blanks():
    layer, x = make(), random(2, 5, 7, 6)
    layer(x)
    fill_weights(layer.weights, layer.name)
    layer.z.assign([0.3, 1.0])
    mask = np.ones((2, 5, 7), bool)
    mask[:, :, 4:] = False
    output = to_numpy(layer(x, mask=mask))
    assert np.all(output[:, :, 4:] == 0)
    expected = to_numpy(layer(x[:, :, :4]))
    np.testing.assert_allclose(output[:, :, :4], expected, atol=1e-6)


def test_in_a_module_by_name():
    written = {"name": "adaptive_span", "max_span": 2}
    module = kanets.layers.AttnModule(8, 2, attention=written)
    assert module(random(2, 8, 8, 8)).shape == (2, 8, 8, 8)
    assert module.attention.max_span == 2 and len(module.losses) == 1


@pytest.mark.slow
def test_in_nets_by_name():
    net = kanets.KANet(
        (32, 32, 3),
        0.01,
        classes=2,
        strides=(2, 1, 2, 2, 1),
        attention={"name": "adaptive_span", "max_span": 2},
    )
    spans = [v for v in net.weights if v.path.endswith("/span")]
    assert spans
    net(random(1, 32, 32, 3))
    assert len(net.losses) == len(spans)


@pytest.mark.slow
def test_in_other_nets_by_name():
    x = random(1, 32, 32, 3)
    lite = kanets.EfficientNetLite(
        (32, 32, 3), classes=2, attention="adaptive_span"
    )
    assert lite(x).shape == (1, 2) and lite.losses
    net = kanets.nets.MobileNetV2((32, 32, 3), 0.35, 2)
    with_it = kanets.insert_attention(net, "every stride", "adaptive_span")
    np.testing.assert_array_equal(to_numpy(with_it(x)), to_numpy(net(x)))
    assert with_it.losses


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"max_span": 0}, "max_span must be a positive.*max_span=0"),
        ({"ramp": 1.5}, "ramp must be a positive.*ramp=1.5"),
        ({"span": "learned"}, "span must be .*span='learned'"),
        ({"initial_span": 3}, "initial_span must be .*0 to 1.*initial_span=3"),
        ({"span_penalty": True}, "span_penalty must.*span_penalty=True"),
        ({"num_heads": 0}, "num_heads=0"),
    ],
)
def test_errors(arguments, text):
    with pytest.raises(ValueError, match=text):
        make(**arguments)


def test_spans_that_there_are_not():
    with pytest.raises(ValueError, match="span='adaptive', built=False"):
        make().spans()
    with pytest.raises(ValueError, match="span='fixed'"):
        make(span="fixed").spans()
