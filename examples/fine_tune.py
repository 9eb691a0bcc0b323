# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # Fine-tune on pictures of your own
#
# **Author:** the kanets authors. **Date:** 2026-11-30.
# **Description:** trains a net with ImageNet's weights and Kronecker attention
# on a folder of pictures, and looks at where it errs.

# %%
import dataclasses
import tempfile
from pathlib import Path

from IPython.display import Image

import kanets

folder = Path(tempfile.mkdtemp())
sample = kanets.data.unpack_sample(folder / "pictures")

# %% [markdown]
# ## A recipe
#
# `kanets finetune kanet_lite0_imagenet --data photos --to runs/mine` makes this
# recipe of its options and of what it finds in the folder. It is plain data,
# and can be changed; here it gets one epoch, for a page that is soon made.

# %%
recipe = kanets.recipes.finetune_recipe(
    "kanet_lite0_imagenet", sample, image_size=(64, 64)
)
recipe = dataclasses.replace(recipe, epochs=1)
print(kanets.recipes.to_toml(recipe))

# %% [markdown]
# ## Trained
#
# The folder holds the recipe, the log, the best model, and what the run needs
# to go on if it is stopped.

# %%
result = kanets.recipes.train(recipe, folder / "run", report=True)
print(f"accuracy {result['val_accuracy']:.4f}")
sorted(path.name for path in (folder / "run").iterdir())

# %% [markdown]
# ## Where it errs

# %%
Image(folder / "run" / "report" / "confusion.png")

# %%
Image(folder / "run" / "report" / "mistakes.png")

# %% [markdown]
# ## Used

# %%
picture = next((sample / "val" / "ship").iterdir())
kanets.evaluation.predict(folder / "run", [picture], top_k=3)
