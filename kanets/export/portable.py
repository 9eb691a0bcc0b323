"""Models for phones and other runtimes: LiteRT, ONNX, OpenVINO.

What leaves takes pixels, not files, and its inputs and outputs have names:

| model | inputs | outputs |
|---|---|---|
| classifier | `images` (B, H, W, 3) float32, 0..255 | `probabilities` (B, classes) float32 |
| segmenter | the same | `label_map` (B, H, W) int32, `probabilities` (B, H, W, classes) float32 |
| generator | `z` (B, latent size) float32, `label` (B,) int32 | `images` (B, H, W, 3) float32 in [-1, 1] |

Pixels are those of `kanets.data.pictures`: RGB, the centre, resized to H x W;
rescaling is inside. Each export is a folder with the model and, where there
are classes, `labels.txt`; where pictures are fitted by another rule, as of
weights that come with one, `preprocessing.json` tells crop and interpolation.
It appears complete or not at all.
"""  # noqa: E501

import contextlib
import importlib
import pathlib
import tempfile
import warnings

import keras
import numpy as np

from kanets import compat, files, quantization, tasks
from kanets.checks import positive_integer
from kanets.data.arrays import check_floats
from kanets.data.framing import write_size
from kanets.export import bundle, onnx_operators, runtimes
from kanets.export.precision import check_precision, in_precision
from kanets.progress import progress

LITERT_PRECISIONS = ("float32", "float16", "int8")
OPENVINO_PRECISIONS = ("float32", "float16")


def export_litert(
    model,
    directory,
    class_names=None,
    *,
    precision="float32",
    representative=None,
    image_size=None,
    batch_size=1,
    from_logits=None,
    sparse=False,
):
    """Writes a model for LiteRT (TensorFlow Lite), with builtin operators.

    Inputs and outputs are those of every precision, so that one can replace
    another: "float16" stores half the bytes and computes in float32, or in
    float16 where the device does; "int8" computes in 8-bit integers, weights
    and activations, convolutions included, and converts at its ends.

    Args:
        model: built Keras model, a classifier, segmenter or generator.
        directory: the folder to write; it must not exist. Gets `model.tflite`
            and `labels.txt`.
        class_names: sequence of str, one per class. Defaults to
            `model.class_names`.
        precision: "float32", "float16" or "int8", which is not for
            generators: their pictures need finer steps.
        representative: for "int8", pixels (N, H, W, 3), uint8 or float32
            0..255, of pictures as the model will see: some hundred. The
            ranges of the activations are measured on them; a model of
            `kanets.quantization.prepare` has learned its own, and leaves in
            "int8" alone.
        image_size: pair of int, height and width; (None, None) leaves the
            size open, where the model does. Defaults to the model's.
        batch_size: positive int, or None to leave it open. Phones' delegates
            want it fixed.
        from_logits: bool, whether the outputs need a softmax. Defaults to
            what the activation of the last layer says.
        sparse: bool, whether kernels that are mostly zeros, as those of
            `kanets.pruning`, are written without these, in float32 and
            float16. The answers and the time they take are the same: the
            runtime fills the zeros in.

    Returns:
        `pathlib.Path` of the folder.

    Raises:
        RuntimeError: if Keras does not run on TensorFlow.
        FileExistsError: if `directory` exists.
        ValueError: if an argument does not fit the model, or LiteRT's
            converter refuses it, as for want of an operator.
    """
    check_precision(precision, LITERT_PRECISIONS)
    if batch_size is not None:
        batch_size = positive_integer("`batch_size`", batch_size)
    if sparse and precision == "int8":
        raise ValueError(
            "LiteRT does not run sparse maps of 8 bits. Received: "
            f"sparse={sparse!r}, precision={precision!r}"
        )
    directory, graph = _graph(
        model,
        directory,
        class_names,
        image_size,
        from_logits,
        integers=precision == "int8",
    )
    learned = quantization.is_prepared(model)
    if learned:
        _check_learned(model, precision, representative)
    feeds = []
    if not learned:
        feeds = _feeds(graph, precision, representative, batch_size or 1)
    with _saved(graph, batch_size) as saved_model, warnings.catch_warnings():
        # The converter's own interpreter says that it is deprecated.
        warnings.simplefilter("ignore")
        converter = _converter(saved_model, precision, feeds, sparse)
        try:
            converted = converter.convert()
        except Exception as error:
            reason = str(error).partition("\n")[0]
            hint = ""
            if None in (batch_size, *graph.image_size):
                hint = " A fixed batch_size and image_size ask less of it."
            raise ValueError(
                f"LiteRT's converter refuses this model.{hint} Received: "
                f"model={model.name!r}, precision={precision!r}, "
                f"batch_size={batch_size}, image_size={graph.image_size}: "
                f"{reason}"
            ) from error
    with bundle.whole(directory) as partial:
        partial.mkdir()
        (partial / "model.tflite").write_bytes(converted)
        _write_beside(partial, graph)
    return directory


