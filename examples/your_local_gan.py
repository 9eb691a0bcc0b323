# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # Your Local GAN
#
# **Author:** the kanets authors. **Date:** 2026-11-30.
# **Description:** looks at patterns of local attention, draws pictures with a
# trained YLG-SAGAN, and trains a small one for a few steps.

# %%
import tempfile
from pathlib import Path

import keras
import numpy as np
from IPython.display import Image

import kanets
import ylg

keras.utils.set_random_seed(0)
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## Patterns
#
# Each head sees O(sqrt n) of the n cells. Two steps of a pattern connect all
# with all: that is what the information flow graph says.

# %%
heads = ylg.patterns.ylg_heads((12, 12))
ylg.patterns.plot(heads[:4], folder / "patterns.png")
Image(folder / "patterns.png")

# %%
left_to_right = [
    ylg.patterns.left_floor((12, 12)),
    ylg.patterns.left_repetitive((12, 12)),
]
graph = ylg.information_flow.InformationFlowGraph(left_to_right)
print(graph.num_edges, "edges of", 2 * 144**2)
print("all see all:", graph.has_full_information())

# %% [markdown]
# ## Drawn by a trained generator
#
# A column a class, of CIFAR-10 (JPEG).

# %%
generator = kanets.load_model("ylg_sagan_cifar10")
z = ylg.gan.latents(generator.inputs[0].shape[-1], 40)
pictures = ylg.gan.draw(generator, z)
keras.utils.save_img(folder / "drawn.png", ylg.gan.picture_grid(pictures, 10))
Image(folder / "drawn.png", width=680)

# %% [markdown]
# ## Trained
#
# On 64 of the pictures that the package brings along, for a few steps: enough
# to see it run, not to see anything.

# %%
sample = kanets.data.unpack_sample(folder / "pictures")
train, _ = kanets.data.load(sample, image_size=(32, 32), batch_size=64)
images, labels = next(iter(train))
gan = ylg.SAGAN(image_size=32, num_classes=10, width=8, attention="ylg")
gan.compile()
history = gan.fit(np.asarray(images), np.asarray(labels), epochs=2, verbose=2)
