"""Extractors: models that turn pictures into features.

Pictures pass through Keras in float32 and come back as NumPy.

Letters: B batch, H W grid, F features, K classes.
"""

import keras
import numpy as np

from ylg.metrics.inception_graph import InceptionV3_2015, float32_policy
from ylg.metrics.inception_weights import load_inception_weights
from ylg.metrics.resizing import check_resize, normalize
from ylg.metrics.resizing import resize as resize_pictures


class FeatureExtractor:
    """A Keras model that turns pictures into features.

    Calling it, `extractor(images, value_range=None)`, gives the features
    (B, F), float32 NumPy, and the class probabilities (B, K), or None where
    the model has none. Pictures are resized (bilinear, antialiased) in
    float32, then mapped to `pixel_range`, and never rounded to 8 bits.

    Args:
        model: functional Keras model with one output, features (B, F), or
            two, features and class probabilities (B, K).
        name: what reports print, so that nobody takes one for another.
        pixel_range: pair of numbers, the pixels the model wants: (0, 255),
            (-1, 1) or (0, 1).
        image_size: (H, W) the model wants; default that of its input. Open
            sizes leave pictures as they are.
        batch_size: int; the model always sees batches of this size, the last
            one padded, so it compiles once.

    Call arguments:
        images: (B, H, W, 3), uint8, or float in [-1, 1] as generators give.
        value_range: pair, the range of `images` where it is another one.

    Raises:
        ValueError: pictures of another shape, dtype or range; features that
            are not (B, F).

    Example:

    >>> model = keras.Sequential(
    ...     [keras.Input((8, 8, 3)), keras.layers.GlobalAveragePooling2D()]
    ... )
    >>> extractor = FeatureExtractor(model, "mean colour", (0, 255))
    >>> extractor(np.full((2, 5, 7, 3), 9, "uint8"))[0].shape
    (2, 3)
    """

    def __init__(
        self, model, name, pixel_range, image_size=None, batch_size=50
    ):
        if image_size is None:
            image_size = model.input_shape[1:3]
        self.model = model
        self.name = name
        self.pixel_range = _check_range(pixel_range, "pixel_range")
        self.image_size = None if None in image_size else tuple(image_size)
        self.batch_size = batch_size

    def __call__(self, images, value_range=None):
        images = keras.ops.convert_to_numpy(images)
        if images.ndim != 4 or images.shape[-1] != 3 or not len(images):
            raise ValueError(
                "Pictures must be (B, H, W, 3) with B of 1 or more. "
                f"Received: images.shape={images.shape}"
            )
        outputs = []
        for start in range(0, len(images), self.batch_size):
            part = _unit(images[start : start + self.batch_size], value_range)
            outputs.append(self._forward(part))
        features, *rest = map(np.concatenate, zip(*outputs, strict=True))
        if features.ndim != 2:
            raise ValueError(
                "The model's first output must be features (B, F). "
                f"Received: features.shape={features.shape}"
            )
        return features, rest[0] if rest else None

    def _forward(self, unit):
        padding = self.batch_size - len(unit)
        x = np.pad(unit, [(0, padding), (0, 0), (0, 0), (0, 0)])
        y = self.model.predict_on_batch(self._prepare(x))
        y = y if isinstance(y, list | tuple) else [y]
        return [np.asarray(o)[: len(unit)].astype("float32") for o in y]

    def _prepare(self, x):
        """What the model takes, of pixels in [0, 1]."""
        if self.image_size not in (None, x.shape[1:3]):
            x = keras.ops.image.resize(
                x,
                self.image_size,
                interpolation="bilinear",
                antialias=True,
                data_format="channels_last",
            )
        low, high = self.pixel_range
        return low + (high - low) * x


class _Inception2015(FeatureExtractor):
    """As the references prepare pictures: 8 bits, then one of three resizes."""

    def __init__(self, model, name, mode, batch_size):
        super().__init__(model, name, (0, 255), batch_size=batch_size)
        self.mode = mode

    def _prepare(self, x):
        pixels = resize_pictures(np.rint(255 * x), self.mode)
        return normalize(pixels, self.mode)


