# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # Export to a phone
#
# **Author:** the kanets authors. **Date:** 2026-11-30.
# **Description:** makes files for LiteRT of a trained net, in 32-bit floats and
# in 8-bit integers, and compares them with the net.

# %%
import tempfile
from pathlib import Path

import kanets

folder = Path(tempfile.mkdtemp())
sample = kanets.data.unpack_sample(folder / "pictures")
model = kanets.create_model("kanet_qkv_cifar10")

# %% [markdown]
# ## Two files
#
# Weights and maps in integers want to know how large the maps become: that is
# measured on some training pictures.

# %%
train, _ = kanets.data.load(sample, image_size=(32, 32), batch_size=300)
pictures, _ = next(iter(train))
small = kanets.export_litert(model, folder / "float32")
smaller = kanets.export_litert(
    model, folder / "int8", precision="int8", representative=pictures
)
for export in (small, smaller):
    size = (export / "model.tflite").stat().st_size
    print(f"{export.name}: {size / 1e6:.2f} MB")

# %% [markdown]
# ## Compared
#
# In LiteRT itself, as `kanets verify` does.

# %%
for source in (model, small, smaller):
    report = kanets.evaluation.evaluate(source, sample)
    print(f"{source.name}: accuracy {report['accuracy']:.3f}")

# %% [markdown]
# ## The program on the phone
#
# needs the runtime and NumPy, or what stands for it there: no Keras, no kanets.
# The file takes pixels from 0 to 255 and gives the probabilities of the
# classes.

# %%
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

interpreter = Interpreter(str(smaller / "model.tflite"))
run = interpreter.get_signature_runner()
[name] = run.get_input_details()
pixels = np.asarray(Image.open(next((sample / "val" / "ship").iterdir())))
[scores] = run(**{name: pixels[None].astype("float32")}).values()
labels = (smaller / "labels.txt").read_text().splitlines()
print(labels[int(scores.argmax())], f"{scores.max():.3f}")
