"""The Inception of published figures: goldens of torch-fidelity, clean-fid."""

import pickle
import re
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.backends import needs_tensorflow, thorough_on_jax
from tests.ylg.inception_recipe import make_weights
from ylg import metrics
from ylg.metrics.inception_graph import convolution_names
from ylg.metrics.inception_weights import _digest, read_weights
from ylg.metrics.torch_files import _array, load_torch_file

GOLDEN = Path(__file__).parents[1] / "golden"
PICTURES = (0, 1, 2, 4, 5)
# clean-fid's name of a resize, ours, and how far apart they may be.
RESIZES = (
    ("tf1", "legacy_tensorflow", 0),  # torch-fidelity's
    ("clean", "clean", 2e-5),
    ("legacy_tensorflow", "legacy_tensorflow", 1e-3),
    ("legacy_pytorch", "legacy_pytorch", 2e-4),
)


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "fid_pictures.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def weights(golden):
    rows = (str(row).split() for row in golden["variables"])
    return make_weights({name: map(int, shape) for name, *shape in rows})


@pytest.fixture(scope="module")
def net(weights):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")  # which it must not see
    try:
        model = metrics.InceptionV3_2015()
    finally:
        keras.config.set_dtype_policy(policy)
    metrics.load_inception_weights(model, weights)
    return model


def relative(found, expected):
    """The largest difference, relative to the largest entry."""
    return np.abs(found - expected).max() / np.abs(expected).max()


# Resizes


@pytest.mark.parametrize("reference, mode, tolerance", RESIZES)
@pytest.mark.parametrize("picture", PICTURES)
def test_resizes_are_the_references(
    golden, picture, reference, mode, tolerance
):
    found = metrics.resize(golden[f"picture{picture}"], mode)
    assert found.shape == (299, 299, 3) and found.dtype == "float32"
    key = f"resized{picture}/{reference}"
    for part, expected in (
        (found[[0, 150, 298]], golden[f"{key}/rows"]),
        (found[:, [0, 149, 298]], golden[f"{key}/cols"]),
    ):
        np.testing.assert_allclose(part, expected, rtol=0, atol=tolerance)
    ramp = np.arange(1, 300) / 299
    places = found * ramp[:, None, None] * ramp[:, None]
    for sums, name in ((found, "sum"), (places, "wsum")):
        np.testing.assert_allclose(
            sums.sum((0, 1), dtype="float64"),
            golden[f"{key}/{name}"],
            rtol=1e-12 + tolerance / 1e4,
        )


@pytest.mark.parametrize("mode", ["clean", "legacy_tensorflow"])
def test_a_picture_of_this_size_is_left_alone(mode):
    picture = np.random.default_rng(0).integers(0, 256, (2, 299, 299, 3))
    np.testing.assert_array_equal(metrics.resize(picture, mode), picture)


def test_batches_are_resized_picture_by_picture(golden):
    batch = np.stack([golden["picture1"], golden["picture1"][::-1]])
    for _, mode, _ in RESIZES[1:]:
        np.testing.assert_array_equal(
            metrics.resize(batch, mode, size=40),
            [metrics.resize(picture, mode, size=40) for picture in batch],
        )


def test_normalizes_as_each_reference_does():
    pixels = np.array([0, 127.5, 128, 255])
    for mode in ("clean", "legacy_tensorflow"):
        expected = [-1, -1 / 256, 0, 127 / 128]
        np.testing.assert_array_equal(metrics.normalize(pixels, mode), expected)
    np.testing.assert_allclose(
        metrics.normalize(pixels, "legacy_pytorch"),
        [-1, 0, 1 / 255, 1],
        atol=1e-7,
    )


def test_unknown_resizes_are_refused():
    message = r"one of clean, .*\(nearest: clean\). Received: mode='cleam'"
    for function in (metrics.resize, metrics.normalize):
        with pytest.raises(ValueError, match=message):
            function(np.zeros((2, 2, 3)), "cleam")
    with pytest.raises(ValueError, match="mode='tf1'"):
        metrics.inception_2015({}, "tf1")


# The net


@thorough_on_jax
def test_features_are_the_references(golden, net):
    """A picture of 32 x 32, as each reference takes it."""
    assert net.count_params() == 23_885_392
    assert {layer.compute_dtype for layer in net.layers} == {"float32"}
    picture = golden["picture1"]
    x = np.stack(
        [
            metrics.normalize(metrics.resize(picture, mode), mode)
            for _, mode, _ in RESIZES[1:]
        ]
    )
    y = {name: np.asarray(v) for name, v in net.predict_on_batch(x).items()}
    for i, (reference, _, _) in enumerate(RESIZES[1:]):
        expected = golden[f"cleanfid_features/{reference}"][1]
        assert relative(y["2048"][i], expected) < 1e-4
    for name, found in y.items():  # torch-fidelity's
        assert relative(found[1], golden[f"features/{name}"][1]) < 1e-4


