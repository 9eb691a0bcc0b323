"""Several devices of one machine on TensorFlow, by `MirroredStrategy`."""

import contextlib

import keras

from kanets import compat
from kanets.checks import positive_integer


@contextlib.contextmanager
def mirrored(devices):
    """Sets TensorFlow's `MirroredStrategy` for what is made meanwhile.

    Args:
        devices: int, how many GPUs of this machine, or CPUs where TensorFlow
            has no GPU; 1 sets nothing.

    Raises:
        ValueError: another backend; the machine has fewer.
    """
    devices = positive_integer("devices", devices)
    if devices == 1:
        yield
        return
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "A number of devices is for TensorFlow; on JAX a training is "
            "distributed over all of them (--distributed). Received: "
            f"devices={devices}, backend={keras.backend.backend()!r}"
        )
    import tensorflow as tf

    found = tf.config.list_logical_devices("GPU")
    found = found or tf.config.list_logical_devices("CPU")
    if len(found) < devices:
        raise ValueError(
            "A training must have as many devices as it is distributed over. "
            f"Received: devices={devices}, where TensorFlow finds "
            f"{[device.name for device in found]}"
        )
    names = [device.name for device in found[:devices]]
    # Its collectives let CPUs wait for each other for ever, where these have
    # few threads.
    is_cpu = found[0].device_type == "CPU"
    reduction = tf.distribute.ReductionToOneDevice() if is_cpu else None
    strategy = tf.distribute.MirroredStrategy(names, reduction)
    tf.distribute.experimental_set_strategy(strategy)
    try:
        yield
    finally:
        tf.distribute.experimental_set_strategy(None)


@contextlib.contextmanager
def unmirrored():
    """For what is made without the strategy, in `mirrored`."""
    if not is_mirrored():
        yield
        return
    import tensorflow as tf

    strategy = tf.distribute.get_strategy()
    tf.distribute.experimental_set_strategy(None)
    try:
        yield
    finally:
        tf.distribute.experimental_set_strategy(strategy)


def is_mirrored():
    """Whether a strategy of TensorFlow is set."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return tf.distribute.has_strategy()


def prepare(model, batches):
    """Readies a compiled model for a strategy: batch norm, first batches.

    Args:
        model: the compiled `keras.Model`; its batch norm takes the moments of
            the batch of all devices.
        batches: what it trains on. Keras would build the metrics from the
            first batch of `fit()`, and fails where that does not divide.
    """
    _synchronize(model, True)
    with unmirrored():
        images, labels = next(iter(batches))
    model.test_on_batch(images[:1], labels[:1])
    model.reset_metrics()
    compat.leave_out_first_look(model)


@contextlib.contextmanager
def as_saved(model):
    """For saving: batch norm as other backends can load it."""
    mirrored = is_mirrored()
    if mirrored:
        _synchronize(model, False)
    try:
        yield
    finally:
        if mirrored:
            _synchronize(model, True)


def _synchronize(model, whether):
    for layer in compat.all_layers(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = whether
