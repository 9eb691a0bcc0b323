"""Does a captioner look at what it names?

    nice -n 19 python benchmarks/captioning.py

Ten minutes of one core. Draws scenes (`kanets.data.draw_scenes`, 96 pixels) and
trains a `kanets.Captioner` on them with `fit`, on the maps of the zoo's
EfficientNet-Lite0 at stride 16 (6 x 6 cells of 112 channels), which are frozen
and so computed once. Three seeds, of the decoder and the order; soft and hard
attention. Five of the 30 pairs of colour and shape are in no training scene.
Epochs and learning rate were chosen on scenes of another seed. A row that is
there is not repeated. Writes `captioning.csv` and `captioning.png`: the first
test scenes of two objects and of three, whether the soft captioner of the first
seed says the true sentence, and where it looks at each word of that.

    exact            share of sentences that are right in every word, by beam
                     search of width 3
    words            share of the true sentence's words that the caption has at
                     the same place
    peak_on_object   share of the words that name an object, by colour or by
                     shape, where the cell of the largest weight lies on it: the
                     cell's square, 16 pixels at the middle of what the cell's
                     convolutions see, [16 i + 7.5, 16 i + 23.5), meets the
                     object's box; while the true sentence is told
    peak_on_grid     the same with squares [16 i, 16 i + 16)
    by_chance        of peak_on_object, for a cell that is drawn

of test scenes all of whose objects were in training ("seen") and of others
("unseen"); `peak_on_object` of both together.
"""

import argparse
import os
import sys
import time
from pathlib import Path

from measure import machine
from tables import holds, read, write

HERE = Path(__file__).parent
TRAINED, TESTED, LENGTH, SIDE, STRIDE = 6000, 2000, 14, 96, 16
UNITS, BATCH, RATE, BEAM_WIDTH = 64, 64, 4e-3, 3
# The middle of what a cell sees: Keras's "same" padding of even sides is one
# more at their end, so that each stride of 2 moves it by half the old stride.
MIDDLE = 15.5
UNSEEN = (
    ("red", "circle"),
    ("green", "square"),
    ("blue", "triangle"),
    ("yellow", "diamond"),
    ("purple", "cross"),
)
SHOWN, COLUMNS = 3, 9  # scenes of two objects, and of three; panels a row


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.path.insert(0, str(HERE.parent))
    path = Path(__file__).with_suffix(".csv")
    rows = read(path)
    trained, tested = data()
    for attention in ("soft", "hard"):
        for seed in range(arguments.seeds):
            case = {"attention": attention, "seed": seed}
            case["epochs"] = arguments.epochs
            if holds(rows, **case):
                continue
            model, seconds = train(trained, attention, seed, arguments.epochs)
            row, captions, weights = measure(model, tested)
            rows.append(
                {
                    **case,
                    **row,
                    "trained": TRAINED,
                    "tested": TESTED,
                    "cpu_seconds": f"{seconds:.0f}",
                    "machine": machine("keras", os.environ["KERAS_BACKEND"]),
                }
            )
            print(rows[-1], flush=True)
            write(path, rows)
            if (attention, seed) == ("soft", 0):
                plot(tested[0], captions, weights)


def data():
    """Pairs of scenes and their maps: to train on, and to test."""
    import kanets
    from kanets.data.scenes import OBJECTS

    net = kanets.feature_model(
        "efficientnet_lite0_imagenet", ["level4"], (SIDE, SIDE, 3)
    )
    seen = [pair for pair in OBJECTS if pair not in UNSEEN]
    pairs = []
    for count, seed, objects in ((TRAINED, 0, seen), (TESTED, 2, None)):
        scenes = kanets.data.draw_scenes(count, seed, SIDE, objects)
        maps = net.predict(scenes.pictures, batch_size=BATCH, verbose=0)
        pairs.append((scenes, maps["level4"]))
    return pairs


