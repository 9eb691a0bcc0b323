# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # A net that says what it sees
#
# **Author:** the kanets authors. **Date:** 2026-11-30.
# **Description:** trains a captioner with additive attention on drawn scenes,
# and looks at where it looks as it says each word.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np

import kanets

keras.utils.set_random_seed(0)

# %% [markdown]
# ## Scenes and sentences
#
# Two or three coloured shapes each, drawn by the package.

# %%
train = kanets.data.draw_scenes(2400, seed=0, image_size=96)
test = kanets.data.draw_scenes(200, seed=2, image_size=96)
print(train.pictures.shape, train.sentences[0])

# %% [markdown]
# ## What a pretrained net makes of them
#
# Maps of 6 x 6 cells. The net is frozen, so each picture is asked for once.

# %%
net = kanets.feature_model(
    "efficientnet_lite0_imagenet", ["level4"], (96, 96, 3)
)
train_maps = net.predict(train.pictures, verbose=0)["level4"]
test_maps = net.predict(test.pictures, verbose=0)["level4"]
print(train_maps.shape)

# %% [markdown]
# ## The captioner
#
# At each word it weighs the cells by what it has said so far (`tanh` of two
# projections, a softmax), and sees their weighted mean.

# %%
inputs = keras.Input(train_maps.shape[1:])
maps = keras.layers.Activation("linear")(inputs)
model = kanets.Captioner(
    keras.Model(inputs, maps, name="maps"),
    kanets.data.Vocabulary.of(train.sentences),
    max_length=14,
    units=64,
)
epochs = 10
rate = keras.optimizers.schedules.CosineDecay(4e-3, epochs * 38)
model.compile(
    keras.optimizers.Adam(rate, clipnorm=1.0),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    weighted_metrics=["accuracy"],
)
model.fit(train_maps, train.sentences, batch_size=64, epochs=epochs, verbose=2)

# %% [markdown]
# ## Scenes it has not seen

# %%
captions = model.caption(test_maps, beam_width=3, batch_size=100)
right = np.mean(
    [said == true for said, true in zip(captions, test.sentences, strict=True)]
)
print(f"{100 * right:.0f} % of {len(captions)} sentences right in every word")
for said, true in zip(captions[:3], test.sentences[:3], strict=True):
    print(f"said {said!r}, true {true!r}")

# %% [markdown]
# ## Where it looks at each word

# %%
memory = keras.Model(model.input["pictures"], model.get_layer("memory").output)
tokens = model.examples(test_maps[:1], test.sentences[:1])[0]["tokens"]
_, weights = model.decoder(
    tokens, memory(test_maps[:1]), return_attention_scores=True
)
weights = keras.ops.convert_to_numpy(weights)[0].reshape(-1, 6, 6)
words = test.sentences[0].split()
figure, panels = plt.subplots(
    1, len(words) + 1, figsize=(1.4 * (len(words) + 1), 1.8)
)
panels[0].imshow(test.pictures[0])
for panel, word, weight in zip(panels[1:], words, weights, strict=False):
    panel.imshow(test.pictures[0], alpha=0.35)
    panel.imshow(weight, extent=(0, 96, 96, 0), alpha=0.65, cmap="magma")
    panel.set_title(word, fontsize=9)
for panel in panels:
    panel.axis("off")