@pytest.mark.thorough
@pytest.mark.parametrize("reference, mode, _", RESIZES)
def test_features_of_all_pictures_are_the_references(
    golden, weights, reference, mode, _
):
    extractor = metrics.inception_2015(weights, mode, batch_size=1)
    expected = golden.get(f"cleanfid_features/{reference}")
    if expected is None:
        expected = golden["features/2048"]
    logits = golden["features/logits_unbiased"]
    for i in PICTURES:
        features, probabilities = extractor(golden[f"picture{i}"][None])
        assert relative(features[0], expected[i]) < 1e-4
        if reference == "tf1":
            p = np.exp(logits[i] - logits[i].max())
            assert relative(probabilities[0], p / p.sum()) < 1e-3


@thorough_on_jax
def test_the_extractor_says_what_it_is_and_rounds_to_8_bits(
    golden, weights, monkeypatch
):
    extractor = metrics.inception_2015(weights, batch_size=1)
    assert re.fullmatch(
        "InceptionV3 2015-12-05, resize clean, weights [0-9a-f]{8}",
        extractor.name,
    )
    seen = []

    def predict(x):
        seen.append(x)
        return [np.zeros((1, 2048)), np.zeros((1, 1008))]

    monkeypatch.setattr(extractor.model, "predict_on_batch", predict)
    picture = golden["picture1"][None]
    extractor(picture)
    extractor(picture / 127.5 - 1 + 1e-3)  # less than half a pixel's step
    pixels = metrics.resize(picture, "clean")
    np.testing.assert_array_equal(seen[0], metrics.normalize(pixels, "clean"))
    np.testing.assert_array_equal(seen[1], seen[0])


# Weights


def test_weights_of_another_net_are_refused(net, weights):
    load = metrics.load_inception_weights
    before = np.asarray(net.get_layer("fc").bias)
    renamed = dict(weights)
    renamed["fc.biass"] = renamed.pop("fc.bias")
    with pytest.raises(
        ValueError,
        match=r"1 are missing, 1 are unknown \(nearest: fc.bias\). "
        "Received: 'fc.bias', 'fc.biass'",
    ):
        load(net, renamed)
    for shape in ((1000,), (1, 1008)):
        with pytest.raises(
            ValueError, match=r"fc.bias must be of shape \(1008,\). Received"
        ):
            load(net, weights | {"fc.bias": np.zeros(shape)})
    with pytest.raises(ValueError, match=".pth or .pb. Received: 'x.h5'"):
        load(net, "x.h5")
    np.testing.assert_array_equal(net.get_layer("fc").bias, before)


def test_the_hash_of_arrays_is_of_names_and_values_in_any_order():
    arrays = {"a": np.arange(3.0), "b": np.arange(6.0).reshape(2, 3)}
    digest = _digest(arrays)
    assert _digest(dict(reversed(arrays.items()))) == digest
    assert _digest({"a": arrays["a"], "c": arrays["b"]}) != digest
    assert _digest(arrays | {"a": arrays["a"] + 1}) != digest


# TensorFlow's scopes and PyTorch's names, in the blocks of one kind.
SPLIT = "{0}_{1}a tower{2}/mixed/conv {0}_{1}b tower{2}/mixed/conv_1"
KINDS = {
    "5": (
        "1x1 conv 5x5_1 tower/conv 5x5_2 tower/conv_1 "
        "3x3dbl_1 tower_1/conv 3x3dbl_2 tower_1/conv_1 "
        "3x3dbl_3 tower_1/conv_2 _pool tower_2/conv"
    ),
    "6a": (
        "3x3 conv 3x3dbl_1 tower/conv 3x3dbl_2 tower/conv_1 "
        "3x3dbl_3 tower/conv_2"
    ),
    "6": (
        "1x1 conv 7x7_1 tower/conv 7x7_2 tower/conv_1 7x7_3 tower/conv_2 "
        "7x7dbl_1 tower_1/conv 7x7dbl_2 tower_1/conv_1 "
        "7x7dbl_3 tower_1/conv_2 7x7dbl_4 tower_1/conv_3 "
        "7x7dbl_5 tower_1/conv_4 _pool tower_2/conv"
    ),
    "7a": (
        "3x3_1 tower/conv 3x3_2 tower/conv_1 7x7x3_1 tower_1/conv "
        "7x7x3_2 tower_1/conv_1 7x7x3_3 tower_1/conv_2 7x7x3_4 tower_1/conv_3"
    ),
    "7": (
        f"1x1 conv 3x3_1 tower/conv {SPLIT.format('3x3', 2, '')} "
        "3x3dbl_1 tower_1/conv 3x3dbl_2 tower_1/conv_1 "
        f"{SPLIT.format('3x3dbl', 3, '_1')} _pool tower_2/conv"
    ),
}
STEM = ("1a_3x3", "2a_3x3", "2b_3x3", "3b_1x1", "4a_3x3")
BLOCKS = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")


