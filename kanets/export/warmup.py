"""Warm-up requests for TensorFlow Serving.

A server replays the records of `assets.extra/tf_serving_warmup_requests`
before it takes traffic, so that the first client does not pay for lazy
initialisation. Each record is a `tensorflow.serving.PredictionLog`. Only four
nested messages are needed, so they are encoded here by hand and the package
`tensorflow-serving-api` is not a dependency; the tests parse the result with
it. Field numbers follow `tensorflow_serving/apis/*.proto`.
"""

from kanets.export.runtimes.protobuf import varint

WARMUP_FILE = "tf_serving_warmup_requests"

_PREDICT_LOG = 6  # PredictionLog.predict_log
_REQUEST = 1  # PredictLog.request
_MODEL_SPEC, _INPUTS = 1, 2  # PredictRequest
_NAME, _SIGNATURE_NAME = 1, 3  # ModelSpec
_KEY, _VALUE = 1, 2  # an entry of a map


def write_warmup(folder, model_name, requests, batch_sizes):
    """Writes requests for a server to replay as it starts.

    Args:
        folder: `pathlib.Path`, the `assets.extra` of the SavedModel.
        model_name: str, the name the model is served under. Servers replay
            the requests whatever it is.
        requests: list of `(signature, inputs)`, where `inputs` is a dict from
            the names of the signature's inputs to TensorProtos of one example
            (1, ...), whose value is one that repeats.
        batch_sizes: sequence of positive int; each request is written once
            with so many examples.
    """
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(folder / WARMUP_FILE)) as writer:
        for size in batch_sizes:
            for signature, inputs in requests:
                for tensor in inputs.values():
                    tensor.tensor_shape.dim[0].size = size
                writer.write(_prediction_log(model_name, signature, inputs))


def _prediction_log(model_name, signature_name, inputs):
    """Returns the bytes of a PredictionLog that holds one PredictRequest."""
    model_spec = _field(_NAME, model_name) + _field(
        _SIGNATURE_NAME, signature_name
    )
    request = _field(_MODEL_SPEC, model_spec)
    for name, tensor in inputs.items():
        entry = _field(_KEY, name) + _field(_VALUE, tensor.SerializeToString())
        request += _field(_INPUTS, entry)
    return _field(_PREDICT_LOG, _field(_REQUEST, request))


def _field(number, payload):
    """Encodes a string, bytes or message as a length-delimited field."""
    if isinstance(payload, str):
        payload = payload.encode()
    return varint(number << 3 | 2) + varint(len(payload)) + payload