def _converter(saved_model, precision, feeds, sparse):
    """LiteRT's converter of a SavedModel; "int8" measures ranges on feeds."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(
        saved_model, signature_keys=["serving_default"]
    )
    converter.optimizations = []
    if precision != "float32":
        converter.optimizations.append(tf.lite.Optimize.DEFAULT)
    if sparse:
        converter.optimizations.append(tf.lite.Optimize.EXPERIMENTAL_SPARSITY)
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if feeds:
        converter.representative_dataset = lambda: _told(feeds)
        # Without a fallback to float: what does not fit is an error.
        converter.target_spec.supported_ops = [
            tf.lite.OpsSet.TFLITE_BUILTINS_INT8
        ]
    return converter


def export_onnx(
    model, directory, class_names=None, *, image_size=None, from_logits=None
):
    """Writes a model as ONNX (opset 17), for ONNX Runtime and others.

    The batch size is open.

    Args:
        model, class_names, image_size, from_logits: as in `export_litert`.
        directory: the folder to write; it must not exist. Gets `model.onnx`
            and `labels.txt`.

    Returns:
        `pathlib.Path` of the folder.

    Raises:
        ImportError: if `tf2onnx` is not installed.
        RuntimeError, FileExistsError, ValueError: as in `export_litert`.
    """
    convert = imported("tf2onnx.convert", "onnx")
    onnx = imported("onnx", "onnx")
    directory, graph = _graph(
        model, directory, class_names, image_size, from_logits
    )
    with bundle.whole(directory) as partial, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        partial.mkdir()
        converted, _ = convert.from_function(
            graph.function(),
            input_signature=list(graph.inputs),
            opset=17,
            custom_op_handlers=onnx_operators.HANDLERS,
        )
        onnx_operators.mend(converted)
        unknown = {
            node.op_type
            for node in converted.graph.node
            if not node.domain and not onnx.defs.has(node.op_type)
        }
        if unknown:
            raise ValueError(
                "The converter to ONNX lacks an operator of the model. "
                f"Received: model={model.name!r} with {sorted(unknown)}"
            )
        onnx.save(converted, partial / "model.onnx")
        _write_beside(partial, graph)
    return directory


def export_openvino(
    model,
    directory,
    class_names=None,
    *,
    precision="float32",
    image_size=None,
    from_logits=None,
):
    """Writes a model for OpenVINO.

    The batch size is open.

    Args:
        model, class_names, image_size, from_logits: as in `export_litert`.
        directory: the folder to write; it must not exist. Gets `model.xml`,
            `model.bin` and `labels.txt`.
        precision: "float32", or "float16" to store half the bytes.

    Returns:
        `pathlib.Path` of the folder.

    Raises:
        ImportError: if `openvino` is not installed.
        RuntimeError, FileExistsError, ValueError: as in `export_litert`.
    """
    runtimes.silence_openvino()
    openvino = imported("openvino", "openvino")
    check_precision(precision, OPENVINO_PRECISIONS)
    directory, graph = _graph(
        model, directory, class_names, image_size, from_logits
    )
    with _saved(graph) as saved_model, bundle.whole(directory) as partial:
        partial.mkdir()
        openvino.save_model(
            openvino.convert_model(saved_model),
            partial / "model.xml",
            compress_to_fp16=precision == "float16",
        )
        _write_beside(partial, graph)
    return directory


def _graph(
    model, directory, class_names, image_size, from_logits, integers=False
):
    """The path to write to, and what is to be written, checked."""
    bundle.check_model(model)
    directory = pathlib.Path(directory)
    if directory.exists():
        raise bundle.exists(directory)
    if any(_is_mixed(layer) for layer in compat.all_layers(model)):
        model = in_precision(model, "float32")
    task = tasks.of_model(model)
    options = bundle.check_options(
        task.model,
        task.make_graph,
        image_size=image_size,
        from_logits=from_logits,
    )
    if integers and not task.takes_pictures:
        raise ValueError(
            "A generator's pictures need finer steps than precision='int8'; "
            f"take 'float16'. Received: model={model.name!r}"
        )
    if integers:
        options["integers"] = True
    return directory, task.make_graph(model, class_names, **options)


def _write_beside(folder, graph):
    """What a client of the model reads besides."""
    files.write_labels(folder, graph.class_names)
    write_size(folder, graph.image_size)


def _is_mixed(layer):
    return bool(layer.weights) and layer.compute_dtype != layer.variable_dtype


@contextlib.contextmanager
def _saved(graph, batch_size=None):
    """A SavedModel of pixels, for the converters, which is then deleted."""
    archive = keras.export.ExportArchive()
    function = graph.function(batch_size)
    archive.add_endpoint(
        "serving_default", function, list(function.input_signature)
    )
    with tempfile.TemporaryDirectory(prefix="kanets-") as folder:
        archive.write_out(folder, verbose=False)
        yield folder


def _check_learned(model, precision, representative):
    """Raises a ValueError for what a model that learned ranges cannot be."""
    if precision != "int8":
        raise ValueError(
            'A model prepared for 8 bits leaves in precision="int8"; '
            "kanets.quantization.strip gives the one for others. Received: "
            f"model={model.name!r}, precision={precision!r}"
        )
    if representative is not None:
        raise ValueError(
            "A model prepared for 8 bits has learned its ranges, and takes no "
            f"`representative` pictures. Received: model={model.name!r}"
        )


def _feeds(graph, precision, representative, batch_size):
    """The inputs that "int8" is calibrated on, batch by batch."""
    if precision != "int8":
        if representative is not None:
            raise ValueError(
                'Only precision="int8" takes `representative` pictures. '
                f"Received: precision={precision!r}"
            )
        return []
    pictures = np.asarray([] if representative is None else representative)
    expected = graph.inputs[0].shape[1:]
    if (
        pictures.ndim != 4
        or not len(pictures)
        or not expected.is_compatible_with(pictures.shape[1:])
    ):
        raise ValueError(
            'precision="int8" needs `representative` pictures (N, *'
            f"{tuple(expected)}), some hundred of those the model will see. "
            f"Received: shape {pictures.shape}"
        )
    if pictures.dtype != np.uint8:
        check_floats(pictures)
    rows = np.arange(-(-len(pictures) // batch_size) * batch_size)
    batches = np.split(rows % len(pictures), len(rows) // batch_size)
    return [{"images": pictures[b].astype("float32")} for b in batches]


def _told(feeds):
    """The batches one by one, as they are asked for, with a bar."""
    size = len(feeds[0]["images"])
    with progress(size * len(feeds), "calibrating") as advance:
        for feed in feeds:
            yield feed
            advance(size)


def imported(module, extra):
    """The module of a runtime; an error says which extra of ours has it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(
            f"This format needs the package {package}: "
            f"pip install 'kanets[{extra}]'"
        ) from error
