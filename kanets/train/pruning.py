"""Magnitude pruning: while a net trains, its smallest weights become zero.

    prune = kanets.pruning.MagnitudePruning(0.75, to_epoch=8)
    model.fit(pictures, labels, epochs=12, callbacks=[prune])
    kanets.export_litert(model, "phone", names, sparse=True)

A file without the zeros is smaller by nearly their share. Runtimes compute as
long as before, but where they have kernels for sparse maps.
"""

import keras
import numpy as np

from kanets.checks import is_number, positive_integer

__all__ = ["MagnitudePruning", "sparsity"]

LEAST = 8  # channels in and out, of kernels that are worth it
EVERY = 50  # steps after which more weights are taken, and at an epoch's end


class MagnitudePruning(keras.callbacks.Callback):
    """Takes the smallest weights of every kernel, more with each epoch.

    After a share p of the epochs from `from_epoch` to `to_epoch`, the share
    sparsity * (1 - (1 - p)^3) of a kernel's weights is zero: many are taken
    while there are many, few at the end (Zhu and Gupta, "To prune, or not to
    prune", 2017, arXiv 1710.01878, equation 1). What is zero stays zero. The
    other weights go on learning, for some epochs after `to_epoch`, too, which
    is what brings the accuracy back.

    Kernels are the trainable variables of that name with 8 channels or more at
    both ends: of dense layers, of convolutions and of the maps of attention,
    but of depthwise convolutions and of one that reads pixels not. Freeze a
    layer to leave it out. A model of `kanets.quantization.prepare` is pruned
    likewise.

    Args:
        sparsity: float in (0, 1), the share of zeros at the end.
        to_epoch: int, counted from 1 as `fit()` prints it: the epoch at whose
            end that share is reached.
        from_epoch: int, that with which it begins to rise; after those that
            train a new head alone.

    With `keras.callbacks.SwapEMAWeights`, stand behind it. With
    `steps_per_execution`, weights are set to zero after the last of the steps.
    A `fit()` that goes on from `initial_epoch` takes up the zeros that it
    finds.

    Raises:
        ValueError: a sparsity out of its range; epochs that are no positive
            integers, or end before they begin; in `fit()`, a model without
            such kernels.

    Cost: a product with each kernel after each step; every 50 steps, until
    `to_epoch`, a selection of each kernel's smallest, O(n) for n weights.

    Example:

    >>> model = keras.Sequential([keras.Input((32,)), keras.layers.Dense(16)])
    >>> model.compile("adam", "mse")
    >>> prune = kanets.pruning.MagnitudePruning(0.5, to_epoch=1)
    >>> x, y = np.ones((8, 32)), np.ones((8, 16))
    >>> history = model.fit(x, y, callbacks=[prune], verbose=0)
    >>> kanets.pruning.sparsity(model)
    0.5
    """

    def __init__(self, sparsity, to_epoch, from_epoch=1):
        super().__init__()
        if not (is_number(sparsity) and 0 < sparsity < 1):
            raise ValueError(
                f"sparsity must be in (0, 1). Received: sparsity={sparsity!r}"
            )
        self.sparsity = float(sparsity)
        self.to_epoch = positive_integer("to_epoch", to_epoch)
        self.from_epoch = positive_integer("from_epoch", from_epoch)
        if self.to_epoch < self.from_epoch:
            raise ValueError(
                "to_epoch must be from_epoch or later. Received: "
                f"from_epoch={from_epoch}, to_epoch={to_epoch}"
            )
        self._kernels, self._masks, self._taken, self._calls = [], [], 0.0, 0

    def share(self, epochs):
        """The share of zeros after so many epochs, fractions allowed."""
        span = self.to_epoch - self.from_epoch + 1
        part = (epochs - self.from_epoch + 1) / span
        part = min(max(part, 0.0), 1.0)
        return self.sparsity * (1 - (1 - part) ** 3)

    def on_train_begin(self, logs=None):
        self._kernels = _kernels(self.model, self.model.trainable_variables)
        self._masks, self._taken, self._calls = [], 0.0, 0

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        self._take(self.share(epoch))  # of a run that goes on

    def on_train_batch_end(self, batch, logs=None):
        self._calls += 1
        steps = self.params["steps"]
        if self._calls % EVERY == 0 and steps:
            self._take(self.share(self._epoch + (batch + 1) / steps))
        self._apply()

    def on_epoch_end(self, epoch, logs=None):
        self._take(self.share(epoch + 1))
        self._apply()

    def on_test_begin(self, logs=None):
        self._apply()  # to the averages that may have taken their place

    def on_train_end(self, logs=None):
        self._apply()

    def _take(self, share):
        if share > self._taken:
            self._taken = share
            self._synchronize()
            self._masks = [_mask(kernel, share) for kernel in self._kernels]

    def _apply(self):
        if self._masks:
            self._synchronize()
        for kernel, mask in zip(self._kernels, self._masks, strict=False):
            kernel.assign(kernel.value * mask)

    def _synchronize(self):
        """Brings variables up to date, which JAX keeps elsewhere in `fit()`."""
        self.model  # noqa: B018


def _mask(kernel, share):
    """Zero where the smallest of a kernel's weights are, one elsewhere."""
    values = keras.ops.convert_to_numpy(kernel.value)
    count = round(share * values.size)
    mask = np.ones(values.size, values.dtype)
    if count:
        sizes = np.abs(values.astype("float32")).ravel()
        mask[np.argpartition(sizes, count - 1)[:count]] = 0
    return keras.ops.convert_to_tensor(mask.reshape(values.shape))


def _kernels(model, variables):
    """Those variables of a model whose weights are pruned."""
    found = [
        variable
        for variable in variables
        if variable.name == "kernel"
        and len(variable.shape) > 1
        and min(variable.shape[-2:]) >= LEAST
    ]
    if not found:
        raise ValueError(
            f"There must be a kernel with {LEAST} channels or more at both "
            f"ends, to be trained. Received: model={model.name!r}"
        )
    return found


def sparsity(model):
    """The share of zeros among the weights that `MagnitudePruning` takes from.

    Args:
        model: a built `keras.Model`.

    Returns:
        A float in [0, 1].

    Raises:
        ValueError: a model without such kernels.
    """
    found = _kernels(model, model.weights)
    values = [keras.ops.convert_to_numpy(kernel.value) for kernel in found]
    zeros = sum(int(np.sum(x == 0)) for x in values)
    return zeros / sum(x.size for x in values)