def train(trained, attention, seed, epochs):
    """A captioner of maps, and the seconds of `fit`."""
    import keras

    import kanets

    keras.utils.set_random_seed(seed)
    scenes, maps = trained
    inputs = keras.Input(maps.shape[1:])
    as_they_are = keras.layers.Activation("linear")(inputs)
    model = kanets.Captioner(
        keras.Model(inputs, as_they_are, name="maps"),
        kanets.data.Vocabulary.of(scenes.sentences),
        max_length=LENGTH,
        units=UNITS,
        hard=attention == "hard",
    )
    steps = epochs * -(-len(maps) // BATCH)
    rate = keras.optimizers.schedules.CosineDecay(RATE, steps)
    model.compile(
        keras.optimizers.Adam(rate, clipnorm=1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=["accuracy"],
    )
    begin = time.process_time()
    model.fit(
        maps, scenes.sentences, batch_size=BATCH, epochs=epochs, verbose=2
    )
    return model, time.process_time() - begin


def measure(model, tested):
    """The figures, the captions, and the weights at the true words."""
    import numpy as np

    scenes, maps = tested
    captions = model.caption(maps, beam_width=BEAM_WIDTH, batch_size=250)
    unseen = np.array(
        [any(" ".join(p) in text for p in UNSEEN) for text in scenes.sentences]
    )
    exact = np.array(
        [c == s for c, s in zip(captions, scenes.sentences, strict=True)]
    )
    true, found = (
        model.vocabulary.encode(texts, LENGTH)[:, 1:]
        for texts in (scenes.sentences, captions)
    )
    words = true > 3  # no padding and no end
    row = {}
    for name, chosen in (("seen", ~unseen), ("unseen", unseen)):
        right = (true == found)[chosen][words[chosen]]
        row[f"exact_{name}"] = f"{exact[chosen].mean():.4f}"
        row[f"words_{name}"] = f"{right.mean():.4f}"
    weights = looks(model, maps, scenes.sentences)
    for name, middle in (
        ("peak_on_object", MIDDLE),
        ("peak_on_grid", STRIDE / 2),
    ):
        on = on_objects(scenes, maps.shape[1], middle)
        peaks = weights.argmax(-1)[..., None]
        hits = np.take_along_axis(on, peaks, -1)[..., 0]
        named = scenes.names >= 0
        row[name] = f"{hits[named].mean():.4f}"
        if middle == MIDDLE:
            row["by_chance"] = f"{on[named].mean():.4f}"
    return row, captions, weights.reshape(-1, LENGTH, *maps.shape[1:3])


def looks(model, maps, sentences):
    """Weights (B, T, cells) of the words of sentences, as they are told."""
    import keras
    import numpy as np

    memory = keras.Model(
        model.input["pictures"], model.get_layer("memory").output
    )
    tokens = model.examples(maps, sentences)[0]["tokens"]
    weights = []
    for first in range(0, len(maps), 250):
        part = slice(first, first + 250)
        _, found = model.decoder(
            tokens[part], memory(maps[part]), return_attention_scores=True
        )
        weights.append(keras.ops.convert_to_numpy(found)[:, :LENGTH])
    return np.concatenate(weights)


def on_objects(scenes, cells, middle):
    """Whether a cell's square meets the box of a word's object.

    Returns:
        bool (B, T, cells²); no matter what for a word that names none.
    """
    import numpy as np

    first = STRIDE * np.arange(cells) + middle - STRIDE / 2
    boxes = np.take_along_axis(
        scenes.boxes, np.maximum(scenes.names, 0)[..., None], axis=1
    )
    top, left, bottom, right = np.moveaxis(boxes, -1, 0)[..., None]
    rows = (first < bottom) & (first + STRIDE > top)
    columns = (first < right) & (first + STRIDE > left)
    both = rows[..., :, None] & columns[..., None, :]
    return both.reshape(*both.shape[:2], -1)


def plot(scenes, captions, weights):
    """Where each word of some scenes looked, and what was said."""
    numbers = first_scenes(scenes)
    told = [
        "said so" if said == true else f"said: {said}"
        for said, true in (
            (captions[number], scenes.sentences[number]) for number in numbers
        )
    ]
    draw("captioning.png", scenes, numbers, weights[numbers], told)


def first_scenes(scenes):
    """Numbers of the first scenes of two objects, and of three."""
    import numpy as np

    third = scenes.boxes[:, 2].any(-1)
    return [*np.flatnonzero(~third)[:SHOWN], *np.flatnonzero(third)[:SHOWN]]


def draw(name, scenes, numbers, weights, titles):
    """Pictures, and beside each where its words look: the rest is dark.

    Args:
        name: of the file.
        scenes: all there are.
        numbers: of those to draw.
        weights: (drawn, T, H, W), of theirs.
        titles: over the pictures, a line each.
    """
    from matplotlib.figure import Figure

    texts = [scenes.sentences[number].split() for number in numbers]
    heights = [-(-(len(words) + 1) // COLUMNS) for words in texts]
    figure = Figure(figsize=(12, 1.75 * sum(heights)), layout="constrained")
    parts = figure.subfigures(len(numbers), 1, height_ratios=heights)
    for part, height, number, words, looks, title in zip(
        parts, heights, numbers, texts, weights, titles, strict=True
    ):
        part.suptitle(title, fontsize=10, x=0.01, ha="left")
        panels = part.subplots(height, COLUMNS).ravel()
        for panel in panels:
            panel.axis("off")
        panels[0].imshow(scenes.pictures[number])
        for place, word in enumerate(words):
            draw_word(panels[place + 1], scenes, number, place, looks[place])
            bold = "bold" if scenes.names[number, place] >= 0 else "normal"
            panels[place + 1].set_title(word, fontsize=11, fontweight=bold)
    figure.savefig(HERE / name, dpi=80)


def draw_word(panel, scenes, number, place, look):
    """Cells as light as they weigh, and the box of what the word names."""
    import numpy as np
    from matplotlib.patches import Rectangle

    cells = (np.arange(SIDE) + 0.5 - MIDDLE) / STRIDE + 0.5
    cells = np.clip(cells.astype(int), 0, SIDE // STRIDE - 1)
    light = (look / look.max())[cells][:, cells, None]
    picture = scenes.pictures[number] * (0.2 + 0.8 * light)
    panel.imshow(picture.astype("uint8"))
    name = scenes.names[number, place]
    if name >= 0:
        top, left, bottom, right = scenes.boxes[number, name] - 0.5
        box = Rectangle((left, top), right - left, bottom - top)
        box.set(fill=False, edgecolor="orange", linewidth=2)
        panel.add_patch(box)


if __name__ == "__main__":
    main()
