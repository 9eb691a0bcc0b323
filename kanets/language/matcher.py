"""A matcher: how well sentences tell pictures, by words that look at cells.

Lee et al., "Stacked Cross Attention for Image-Text Matching", ECCV 2018, from
words to pictures. It differs in that cells are those of a net's map, with
learned positions, instead of a detector's regions; in that words are read with
their neighbours, by a convolution instead of a GRU; and in that a word and what
it looks at are compared by their product, and words are added up: so a pair
costs no more than two products of all words with all cells.

Letters: B batch, P pictures, S sentences, T words, H W grid of the map, K its
cells, D units.
"""

import functools

import keras
import numpy as np
from keras import ops

from kanets.checks import positive_integer
from kanets.data.vocabulary import END, PADDING
from kanets.language.model import PictureLanguageModel, checked, map_cells

_PHRASE = 7  # words that are read at once


@keras.saving.register_keras_serializable(package="kanets")
class Matcher(PictureLanguageModel):
    """Scores pictures and sentences, all against all.

    With queries q and vectors w of the words of a sentence, each read with
    three words before and after it, and keys k and values v of the cells of a
    picture,

        score = sum_t sum_j softmax_j(q_t k_j / sqrt(D)) w_t v_j

    Without cross-attention all weights are 1 / K: then the score is the
    product of two vectors, one of the picture and one of the sentence.

    Trained as any Keras model, by `kanets.losses.ContrastiveLoss`: pictures of
    a batch against its sentences.

    Args:
        features: `keras.Model` from pictures to a map (B, H, W, C) of known
            size, or to a dict of one, as `kanets.feature_model` makes it. A
            copy is part of this model, and in inference mode in training, too.
        vocabulary: `kanets.data.Vocabulary`, or a list of its words.
        max_length: T, most words of a sentence.
        units: D, of all that is learned of words and cells.
        cross_attention: whether words look at cells, or at their mean.
        trainable_features: whether training changes the copy of `features`,
            which is frozen otherwise.
        name: the model's name.

    Call arguments:
        inputs: dict of "pictures" (P, ...), as `features` take them, and
            "tokens", int (S, T), padded with 0.

    Returns:
        Scores, float32 (P, S).

    Raises:
        ValueError: features of other outputs; words that are none; a length
            or units that are no positive integer.

    Cost: O(P·S·T·K·D) time and O(P·S·T·K) memory; without cross-attention
    O(P·S·D) and O(P·S).

    Example:

    >>> scenes = kanets.data.draw_scenes(1000)
    >>> model = Matcher(
    ...     kanets.feature_model("kanet_qkv_cifar10", ["level3"], (96, 96, 3)),
    ...     kanets.data.Vocabulary.of(scenes.sentences),
    ... )
    >>> model.compile("adam", kanets.losses.ContrastiveLoss())
    >>> x, y = model.examples(scenes.pictures, scenes.sentences)
    >>> model.fit(x, y)  # doctest: +SKIP
    >>> model.scores(scenes.pictures[:3], scenes.sentences[:5]).shape
    (3, 5)

    References: Lee et al., ECCV 2018, section 3.1.
    """

    def __init__(
        self,
        features,
        vocabulary,
        max_length=20,
        units=256,
        cross_attention=True,
        trainable_features=False,
        name="matcher",
        **kwargs,
    ):
        vocabulary, length = checked(features, vocabulary, max_length)
        units = positive_integer("units", units)
        pictures = keras.Input(features.input_shape[1:], name="pictures")
        tokens = keras.Input((length,), dtype="int32", name="tokens")
        x, grid = map_cells(features, pictures, trainable_features, "cells")
        x = keras.layers.Dense(units, "relu", name="hidden")(x)
        valid = ops.not_equal(tokens, PADDING)
        y = _phrases(tokens, valid, len(vocabulary), units)
        dense = functools.partial(keras.layers.Dense, units, use_bias=False)
        seen, words = {"values": x}, {"words": y}
        if cross_attention:
            seen["keys"], words["queries"] = x, y
        seen, words = (
            {name: dense(name=name)(z) for name, z in side.items()}
            for side in (seen, words)
        )
        super().__init__(
            features,
            vocabulary,
            grid,
            inputs={"pictures": pictures, "tokens": tokens},
            outputs=_scores(valid, **seen, **words),
            name=name,
            settings={
                "max_length": length,
                "units": units,
                "cross_attention": cross_attention,
                "trainable_features": trainable_features,
            },
            **kwargs,
        )
        # A function, as Keras would count models as parts of this one.
        self._encoders = functools.cache(
            lambda: (keras.Model(pictures, seen), keras.Model(tokens, words))
        )

    def examples(self, pictures, sentences):
        """What this model is trained on, made of pictures and sentences.

        Args:
            pictures: array (B, ...), as `features` take them.
            sentences: B str.

        Returns:
            Inputs, a dict of pictures and tokens (B, T); and the tokens again,
            int32, of which the loss knows which sentences are the same.

        Raises:
            ValueError: no sentence, or one of more than `max_length` words.
        """
        tokens = self._tokens(sentences)
        return {"pictures": pictures, "tokens": tokens}, tokens

    def scores(self, pictures, sentences, batch_size=32):
        """How well each sentence tells each picture.

        Args:
            pictures: array (P, ...), as `features` take them.
            sentences: S str.
            batch_size: pictures at a time, against all sentences.

        Returns:
            Float32 array (P, S); the larger, the better.

        Raises:
            ValueError: pictures of another shape, or none; no sentence, or
                one of more than `max_length` words; a batch size that is no
                positive integer.
        """
        tokens = self._tokens(sentences)
        cells, words, valid = self._encoded(pictures, tokens, batch_size)
        rows = []
        for first in range(0, len(pictures), batch_size):
            part = {
                name: values[first : first + batch_size]
                for name, values in cells.items()
            }
            rows.append(ops.convert_to_numpy(_scores(valid, **part, **words)))
        return np.concatenate(rows)

    def attention_maps(self, pictures, sentences, batch_size=32):
        """Where each word of a sentence looks in its picture.

        Args:
            pictures: array (B, ...), as `features` take them.
            sentences: B str, of the first picture, the second, ...
            batch_size: pictures at a time.

        Returns:
            Float32 array (B, T, H, W): a map a word that sums to 1, and zeros
            after the last word.

        Raises:
            ValueError: another number of sentences than of pictures; a model
                without cross-attention; as of `scores`.
        """
        if not self._settings["cross_attention"]:
            raise ValueError(
                "Words look at cells by cross-attention. "
                "Received: a model of cross_attention=False"
            )
        tokens = self._tokens(sentences)
        if len(pictures) != len(tokens):
            raise ValueError(
                "There must be one sentence for each picture. Received: "
                f"{len(pictures)} pictures, {len(tokens)} sentences"
            )
        cells, words, valid = self._encoded(pictures, tokens, batch_size)
        weights = _weights("bkd,btd->btk", cells["keys"], words["queries"])
        maps = ops.convert_to_numpy(weights) * valid[..., None]
        return maps.reshape(*valid.shape, *self.grid)

    def _encoded(self, pictures, tokens, batch_size):
        self.check_pictures(pictures, batch_size)
        of_pictures, of_sentences = self._encoders()
        cells, words = (
            model.predict(inputs, batch_size=batch_size, verbose=0)
            for model, inputs in (
                (of_pictures, pictures),
                (of_sentences, tokens),
            )
        )
        return cells, words, tokens != PADDING

    def _tokens(self, sentences):
        tokens = self.encode(sentences)[:, 1:-1]
        return np.where(tokens == END, PADDING, tokens)