def inception_2015(weights, resize="clean", batch_size=50):
    """The Inception of published FID, KID and IS: figures one can cite.

    Its features are those of clean-fid, or of torch-fidelity and TTUR with
    "legacy_tensorflow", or of pytorch-fid with "legacy_pytorch". Pictures are
    rounded to 8 bits first, as those that go through files are.

    Args:
        weights: as of `load_inception_weights`: the `.pth` or `.pb` file, or
            a mapping. Nothing is downloaded.
        resize: as `mode` of `ylg.metrics.resize`: "clean",
            "legacy_pytorch" or "legacy_tensorflow".
        batch_size: int, as of `FeatureExtractor`.

    Returns:
        A `FeatureExtractor` of 2048 features and 1,008 probabilities, these
        without the bias, as the Inception Score takes them. Its name has the
        graph, the resize and eight digits of the weights' SHA-256.

    Raises:
        ValueError: an unknown resize, and as `load_inception_weights`.
        OSError: no file there.

    References: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule",
    NeurIPS 2017; Parmar et al., "On Aliased Resizing and Surprising
    Subtleties in GAN Evaluation", CVPR 2022.
    """
    check_resize(resize)
    net = InceptionV3_2015()
    digest = load_inception_weights(net, weights)
    softmax = keras.layers.Softmax(dtype="float32")
    outputs = [net.output["2048"], softmax(net.output["logits_unbiased"])]
    return _Inception2015(
        keras.Model(net.inputs[0], outputs),
        f"InceptionV3 2015-12-05, resize {resize}, weights {digest[:8]}",
        resize,
        batch_size,
    )


def inception_v3(weights="imagenet"):
    """Keras's InceptionV3: 2048 pooled features, 1000 class probabilities.

    Its figures are NOT comparable with published FID, KID or IS. Those come
    from the TensorFlow graph of 2015-12-05: other weights, 1008 classes, max
    instead of average pooling in the last block, and no antialiasing in the
    resize: `inception_2015` is theirs. Compare only figures made with this
    same extractor.

    Args:
        weights: as in `keras.applications.InceptionV3`: "imagenet" (about
            90 MB, downloaded on first use), a path, or None (random).

    Returns:
        A `FeatureExtractor` at 299 x 299, in float32 under any policy.

    References: Szegedy et al., "Rethinking the Inception Architecture",
    CVPR 2016; 2015 graph: https://github.com/bioinf-jku/TTUR.
    """
    with float32_policy():
        net = keras.applications.InceptionV3(weights=weights)
    pooled = net.get_layer("avg_pool").output
    model = keras.Model(net.inputs[0], [pooled, net.outputs[0]])
    source = {"imagenet": "ImageNet", None: "random weights"}
    name = f"InceptionV3 (keras.applications, {source.get(weights, weights)})"
    return FeatureExtractor(model, name, (-1, 1))


def classifier_features(
    model, layer=None, name=None, pixel_range=(0, 255), from_logits=None
):
    """An extractor from any functional Keras classifier.

    Args:
        model: classifier with one input and one output (B, K).
        layer: name of the layer whose output, (B, F), is the features;
            default what enters the last Dense layer.
        name: of the classifier, default `model.name`; the extractor is
            called "features of <name> (not Inception)".
        pixel_range: pixels the classifier wants; (0, 255) is this zoo's.
        from_logits: whether the output is logits; None reads it off the
            activation of the last layer, softmax or linear.

    Returns:
        A `FeatureExtractor`.

    Raises:
        ValueError: no Dense layer, or a last activation that does not tell.
    """
    if layer is None:
        dense = [x for x in model.layers if isinstance(x, keras.layers.Dense)]
        if not dense:
            raise ValueError(
                "A classifier without a Dense layer needs `layer`, the name "
                f"of the layer with its features. Received: model={model.name}"
            )
        features = dense[-1].input
    else:
        features = model.get_layer(layer).output
    output = model.outputs[0]
    if from_logits is None:
        # Not at the top: kanets imports ylg.
        from kanets.nets.logits import outputs_logits

        from_logits = outputs_logits(model, probabilities=("softmax",))
    if from_logits:
        output = keras.layers.Softmax(dtype="float32")(output)
    return FeatureExtractor(
        keras.Model(model.inputs[0], [features, output]),
        f"features of {name or model.name} (not Inception)",
        pixel_range,
    )


def _unit(images, value_range):
    """Pixels in [0, 1], float32."""
    dtype = keras.backend.standardize_dtype(images.dtype)
    if value_range is not None:
        low, high = _check_range(value_range, "value_range")
    elif dtype == "uint8":
        low, high = 0.0, 255.0
    elif "float" in dtype:
        low, high = -1.0, 1.0
    else:
        raise ValueError(
            "Pictures must be uint8 or float, or have a value_range. "
            f"Received: images.dtype={dtype}"
        )
    unit = (images.astype("float32") - low) / (high - low)
    # Written so that NaN fails.
    if not (unit.min() >= -1e-3 and unit.max() <= 1.001):
        raise ValueError(
            f"Pixels of these pictures must lie in [{low:g}, {high:g}]; give "
            "value_range (of evaluate: real_range, fake_range) for another. "
            f"Received: images in [{images.min()}, {images.max()}]"
        )
    return unit


def _check_range(pair, name):
    if len(pair) != 2 or not pair[0] < pair[1]:
        raise ValueError(
            f"{name} must be (low, high), low < high. Received: {name}={pair}"
        )
    return float(pair[0]), float(pair[1])
