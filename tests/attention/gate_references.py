"""Gates in loops, in float64, for one picture (H, W, C) at a time.

`weights` are by the ends of their paths, "reduce/kernel".
"""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def mapped(x, weights, name):
    """A map of channels of a vector."""
    kernel = weights[f"{name}/kernel"]
    bias = weights.get(f"{name}/bias", 0)
    return x @ kernel.reshape(kernel.shape[-2:]) + bias


def batch_norm(x, weights, name):
    scale = np.sqrt(weights[f"{name}/moving_variance"] + 1e-5)
    x = (x - weights[f"{name}/moving_mean"]) / scale
    return x * weights[f"{name}/gamma"] + weights[f"{name}/beta"]


def whole_norm(x, weights, name, epsilon):
    x = (x - x.mean()) / np.sqrt(x.var() + epsilon)
    return x * weights[f"{name}/gamma"] + weights[f"{name}/beta"]


def squeeze_excitation(x, weights):
    height, width, _ = x.shape
    mean = sum(x[i, j] for i, j in np.ndindex(height, width)) / height / width
    hidden = np.maximum(mapped(mean, weights, "reduce"), 0)
    return x * sigmoid(mapped(hidden, weights, "expand"))


def hard_squeeze_excitation(x, weights):
    hidden = np.maximum(mapped(x.mean((0, 1)), weights, "reduce"), 0)
    gate = np.clip(mapped(hidden, weights, "expand") + 3, 0, 6) / 6
    return x * gate


def efficient_channel(x, weights):
    mean, kernel = x.mean((0, 1)), weights["along/kernel"].ravel()
    total = np.zeros_like(mean)
    for c, t in np.ndindex(len(mean), len(kernel)):
        other = c + t - len(kernel) // 2
        if 0 <= other < len(mean):
            total[c] += kernel[t] * mean[other]
    return x * sigmoid(total)


def cbam(x, weights):
    total = 0
    for vector in (x.mean((0, 1)), x.max((0, 1))):
        hidden = np.maximum(mapped(vector, weights, "reduce"), 0)
        total = total + mapped(hidden, weights, "expand")
    x = x * sigmoid(total)
    kernel = weights["around/kernel"]
    reach, output = len(kernel) // 2, np.zeros_like(x)
    for i, j in np.ndindex(x.shape[:2]):
        found = 0
        for k, m in np.ndindex(kernel.shape[:2]):
            row, column = i + k - reach, j + m - reach
            if 0 <= row < x.shape[0] and 0 <= column < x.shape[1]:
                cell = x[row, column]
                described = np.array([cell.mean(), cell.max()])
                found = found + described @ kernel[k, m, :, 0]
        output[i, j] = x[i, j] * sigmoid(batch_norm(found, weights, "norm"))
    return output


def global_context(x, weights):
    logits = mapped(x, weights, "logits")
    shares = np.exp(logits - logits.max())
    shares /= shares.sum()
    context = sum(shares[i, j] * x[i, j] for i, j in np.ndindex(x.shape[:2]))
    hidden = mapped(context, weights, "reduce")
    hidden = np.maximum(whole_norm(hidden, weights, "norm", 1e-6), 0)
    return mapped(hidden, weights, "expand")


def context_added(x, weights):
    return x + global_context(x, weights)


def context_scaled(x, weights):
    return x * sigmoid(global_context(x, weights))


def coordinate(x, weights):
    output = np.zeros_like(x)
    for i, j in np.ndindex(x.shape[:2]):
        gate = 1
        means = {"rows": x[i].mean(0), "columns": x[:, j].mean(0)}
        for name, mean in means.items():
            hidden = mapped(mean, weights, "reduce")
            hidden = batch_norm(hidden, weights, "norm")
            hidden = hidden * np.clip(hidden + 3, 0, 6) / 6
            gate = gate * sigmoid(mapped(hidden, weights, name))
        output[i, j] = x[i, j] * gate
    return output


def efficient_local(x, weights):
    gates = []
    for axis, name in enumerate(("rows", "columns")):
        means, kernel = x.mean(1 - axis), weights[f"{name}/kernel"]
        kernel = kernel.reshape(-1, x.shape[-1])
        mixed = np.zeros_like(means)
        for i, t in np.ndindex(len(means), len(kernel)):
            other = i + t - len(kernel) // 2
            if 0 <= other < len(means):
                mixed[i] += kernel[t] * means[other]
        mixed = whole_norm(mixed, weights, f"{name}_norm", 1e-5)
        gates.append(sigmoid(mixed * sigmoid(mixed)))
    rows, columns = gates
    return x * rows[:, None] * columns[None]
