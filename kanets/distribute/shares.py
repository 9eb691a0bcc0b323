"""The share of each process in the batches of all."""

import functools
import hashlib
from pathlib import Path

import keras
import numpy as np

from kanets.data.batches import Batches
from kanets.distribute.processes import local, same_everywhere


def shard(batches, model=None):
    """The part of every batch that this process reads.

    Batch, order and augmentation are those of one process: of the pictures of
    a batch, each process decodes its own in the place where they are in the
    whole batch, and what is drawn at random is drawn for the whole. A
    transform of which nothing is known, and MixUp and CutMix, which mix
    pictures, are given the whole batch, which each process then decodes; one
    that says `each_alone = True` gets zeros for the pictures of others.

    A batch that does not divide among the devices, such as the last one of a
    set, is filled up. The steps of `model` cut that off before they compute,
    so that no loss, figure or batch statistic sees it, and `fit()`,
    `evaluate()` and `predict()` count each picture once. `predict()` gives
    every process the answers for all pictures, in their order.

    Args:
        batches: `Batches` of `kanets.data`; all processes have the same.
        model: the `keras.Model` that they are for, whose `train_step`,
            `test_step` and `predict_step` are made to cut. For `fit()` and
            `evaluate()` not needed where all batches divide.

    Returns:
        `Batches` whose batch `i` is this process's part of batch `i`, with
        the attributes of `batches`; `batches` itself outside of a
        distribution of Keras, and None for None.

    Raises:
        TypeError: the data is no `Batches`, and Keras would give each process
            all of it, or a part of another size.
        ValueError: a batch does not divide, and there is no model; the devices
            do not divide among the processes; these have not the same set.
    """
    distribution = keras.distribution.distribution()
    if distribution is None or batches is None:
        return batches
    if not isinstance(batches, Batches):
        raise TypeError(
            "What is divided among processes must be `Batches` of "
            f"`kanets.data`. Received: {type(batches).__name__}"
        )
    replicas = distribution.num_model_replicas
    parts = min(replicas, distribution.num_processes)
    if replicas % parts:
        raise ValueError(
            "The devices must divide among the processes, as each gets an "
            f"equal share of a batch. Received: {replicas} devices of {parts} "
            "processes"
        )
    whole = min(batches.batch_size, batches.num_pictures)
    last = batches.num_pictures % batches.batch_size or whole
    same_everywhere("What a set holds", _described(batches))
    sizes = {} if model is None else _cut_padding(model)
    filled = {rows: _filled(rows, replicas, sizes) for rows in (whole, last)}
    if model is None and any(rows % replicas for rows in filled):
        raise ValueError(
            "A batch that does not divide among the devices needs `model`, "
            f"whose steps cut what fills it up. Received: {replicas} devices, "
            f"batches of {whole} and a last one of {last} pictures, model=None"
        )
    return Shares(batches, distribution.data_shard_id, parts, filled)


def _described(batches):
    """What must not differ from process to process, in short."""
    paths = batches.paths
    rows = np.asarray(batches.rows)
    if paths is not None:  # of one copy of the data, or another
        names = [Path(path).parts[-2:] for path in paths]
    else:
        names = np.asarray(batches.labels[rows]).tolist()
    settings = batches.class_names, batches.image_size, batches.seed
    known = repr((settings, rows.tolist(), names)).encode()
    return (
        f"{batches.num_pictures} pictures in batches of {batches.batch_size} "
        f"with the digest {hashlib.sha256(known).hexdigest()[:8]}"
    )


def _filled(rows, replicas, sizes):
    """How many rows a batch is filled up to; that size stands for no other."""
    size = -(-rows // replicas) * replicas
    while sizes.setdefault(size, rows) != rows:
        size += replicas
    return size


class Shares(Batches):
    """`Batches` of the pictures of one process; made by `shard`.

    Args:
        batches: `Batches`; it is unchanged.
        index: int, which part.
        parts: int, of how many.
        filled: dict, how many rows a batch of so many is filled up to.
    """

    def __init__(self, batches, index, parts, filled):
        vars(self).update(vars(batches))
        self._index, self._parts, self._filled = index, parts, filled
        self._begin(batches.epoch)

    def _read(self, rows):
        own = self._own(len(rows))
        if own == slice(0, len(rows)) or not all(
            getattr(transform, "each_alone", False)
            for transform in self._transforms
        ):
            return super()._read(rows)
        # A share may be empty, and its shape is asked for all the same.
        found = super()._read(rows[own] if len(rows[own]) else rows[:1])
        return tuple(_placed(part, own, len(rows)) for part in found)

    def _augmented(self, batch, epoch, place):
        total = len(batch[0])
        own, length = self._own(total), self._filled[total] // self._parts
        with local():
            batch = super()._augmented(batch, epoch, place)
            return tuple(
                _placed(part[own], slice(0, None), length) for part in batch
            )

    def _own(self, total):
        length = self._filled[total] // self._parts
        start = min(self._index * length, total)
        return slice(start, min(start + length, total))


def _placed(part, place, length):
    """Rows at their place among as many as there are in all, or zeros."""
    part = np.asarray(part)
    if len(part) == length:
        return part
    whole = np.zeros((length, *part.shape[1:]), part.dtype)
    rows = len(whole[place])
    whole[place][: len(part)] = part[:rows]
    return whole


def _cut_padding(model):
    """Lets the steps of a model cut; how many rows each size stands for."""
    steps = {
        "train_step": _on_whole_batch,
        "test_step": _on_whole_batch,
        "predict_step": _told_to_all,
    }
    cut = [vars(model).get(name) for name in steps]
    if all(isinstance(step, functools.partial) for step in cut):
        return cut[0].keywords["sizes"]
    sizes = {}
    for name, function in steps.items():
        step = functools.partial(function, getattr(model, name), sizes=sizes)
        setattr(model, name, step)
    # Those that were compiled before do not cut.
    model.train_function = model.test_function = model.predict_function = None
    return sizes


def _on_whole_batch(step, state, data, *, sizes):
    filled = keras.tree.flatten(data)[0].shape[0]
    rows = sizes.get(filled, filled)
    return step(state, keras.tree.map_structure(lambda x: x[:rows], data))


def _told_to_all(step, state, data, *, sizes):
    _, labels, _ = keras.utils.unpack_x_y_sample_weight(data)
    if labels is None:  # not of `Shares`
        return step(state, data)
    import jax

    outputs, state = _on_whole_batch(step, state, data, sizes=sizes)
    mesh = keras.distribution.distribution().device_mesh.backend_mesh
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.lax.with_sharding_constraint(outputs, everywhere), state


def outputs_of_all(model, batches):
    """What a model says of every batch, to every process.

    In a distribution of Keras on JAX; each process reads its share alone.

    Args:
        model: a `keras.Model` that was made there, the same in all processes.
        batches: `Batches`; all processes have the same.

    Yields:
        Of each batch the outputs for all its pictures, an array.

    Raises:
        as `shard`.
    """
    shares = shard(batches, model)
    for place in range(len(shares)):
        batch = (shares[i] for i in [place])
        yield model.predict(batch, steps=1, verbose=0)
