# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # Attention in a pretrained net
#
# **Author:** the kanets authors. **Date:** 2026-11-30.
# **Description:** puts Kronecker attention into a net with ImageNet's weights,
# shows that it answers as before, and trains the attention alone.

# %%
import tempfile
from pathlib import Path

import keras
import numpy as np
from IPython.display import Image

import kanets

keras.utils.set_random_seed(0)
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## Pictures
#
# The package brings 1,100 pictures of CIFAR-10 along. Yours are a folder, too:
# `train/` and `val/`, each with a folder per class.

# %%
sample = kanets.data.unpack_sample(folder / "pictures")
train, val = kanets.data.load(sample, image_size=(64, 64), batch_size=32)
print(train.num_pictures, "pictures of", train.class_names)

# %% [markdown]
# ## A net with the weights of ImageNet
#
# This one comes with the package. A net of `keras.applications` with
# `weights="imagenet"`, or a functional model of your own, does as well.

# %%
net = kanets.create_model(
    "efficientnet_lite0_imagenet",
    num_classes=len(train.class_names),
    input_shape=(64, 64, 3),
)
print(f"{net.count_params():,} parameters")

# %% [markdown]
# ## Attention, closed
#
# After each layer that the second argument matches stands now x +
# attention(norm(x)), and the last map of the attention is zero. So the copy
# answers as the net did, to the last bit.

# %%
looking = kanets.insert_attention(net, "every stride", "kao_qkv")
pictures = next(iter(val))[0]
difference = np.abs(
    looking.predict(pictures, verbose=0) - net.predict(pictures, verbose=0)
).max()
added = looking.count_params() - net.count_params()
print(f"{added:,} parameters more, largest difference {difference}")

# %% [markdown]
# ## Attention and head alone
#
# `train="attention"` freezes all layers that were there; the new head learns,
# as it is new.

# %%
looking = kanets.insert_attention(
    net, "every stride", "kao_qkv", train="attention"
)
looking.layers[-1].trainable = True
looking.compile(
    keras.optimizers.AdamW(3e-3),
    "sparse_categorical_crossentropy",
    metrics=["accuracy"],
)
history = looking.fit(train, validation_data=val, epochs=2, verbose=2)

# %% [markdown]
# ## What it looks at
#
# The pixel in the circle, in the last layer of attention of each size.

# %%
shown = [
    keras.utils.img_to_array(keras.utils.load_img(path, target_size=(64, 64)))
    for path in sorted((sample / "val").glob("*/*.jpg"))[::70]
]
Image(kanets.visualize.attention_sheet(looking, shown, folder / "seen.png"))
