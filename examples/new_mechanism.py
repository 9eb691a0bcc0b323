# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # A new attention mechanism
#
# **Author:** the kanets authors. **Date:** 2026-11-30.
# **Description:** writes a mechanism in forty lines, uses it in a net, trains
# it and draws what it looks at.

# %%
import tempfile
from pathlib import Path

import keras
from IPython.display import Image
from keras import ops

import kanets

keras.utils.set_random_seed(0)
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## The mechanism
#
# Every cell looks at the square around it: the cells whose row and column lie
# within `reach` of its own. `kanets.attention.attend` has the
# softmax and the rule of masks; `attention_maps` is how it is drawn.


# %%
@keras.saving.register_keras_serializable(package="example")
class BandAttention(keras.layers.Layer):
    """Softmax attention to the cells within `reach` rows and columns."""

    def __init__(self, reach=2, scale="rsqrt", **kwargs):
        super().__init__(**kwargs)
        self.reach = reach
        self.scale = scale

    def call(self, inputs, return_attention_scores=False):
        _, height, width, channels = inputs.shape
        cells = ops.reshape(inputs, (-1, height * width, channels))
        output, weights = kanets.attention.attend(
            cells,
            cells,
            cells,
            visible=self._near(height, width),
            scale=channels**-0.5 if self.scale == "rsqrt" else self.scale,
        )
        output = ops.reshape(output, (-1, height, width, channels))
        return (output, weights) if return_attention_scores else output

    def _near(self, height, width):
        rows, columns = ops.arange(height), ops.arange(width)
        near_rows = ops.abs(rows[:, None] - rows) <= self.reach
        near_columns = ops.abs(columns[:, None] - columns) <= self.reach
        near = near_rows[:, None, :, None] & near_columns[:, None]
        return ops.reshape(near, (height * width, height * width))

    def attention_maps(self, inputs, position):
        row, column = position
        _, height, width, _ = inputs.shape
        _, weights = self(inputs, return_attention_scores=True)
        seen = weights[:, row * width + column]
        return ops.reshape(seen, (-1, 1, height, width))

    def get_config(self):
        return {
            **super().get_config(),
            "reach": self.reach,
            "scale": self.scale,
        }


# %% [markdown]
# ## In a net
#
# Where a name of `kanets.attention.names()` can stand, a function that makes a
# layer can, too.

# %%
sample = kanets.data.unpack_sample(folder / "pictures")
train, val = kanets.data.load(sample, image_size=(32, 32), batch_size=32)
model = kanets.KANet(
    (32, 32, 3),
    alpha=0.25,
    classes=10,
    strides=(1, 2, 1, 2, 2),
    attention=BandAttention,
)
model.compile("adamw", "sparse_categorical_crossentropy", metrics=["accuracy"])
history = model.fit(train, validation_data=val, epochs=1, verbose=2)

# %% [markdown]
# ## Looked at

# %%
shown = [
    keras.utils.img_to_array(keras.utils.load_img(path))
    for path in sorted((sample / "val").glob("*/*.jpg"))[::70]
]
Image(kanets.visualize.attention_sheet(model, shown, folder / "band.png"))

# %% [markdown]
# To make it one of the family, by name in recipes and on the command line, move
# the class into a file of `kanets/attention/` and add its line to
# `kanets/attention/table.py`.
