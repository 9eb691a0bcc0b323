"""Where the weights of a ViT lie, when devices share one copy of them."""

import keras

from kanets.checks import positive_integer

# Each kernel that makes heads or hidden channels is cut by its outputs, and
# the one that takes these by its inputs: a block adds up once for each pair.
AXIS = "model"
WEIGHTS = {
    r".*block_\d+_attention/(query|key|value)/kernel": (None, AXIS),
    r".*block_\d+_attention/(query|key|value)/bias": (AXIS,),
    r".*block_\d+_attention/output/kernel": (AXIS, None),
    r".*block_\d+_mlp_expand/kernel": (None, AXIS),
    r".*block_\d+_mlp_expand/bias": (AXIS,),
    r".*block_\d+_mlp_project/kernel": (AXIS, None),
}


def layout(shards, devices=None):
    """A distribution of Keras that cuts the weights of a `kanets.ViT`.

    Make the model in its `scope()`, on JAX. Weights of the blocks lie in
    `shards` parts on as many devices; all others, and those of other nets,
    lie whole on each. The batch is divided among groups of so many devices.

    Args:
        shards: int, of which the number of devices is a multiple, and the
            channels of the variant.
        devices: list of str, as `keras.distribution.list_devices()`; default
            all.

    Returns:
        A `keras.distribution.ModelParallel`, for data that `shard` divides.

    Raises:
        ValueError: another backend; devices that are no multiple of `shards`.

    Cost: a device holds 1/shards of the blocks' kernels, and of the state of
    an optimizer; each block adds up its output twice across the devices.

    References: Shoeybi et al., "Megatron-LM", 2019, section 3.
    """
    shards = positive_integer("shards", shards)
    if keras.backend.backend() != "jax":
        raise ValueError(
            "Weights are divided among devices on JAX. "
            f"Received: backend={keras.backend.backend()!r}"
        )
    if devices is None:
        devices = keras.distribution.list_devices()
    if len(devices) % shards:
        raise ValueError(
            "The number of devices must be a multiple of shards. "
            f"Received: shards={shards}, {len(devices)} devices"
        )
    mesh = keras.distribution.DeviceMesh(
        (len(devices) // shards, shards), ("batch", AXIS), devices
    )
    layouts = keras.distribution.LayoutMap(mesh)
    for path, axes in WEIGHTS.items():
        layouts[path] = axes
    return keras.distribution.ModelParallel(
        layout_map=layouts, batch_dim_name="batch", auto_shard_dataset=False
    )
