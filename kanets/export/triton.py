"""Models for NVIDIA's Triton Inference Server."""

import pathlib

from kanets import checks, files
from kanets.export import bundle
from kanets.export.models_config import DELAY
from kanets.export.portable import export_onnx, imported

CONFIG = "config.pbtxt"
# Triton's words for the element types of ONNX that models of ours have.
_TYPES = {1: "TYPE_FP32", 2: "TYPE_UINT8", 6: "TYPE_INT32", 7: "TYPE_INT64"}
_TEXT = """\
name: "{name}"
platform: "onnxruntime_onnx"
max_batch_size: {max_batch_size}
input [{inputs}]
output [{outputs}]
dynamic_batching {{ max_queue_delay_microseconds: {delay} }}
"""


def export_triton(
    model,
    directory,
    class_names=None,
    *,
    max_batch_size=32,
    image_size=None,
    from_logits=None,
):
    """Writes a model as an entry of a Triton model repository.

    Triton has no backend for SavedModels any more, so it gets ONNX:

        directory/config.pbtxt      inputs, outputs, batches merged
        directory/labels.txt        which Triton's classification reads
        directory/1/model.onnx

    Its name there is that of the directory; the repository, `tritonserver
    --model-repository`, is the folder around it.

    Args:
        model, class_names, image_size, from_logits: as in `export_litert`.
        directory: the folder to write; it must not exist.
        max_batch_size: positive int, pictures of the requests that Triton
            merges.

    Returns:
        `pathlib.Path` of the folder.

    Raises:
        ValueError, ImportError, RuntimeError, FileExistsError: as in
            `export_onnx`; a batch size that is none.

    References: Triton's model configuration,
        https://github.com/triton-inference-server/common.
    """
    bundle.check_backend()
    onnx = imported("onnx", "onnx")
    max_batch_size = checks.positive_integer("`max_batch_size`", max_batch_size)
    directory = pathlib.Path(directory)
    if directory.exists():
        raise bundle.exists(directory)
    with bundle.whole(directory) as partial:
        partial.mkdir()
        version = export_onnx(
            model,
            partial / "1",
            class_names,
            image_size=image_size,
            from_logits=from_logits,
        )
        labels = version / files.LABELS
        if named := labels.exists():
            labels.rename(partial / files.LABELS)
        graph = onnx.load(version / "model.onnx").graph
        text = _TEXT.format(
            name=directory.name,
            max_batch_size=max_batch_size,
            inputs=", ".join(map(_tensor, graph.input)),
            outputs=", ".join(_tensor(value, named) for value in graph.output),
            delay=DELAY,
        )
        (partial / CONFIG).write_text(text, encoding="utf-8")
    return directory


def _tensor(value, named=False):
    """A tensor as Triton declares it, with labels if it is scores."""
    kind = value.type.tensor_type
    # The batch is Triton's own; a side that is open is -1.
    dims = [d.dim_value or -1 for d in kind.shape.dim[1:]]
    # A number for each of the batch has no shape, which Triton wants told.
    reshape = "" if dims else " reshape { shape: [] }"
    labels = ""
    if named and value.name == "probabilities" and len(dims) == 1:
        labels = f' label_filename: "{files.LABELS}"'
    return (
        f'{{ name: "{value.name}" data_type: {_TYPES[kind.elem_type]} '
        f"dims: {dims or [1]}{reshape}{labels} }}"
    )