def _phrases(tokens, valid, vocabulary_size, units):
    """Words (S, T, D), each read with its neighbours; padding is nothing."""
    embedding = keras.layers.Embedding(vocabulary_size, units, name="embedding")
    convolution = keras.layers.Conv1D(
        units,
        _PHRASE,
        padding="same",
        activation="relu",
        data_format="channels_last",
        name="phrases",
    )
    words = embedding(tokens)
    return convolution(words * ops.cast(valid, words.dtype)[..., None])


def _scores(valid, values, words, keys=None, queries=None):
    """Scores of pictures and sentences, all against all.

    Args:
        valid: bool (S, T), False for padding.
        values, keys: (P, K, D), of cells.
        words, queries: (S, T, D).

    Returns:
        Float32 (P, S).
    """
    values, words = ops.cast(values, "float32"), ops.cast(words, "float32")
    valid = ops.cast(valid, "float32")
    if keys is None:
        sentences = ops.sum(words * valid[..., None], axis=1)
        return ops.einsum("pd,sd->ps", ops.mean(values, axis=1), sentences)
    found = ops.einsum("pkd,std->pstk", values, words)
    weights = _weights("pkd,std->pstk", keys, queries)
    return ops.sum(ops.sum(weights * found, axis=-1) * valid, axis=-1)


def _weights(equation, keys, queries):
    """Softmax over cells, the last axis of what the equation makes."""
    keys, queries = ops.cast(keys, "float32"), ops.cast(queries, "float32")
    logits = ops.einsum(equation, keys, queries)
    return ops.softmax(logits / keys.shape[-1] ** 0.5)