def graph_names():
    """Pairs of a convolution's name and its scope in the frozen graph."""
    for i, name in enumerate(STEM):
        yield f"Conv2d_{name}", f"conv_{i}" if i else "conv"
    for i, block in enumerate(BLOCKS):
        words = KINDS.get(block, KINDS[block[0]]).split()
        for branch, scope in zip(words[::2], words[1::2], strict=True):
            above = f"mixed_{i}" if i else "mixed"
            yield f"Mixed_{block}.branch{branch}", f"{above}/{scope}"


@needs_tensorflow
def test_the_frozen_graph_is_read(tmp_path):
    import tensorflow as tf

    rng = np.random.default_rng(0)
    graph = tf.compat.v1.GraphDef()
    graph.node.add(name="image", op="Placeholder")
    expected = {}

    def add(node, shape, name, axes):
        value = rng.normal(size=shape).astype("float32")
        constant = graph.node.add(name=node, op="Const")
        tensor = tf.make_tensor_proto(value)
        constant.attr["value"].tensor.CopyFrom(tensor)
        expected[name] = value.transpose(axes)

    for name, scope in reversed(list(graph_names())):
        add(
            f"{scope}/conv2d_params",
            (1, 2, 3, 4),
            f"{name}.conv.weight",
            (3, 2, 0, 1),
        )
        for theirs, ours in (
            ("gamma", "weight"),
            ("beta", "bias"),
            ("moving_mean", "running_mean"),
            ("moving_variance", "running_var"),
        ):
            add(f"{scope}/batchnorm/{theirs}", (4,), f"{name}.bn.{ours}", 0)
    add("softmax/weights", (5, 6), "fc.weight", (1, 0))
    add("softmax/biases", (6,), "fc.bias", 0)
    (tmp_path / "graph.pb").write_bytes(graph.SerializeToString())
    found = read_weights(tmp_path / "graph.pb")
    assert found.keys() == expected.keys() and len(found) == 94 * 5 + 2
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
    assert [name for name, _ in graph_names()] == list(convolution_names())
    (tmp_path / "text.pb").write_bytes(b"none")
    with pytest.raises(ValueError, match="frozen TensorFlow graph. Received"):
        read_weights(tmp_path / "text.pb")


@pytest.mark.parametrize("kind", ["zip", "stream"])
def test_files_of_pytorch_are_read_without_it(kind, tmp_path):
    path = GOLDEN / f"torch_{kind}.pth"
    found = load_torch_file(path)
    with np.load(GOLDEN / "torch_arrays.npz") as expected:
        assert list(found) == list(expected)
        for name, value in expected.items():
            assert found[name].dtype == value.dtype
            np.testing.assert_array_equal(found[name], value)
    cut = tmp_path / "cut.pth"
    for share in (0.3, 0.6, 0.99):
        cut.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        with pytest.raises(ValueError, match="must be a state dict.*cut.pth"):
            load_torch_file(cut)


class _Call:
    def __init__(self, function, *arguments):
        self.called = function, arguments

    def __reduce__(self):
        return self.called


@pytest.mark.parametrize(
    "content, message",
    [
        (_Call(print, "called"), "it asks for builtins.print"),
        (_Call(eval, "1 + 1"), "it asks for builtins.eval"),
        (["no dict"], "it holds a list"),
        ({"epoch": 3}, "'epoch' is a int"),
    ],
)
def test_of_a_pickle_only_arrays_are_made(content, message, tmp_path, capsys):
    path = tmp_path / "file.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(content))
    with pytest.raises(ValueError, match=f"{message}. Received: .*file.pth"):
        load_torch_file(path)
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    "offset, shape, strides",
    [(1, (4,), (1,)), (0, (2, 2), (3, 1)), (-1, (2,), (1,)), (3, (2,), (-1,))],
)
def test_arrays_stay_within_their_storage(offset, shape, strides):
    storage = np.arange(4.0)
    np.testing.assert_array_equal(_array(storage, 1, (3,), (1,)), [1, 2, 3])
    assert _array(storage, 4, (0, 2), (2, 1)).shape == (0, 2)
    with pytest.raises(ValueError, match="negative|larger than its storage"):
        _array(storage, offset, shape, strides)


