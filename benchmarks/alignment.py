"""Does a translator's attention find which words a symbol comes from?

    nice -n 19 python benchmarks/alignment.py

Six minutes of one core. Trains a small translator with `fit`, a bidirectional
GRU and an `AttentionDecoder`, on numbers in words ("four hundred and two
thousand seventeen" to 402017) and dates in three forms ("the third of may 1987"
to 1987-05-03), one model for both, in source words and target characters; the
digits of a year are words of their own. Trained on random inputs of at most
nine words, with three seeds; measured on inputs that no training saw. A row
that is there is not repeated. Writes `alignment.csv` and `alignment.png`, the
weights of the first seed for a number and a date.

    exact            share of outputs that are right in every character, by
                     beam search of width 3
    longer           the same of numbers with ten words or eleven, which are
                     more than any in training has
"""

import argparse
import datetime
import os
import random
import sys
import time
from pathlib import Path

from measure import machine
from tables import holds, read, write

HERE = Path(__file__).parent
TRAINED, TESTED, LONGEST = 10000, 1000, 9
WORDS, CHARACTERS, UNITS, BATCH, RATE, BEAM_WIDTH = 11, 10, 64, 128, 5e-3, 3
SHOWN = (
    "four hundred and two thousand seventeen",
    "the third of may 1 9 8 7",
)
SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve "
    "thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
DAYS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth "
    "eleventh twelfth thirteenth fourteenth fifteenth sixteenth seventeenth "
    "eighteenth nineteenth twentieth"
).split()
DAYS += [f"twenty {day}" for day in DAYS[:9]] + ["thirtieth", "thirty first"]
MONTHS = (
    "january february march april may june july august september october "
    "november december"
).split()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.path.insert(0, str(HERE.parent))
    path = Path(__file__).with_suffix(".csv")
    rows = read(path)
    for seed in range(arguments.seeds):
        if holds(rows, seed=seed, epochs=arguments.epochs):
            continue
        found, shown = train(seed, arguments.epochs)
        rows += found
        write(path, rows)
        if seed == 0:
            plot(shown)


def in_words(number):
    """The words of an integer of 0 to 999,999."""
    if number >= 1000:
        thousands, rest = divmod(number, 1000)
        words = in_words(thousands) + ["thousand"]
        return words + in_words(rest) if rest else words
    if number >= 100:
        hundreds, rest = divmod(number, 100)
        words = [SMALL[hundreds], "hundred"]
        return words + ["and", *in_words(rest)] if rest else words
    if number >= 20:
        tens, ones = divmod(number, 10)
        return [TENS[tens - 2]] + ([SMALL[ones]] if ones else [])
    return [SMALL[number]]


def a_number(generator):
    """Words and characters, as sentences."""
    number = generator.randrange(10 ** generator.randrange(1, 7))
    return " ".join(in_words(number)), " ".join(str(number))


def a_date(generator):
    first, last = (datetime.date(y, 1, 1).toordinal() for y in (1000, 3000))
    date = datetime.date.fromordinal(generator.randrange(first, last))
    day, month, year = DAYS[date.day - 1], MONTHS[date.month - 1], date.year
    year = " ".join(str(year))
    words = generator.choice(
        (
            f"the {day} of {month} {year}",
            f"{month} the {day} {year}",
            f"{date.day} {month} {year}",
        )
    )
    return words, " ".join(date.isoformat())


def examples(make, count, seed, fits, known=()):
    """Different pairs, of which `known` has none."""
    generator, found = random.Random(seed), {}
    while len(found) < count:
        source, target = make(generator)
        if fits(len(source.split())) and source not in known:
            found[source] = target
    return found


