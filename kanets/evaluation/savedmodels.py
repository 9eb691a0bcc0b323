"""What a SavedModel says of itself, without being loaded."""

from kanets.export import find_savedmodel


def is_savedmodel(path):
    """Whether `path` is a SavedModel or a folder of its versions."""
    try:
        find_savedmodel(path)
    except FileNotFoundError:
        return False
    return True


def task_of_savedmodel(path):
    """The kind of model a bundle was exported from."""
    signature = _signature(path)
    if "label_map" in signature.outputs:
        return "segmentation"
    return "generation" if "z" in signature.inputs else "classification"


def sizes_of_savedmodel(path, tensor):
    """The shape of an input or output, without the batch, a tuple of int."""
    signature = _signature(path)
    found = {**signature.inputs, **signature.outputs}[tensor]
    return tuple(dim.size for dim in found.tensor_shape.dim)[1:]


def _signature(path):
    from tensorflow.core.protobuf import saved_model_pb2

    file = find_savedmodel(path) / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    signatures = saved.meta_graphs[0].signature_def
    if "serving_default" not in signatures:
        raise ValueError(
            "A SavedModel must have a signature `serving_default`. "
            f"Received: {str(file.parent)!r} with {sorted(signatures)}"
        )
    return signatures["serving_default"]
