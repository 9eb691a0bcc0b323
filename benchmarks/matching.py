"""Do words that look at cells match pictures better than two vectors do?

    nice -n 19 python benchmarks/matching.py

Ten minutes of one core. Trains `kanets.Matcher` with `fit` on the scenes and
the frozen maps of `captioning.py`, with cross-attention and without: then a
picture and a sentence are a vector each, of more units, so that both have the
same number of parameters, nearly. Three seeds, of the weights and the order;
epochs and learning rate are those of `captioning.py`. A row that is there is
not repeated. Writes `matching.csv` and `matching.png`: the first test scenes of
two objects and of three, and where each word looks, by cross-attention of the
first seed.

    sentence_at_1    share of the pictures that score highest, of 100 sentences,
                     with their own
    picture_at_1     share of the sentences that score highest, of 100 pictures,
                     with their own
    colours, sides   share of the pictures that score higher with their own
                     sentence than with one in which the colours of the first
                     two objects are swapped, where they differ, or the sides:
                     left and right, above and below
    peak_on_object   as in `captioning.py`, of both kinds of scenes together

of test scenes all of whose objects were in training ("seen") and of others
("unseen"), in hundreds of one kind, in order. By chance 1 % are right, and half
of the swapped. The same sentence of another scene is right, too, and the loss
leaves it out: 0.42 of the 4,032 pairs of others in a batch, on average. A scene
of three objects has two shorter sentences that are true of it, too, and these
count as wrong: 0.85 of the 4,032.
"""

import argparse
import os
import sys
import time
from pathlib import Path

from captioning import (
    BATCH,
    LENGTH,
    MIDDLE,
    RATE,
    UNSEEN,
    data,
    draw,
    first_scenes,
    on_objects,
)
from measure import machine
from tables import holds, read, write

HERE = Path(__file__).parent
UNITS = {True: 64, False: 70}
GALLERY = 100
SIDES = {"left": "right", "right": "left", "above": "below", "below": "above"}


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
    for seed in range(arguments.seeds):
        for cross_attention in (True, False):
            case = {"cross_attention": cross_attention, "seed": seed}
            case["epochs"] = arguments.epochs
            if holds(rows, **case):
                continue
            model, seconds = train(
                trained, cross_attention, seed, arguments.epochs
            )
            rows.append(
                {
                    **case,
                    **measure(model, tested, cross_attention),
                    "parameters": model.count_params(),
                    "trained": len(trained[1]),
                    "tested": len(tested[1]),
                    "cpu_seconds": f"{seconds:.0f}",
                    "machine": machine("keras", os.environ["KERAS_BACKEND"]),
                }
            )
            print(rows[-1], flush=True)
            write(path, rows)
            if cross_attention and seed == 0:
                plot(model, tested)


def train(trained, cross_attention, seed, epochs):
    """A matcher of maps, and the seconds of `fit`."""
    import keras

    import kanets

    keras.utils.set_random_seed(seed)
    scenes, maps = trained
    inputs = keras.Input(maps.shape[1:])
    as_they_are = keras.layers.Activation("linear")(inputs)
    model = kanets.Matcher(
        keras.Model(inputs, as_they_are, name="maps"),
        kanets.data.Vocabulary.of(scenes.sentences),
        max_length=LENGTH,
        units=UNITS[cross_attention],
        cross_attention=cross_attention,
    )
    steps = epochs * -(-len(maps) // BATCH)
    rate = keras.optimizers.schedules.CosineDecay(RATE, steps)
    model.compile(
        keras.optimizers.Adam(rate, clipnorm=1.0),
        kanets.losses.ContrastiveLoss(),
    )
    x, y = model.examples(maps, scenes.sentences)
    begin = time.process_time()
    model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=2)
    return model, time.process_time() - begin


def measure(model, tested, cross_attention):
    """The figures of a row."""
    import numpy as np

    scenes, maps = tested
    sentences = np.array(scenes.sentences)
    wrong = {
        "colours": np.array([*map(colours_swapped, sentences, scenes.names)]),
        "sides": np.array([*map(sides_swapped, sentences)]),
    }
    unseen = np.array(
        [any(" ".join(p) in text for p in UNSEEN) for text in sentences]
    )
    row = {}
    for kind, chosen in (("seen", ~unseen), ("unseen", unseen)):
        found = {"sentence_at_1": [], "picture_at_1": []}
        found |= {name: [] for name in wrong}
        chosen = np.flatnonzero(chosen)
        for first in range(0, len(chosen) - GALLERY + 1, GALLERY):
            part = chosen[first : first + GALLERY]
            texts = sentences[part]
            scores = model.scores(maps[part], texts)
            found["sentence_at_1"] += [texts[scores.argmax(1)] == texts]
            found["picture_at_1"] += [texts[scores.argmax(0)] == texts]
            for name, others in wrong.items():
                other = np.diag(model.scores(maps[part], others[part]))
                higher = np.diag(scores) > other
                found[name] += [higher[others[part] != texts]]
        for name, hits in found.items():
            row[f"{name}_{kind}"] = f"{np.concatenate(hits).mean():.4f}"
    row["peak_on_object"] = ""
    if cross_attention:
        looks = model.attention_maps(maps, scenes.sentences)
        on = on_objects(scenes, maps.shape[1], MIDDLE)
        peaks = looks.reshape(*on.shape).argmax(-1)[..., None]
        hits = np.take_along_axis(on, peaks, -1)[..., 0]
        row["peak_on_object"] = f"{hits[scenes.names >= 0].mean():.4f}"
    return row


def colours_swapped(sentence, names):
    """The sentence, the first two objects in each other's colours."""
    words, names = sentence.split(), list(names)
    one, other = names.index(0), names.index(1)
    words[one], words[other] = words[other], words[one]
    return " ".join(words)


def sides_swapped(sentence):
    """The sentence with left for right, above for below, and so on."""
    return " ".join(SIDES.get(word, word) for word in sentence.split())


def plot(model, tested):
    """Where each word of some scenes looks."""
    scenes, maps = tested
    numbers = first_scenes(scenes)
    texts = [scenes.sentences[number] for number in numbers]
    looks = model.attention_maps(maps[numbers], texts)
    draw("matching.png", scenes, numbers, looks, texts)


if __name__ == "__main__":
    main()