# Figures, of features that are stored


@pytest.fixture(scope="module")
def sets():
    with np.load(GOLDEN / "fid_sets.npz") as file:
        return {name: x if x.ndim else x.item() for name, x in file.items()}


def features(sets, case):
    """The generated and the real ones."""
    a, b = {
        "small": ("small/X", "small/Y"),
        "pictures/64": ("A_64", "B_64"),
        "stored/2048": ("A_2048_float16", "B_2048_float16"),
    }[case]
    return sets[a].astype("float64"), sets[b].astype("float64")


CASES = ("small", "pictures/64", "stored/2048")


@pytest.mark.parametrize("case", CASES)
def test_frechet_distance_is_the_references(sets, case):
    """Of fewer pictures than features theirs is good to 2e-6 alone."""
    a, b = features(sets, case)
    found = metrics.frechet_distance(a, b)
    exact = sets.get(f"{case}/fid_f64", sets[f"{case}/fid"])
    assert found == pytest.approx(exact, rel=1e-12)
    tolerance = 2e-6 if len(a) < a.shape[1] else 1e-6
    assert found == pytest.approx(sets[f"{case}/fid"], rel=tolerance)
    assert metrics.frechet_distance(a, a) < 1e-12 * found


@pytest.mark.parametrize("case", CASES[:2])
def test_frechet_distance_of_samples_is_that_of_their_gaussians(sets, case):
    a, b = features(sets, case)
    pairs = [(x.mean(0), np.cov(x, rowvar=False)) for x in (a[:9], b)]
    gaussians = [metrics.GaussianStatistics().update(x) for x in (a[:9], b)]
    for found in (pairs, gaussians):
        assert metrics.frechet_distance(*found) == pytest.approx(
            metrics.frechet_distance(a[:9], b), rel=1e-9
        )


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "variant, options",
    [
        ("default", {}),
        ("poly2", {"degree": 2, "gamma": 0.01, "coef0": 0.5}),
        ("rbf", {"kernel": "rbf", "sigma": 10}),
    ],
)
def test_kernel_distance_is_torch_fidelitys(sets, case, variant, options):
    a, b = features(sets, case)
    found = metrics.kernel_distance(a, b, 20, 50, 2020, **options)
    key = f"{case}/kid_{variant}"
    assert found.value == pytest.approx(sets[f"{key}_mean_f64"], rel=1e-9)
    assert found.std == pytest.approx(sets[f"{key}_std_f64"], rel=1e-9)
    # It computes in float32.
    assert found.value == pytest.approx(sets[f"{key}_mean"], abs=2e-5)


@pytest.mark.parametrize("case", ["small", "stored/2048"])
def test_kernel_distance_is_clean_fids(sets, case):
    a, b = features(sets, case)
    found = metrics.kernel_distance(b, a, 20, 60, 5)
    expected = sets[f"{case}/cleanfid_kid_f64"]
    assert found.value == pytest.approx(expected, rel=1e-9)


def test_unknown_kernels_are_refused():
    with pytest.raises(ValueError, match="'rbf'. Received: kernel='cubic'"):
        metrics.kernel_distance(np.eye(4), np.eye(4), kernel="cubic")


@pytest.mark.parametrize("case", ["small", "stored"])
@pytest.mark.parametrize(
    "variant, splits, seed",
    [
        ("splits10", 10, 2020),
        ("splits4", 4, 2020),
        ("splits1", 1, 2020),
        ("splits10_unshuffled", 10, None),
    ],
)
def test_inception_score_is_the_references(sets, case, variant, splits, seed):
    logits = sets.get(f"{case}/logits", sets["A_logits_unbiased_float16"])
    found = metrics.inception_score(logits, splits, seed=seed, from_logits=True)
    key = f"{case}/isc_{variant}"
    expected = sets[f"{key}_mean"], sets[f"{key}_std"]
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("k", [1, 3])
def test_precision_and_recall_are_the_references(sets, case, k):
    fake, real = features(sets, case)
    found = metrics.precision_recall(real, fake, k)
    key = f"{case}/prc{k}"
    expected = sets[f"{key}_precision"], sets[f"{key}_recall"]
    assert found == pytest.approx(expected, abs=1e-7)  # kept in float32
