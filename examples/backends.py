# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # The same net on JAX
#
# **Author:** the kanets authors. **Date:** 2026-11-30.
# **Description:** loads a net that was trained on TensorFlow under JAX, gets
# the same answers, and trains it there. With `"torch"` it is PyTorch.

# %%
import os

os.environ["KERAS_BACKEND"] = "jax"  # before Keras is imported

import tempfile
from pathlib import Path

import keras
import numpy as np

import kanets

keras.utils.set_random_seed(0)
folder = Path(tempfile.mkdtemp())
sample = kanets.data.unpack_sample(folder / "pictures")
train, val = kanets.data.load(sample, image_size=(32, 32), batch_size=100)
print(keras.backend.backend())

# %% [markdown]
# ## A trained model

# %%
model = kanets.load_model("kanet_qkv_cifar10")
model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
loss, accuracy = model.evaluate(val, verbose=0)
print(f"accuracy {accuracy:.3f}")

# %% [markdown]
# ## Operators are functions of arrays
#
# which JAX differentiates, compiles and maps like its own.

# %%
import jax

x = np.random.default_rng(0).normal(size=(2, 14, 14, 8)).astype("float32")
slope = jax.jit(jax.grad(lambda x: kanets.attention.kao_qkv(x).sum()))(x)
print(slope.shape, slope.dtype)

# %% [markdown]
# ## Trained on

# %%
fresh = kanets.create_model("kanet_qkv_cifar10", num_classes=10)
fresh.compile("adamw", "sparse_categorical_crossentropy", metrics=["accuracy"])
history = fresh.fit(train, validation_data=val, epochs=1, verbose=2)