class Translator:
    """A bidirectional GRU, and a decoder that attends to its states.

    Args:
        pairs: dict from sentences to translations, of all words there are.
    """

    def __init__(self, pairs):
        import keras

        from kanets.data import Vocabulary
        from kanets.layers import AttentionDecoder

        layers = keras.layers
        self.sources = Vocabulary.of(pairs)
        self.targets = Vocabulary.of(pairs.values())
        source = keras.Input((WORDS + 2,), dtype="int32")
        x = layers.Embedding(len(self.sources), UNITS, mask_zero=True)(source)
        gru = layers.GRU(UNITS, return_sequences=True)
        memory = layers.Bidirectional(gru)(x)
        tokens = keras.Input((CHARACTERS + 1,), dtype="int32")
        self.decoder = AttentionDecoder(len(self.targets), UNITS)
        logits = self.decoder(tokens, memory)
        self.encoder = keras.Model(source, memory)
        self.model = keras.Model([source, tokens], logits)

    def fit(self, pairs, epochs):
        """Trains, and returns the seconds that it took."""
        import keras

        x = self.sources.encode(list(pairs), WORDS)
        y = self.targets.encode(list(pairs.values()), CHARACTERS)
        steps = epochs * -(-len(x) // BATCH)
        rate = keras.optimizers.schedules.CosineDecay(RATE, steps)
        self.model.compile(
            keras.optimizers.Adam(rate, clipnorm=1.0),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            weighted_metrics=["accuracy"],
        )
        begin = time.process_time()
        self.model.fit(
            [x, y[:, :-1]],
            y[:, 1:],
            sample_weight=(y[:, 1:] != 0).astype("float32"),
            batch_size=BATCH,
            epochs=epochs,
            verbose=2,
        )
        return time.process_time() - begin

    def translate(self, texts):
        import keras

        from kanets.data.vocabulary import END, START

        tokens = self.sources.encode(texts, WORDS)
        best, _ = self.decoder.beam_search(
            self.encoder(tokens),
            tokens != 0,
            start=START,
            end=END,
            max_length=CHARACTERS + 1,
            beam_width=BEAM_WIDTH,
        )
        return self.targets.decode(keras.ops.convert_to_numpy(best[:, 0]))

    def looks(self, text, translation):
        """Weights (characters, words) of each character for each word."""
        import keras

        tokens = self.sources.encode([text], WORDS)
        before = self.targets.encode([translation], CHARACTERS)[:, :-1]
        _, weights = self.decoder(
            before,
            self.encoder(tokens),
            tokens != 0,
            return_attention_scores=True,
        )
        return keras.ops.convert_to_numpy(weights[0])


def train(seed, epochs):
    """Rows of the table, and the shown sentences with their weights."""
    import keras
    import numpy as np

    keras.utils.set_random_seed(seed)

    def short(words):
        return words <= LONGEST

    pairs = {
        **examples(a_number, TRAINED // 2, 10 + seed, short, SHOWN),
        **examples(a_date, TRAINED // 2, 20 + seed, short, SHOWN),
    }
    translator = Translator(pairs)
    seconds = translator.fit(pairs, epochs)

    def exact(make, fits):
        texts = examples(make, TESTED, 30 + seed, fits, {*pairs, *SHOWN})
        found = translator.translate(list(texts))
        right = [f == t for f, t in zip(found, texts.values(), strict=True)]
        return f"{np.mean(right):.4f}"

    rows = []
    for kind, make in (("numbers", a_number), ("dates", a_date)):
        longer = ""
        if kind == "numbers":
            longer = exact(make, lambda words: words > LONGEST)
        rows.append(
            {
                "inputs": kind,
                "seed": seed,
                "exact": exact(make, short),
                "longer": longer,
                "tested": TESTED,
                "trained": TRAINED,
                "epochs": epochs,
                "cpu_seconds": f"{seconds:.0f}",
                "machine": machine("keras", os.environ["KERAS_BACKEND"]),
            }
        )
        print(rows[-1], flush=True)
    translations = translator.translate(list(SHOWN))
    shown = [
        (text, found, translator.looks(text, found))
        for text, found in zip(SHOWN, translations, strict=True)
    ]
    return rows, shown


def plot(shown):
    """Weights of each character (rows) for each word (columns)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.8), layout="constrained")
    for axes, (text, found, weights) in zip(
        figure.subplots(1, len(shown)), shown, strict=True
    ):
        words = ["(start)", *text.split(), "(end)"]
        characters = [*found.split(), "(end)"]
        image = axes.imshow(
            weights[: len(characters), : len(words)],
            cmap="magma",
            vmin=0,
            vmax=1,
        )
        axes.set_xticks(range(len(words)), words, rotation=60, ha="left")
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.set_yticks(range(len(characters)), characters)
    figure.colorbar(image, ax=figure.axes, shrink=0.7, label="weight")
    figure.savefig(HERE / "alignment.png", dpi=110)


if __name__ == "__main__":
    main()
