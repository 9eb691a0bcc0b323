# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # A KANet in a loop of PyTorch
#
# **Author:** the kanets authors. **Date:** 2026-11-30.
# **Description:** with Keras on PyTorch a net of ours is a `torch.nn.Module`:
# PyTorch's optimizers, losses and tensors, and our attention.

# %%
import os

os.environ["KERAS_BACKEND"] = "torch"  # before Keras is imported

import tempfile
from pathlib import Path

import keras
import torch

import kanets

keras.utils.set_random_seed(0)
folder = Path(tempfile.mkdtemp())
sample = kanets.data.unpack_sample(folder / "pictures")
train, val = kanets.data.load(sample, image_size=(32, 32), batch_size=100)

# %% [markdown]
# ## A trained net
#
# with a new head for the classes of the data.

# %%
net = kanets.create_model("kanet_qkv_cifar10", num_classes=10)
net = kanets.nets.logits_model(net)  # without its softmax
print(isinstance(net, torch.nn.Module))

# %% [markdown]
# ## PyTorch's own loop

# %%
optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
for epoch in range(2):
    total = 0.0
    for pictures, labels in train:
        logits = net(torch.as_tensor(pictures), training=True)
        labels = torch.as_tensor(labels).long()
        loss = torch.nn.functional.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    print(f"epoch {epoch + 1}: loss {total / len(train):.3f}")

# %%
right = count = 0
with torch.no_grad():
    for pictures, labels in val:
        logits = net(torch.as_tensor(pictures), training=False)
        right += (logits.argmax(-1) == torch.as_tensor(labels)).sum().item()
        count += len(labels)
print(f"{right} of {count} held-out pictures right")

# %% [markdown]
# ## Operators are functions of tensors
#
# which PyTorch differentiates.

# %%
x = torch.randn(2, 14, 14, 8, requires_grad=True)
kanets.attention.kao_qkv(x).sum().backward()
print(x.grad.shape)
