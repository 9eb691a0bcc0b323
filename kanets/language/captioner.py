"""A captioner: a net's maps, and a decoder that looks at them at every word.

Xu et al., "Show, Attend and Tell: Neural Image Caption Generation with Visual
Attention", ICML 2015. It differs in its decoder (see `AttentionDecoder`), and
in that cells have learned positions: what is left of what no cell can tell
from itself.

Letters: B batch, H W grid of the maps, T words.
"""

import functools

import keras
import numpy as np
from keras import ops

from kanets.data.vocabulary import END, PADDING, START
from kanets.language.model import PictureLanguageModel, checked, map_cells
from kanets.layers.attention_decoder import AttentionDecoder


@keras.saving.register_keras_serializable(package="kanets")
class Captioner(PictureLanguageModel):
    """Says in words what pictures show.

    Trained as any Keras model, by pictures and sentences; the output is logits
    of the next words, of which the loss is a cross-entropy.

    Args:
        features: `keras.Model` from pictures to a map (B, H, W, C) of known
            size, or to a dict of one, as `kanets.feature_model` makes it. A
            copy is part of this model, and in inference mode in training, too.
        vocabulary: `kanets.data.Vocabulary`, or a list of its words.
        max_length: T, most words of a sentence.
        units: of the decoder.
        hard: whether attention is hard: one cell at a time.
        dropout_rate: of the decoder.
        trainable_features: whether training changes the copy of `features`,
            which is frozen otherwise.
        name: the model's name.

    Call arguments:
        inputs: dict of "pictures", as `features` take them, and "tokens", int
            (B, T + 1), the words before those to tell.

    Returns:
        Logits of the words, float32 (B, T + 1, words there are).

    Raises:
        ValueError: features of other outputs; words that are none; a length
            that is no positive integer.

    Example:

    >>> scenes = kanets.data.draw_scenes(1000)
    >>> model = Captioner(
    ...     kanets.feature_model("kanet_qkv_cifar10", ["level3"], (96, 96, 3)),
    ...     kanets.data.Vocabulary.of(scenes.sentences),
    ... )
    >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    >>> model.compile("adam", loss, weighted_metrics=["accuracy"])
    >>> model.fit(scenes.pictures, scenes.sentences)  # doctest: +SKIP
    >>> model.caption(scenes.pictures[:1])  # doctest: +SKIP
    ['a red circle left of a blue square']

    References: Xu et al., ICML 2015, section 3.
    """

    def __init__(
        self,
        features,
        vocabulary,
        max_length=20,
        units=256,
        hard=False,
        dropout_rate=0.0,
        trainable_features=False,
        name="captioner",
        **kwargs,
    ):
        vocabulary, length = checked(features, vocabulary, max_length)
        pictures = keras.Input(features.input_shape[1:], name="pictures")
        tokens = keras.Input((length + 1,), dtype="int32", name="tokens")
        memory, grid = map_cells(
            features, pictures, trainable_features, "memory"
        )
        decoder = AttentionDecoder(
            len(vocabulary),
            units,
            hard=hard,
            dropout_rate=dropout_rate,
            name="decoder",
        )
        super().__init__(
            features,
            vocabulary,
            grid,
            inputs={"pictures": pictures, "tokens": tokens},
            outputs=decoder(tokens, memory),
            name=name,
            settings={
                "max_length": length,
                "units": decoder.units,
                "hard": hard,
                "dropout_rate": dropout_rate,
                "trainable_features": trainable_features,
            },
            **kwargs,
        )
        # A function, as Keras would count a model as a part of this one.
        self._searcher = functools.cache(functools.partial(_Searcher, self))

    @property
    def decoder(self):
        return self.get_layer("decoder")

    def examples(self, pictures, sentences):
        """What this model is trained on, made of pictures and sentences.

        Args:
            pictures: array (B, ...), as `features` take them.
            sentences: B str.

        Returns:
            Inputs, a dict of pictures and tokens (B, T + 1); targets, int32
            (B, T + 1); and `sample_weight`, float32, 0 for padding.

        Raises:
            ValueError: no sentence, or one of more than `max_length` words.
        """
        tokens = self.encode(sentences)
        targets = tokens[:, 1:]
        weights = (targets != PADDING).astype("float32")
        return (
            {"pictures": pictures, "tokens": tokens[:, :-1]},
            targets,
            weights,
        )

    def fit(
        self,
        x=None,
        y=None,
        *,
        sample_weight=None,
        validation_data=None,
        **kwargs,
    ):
        """As of any Keras model, where `y` may be sentences about pictures.

        In `validation_data`, too; a `sample_weight` is then of each sentence.
        Examples and data sets of them are taken as they are.
        """
        if isinstance(validation_data, tuple | list):
            validation_data = self._taken(*validation_data)
        x, y, sample_weight = self._taken(x, y, sample_weight)
        return super().fit(
            x,
            y,
            sample_weight=sample_weight,
            validation_data=validation_data,
            **kwargs,
        )

    def evaluate(self, x=None, y=None, *, sample_weight=None, **kwargs):
        """As of any Keras model, where `y` may be sentences about pictures."""
        x, y, sample_weight = self._taken(x, y, sample_weight)
        return super().evaluate(x, y, sample_weight=sample_weight, **kwargs)

    def _taken(self, x, y=None, sample_weight=None):
        if isinstance(y, list | tuple | np.ndarray) and (
            not len(y) or isinstance(y[0], str)
        ):
            x, y, weights = self.examples(x, y)
            if sample_weight is None:
                return x, y, weights
            given = np.asarray(sample_weight, "float32")
            given = given[:, None] if given.ndim == 1 else given
            return x, y, weights * given
        return x, y, sample_weight

    def caption(
        self,
        pictures,
        beam_width=3,
        batch_size=32,
        return_attention_scores=False,
    ):
        """Sentences about pictures, by beam search.

        Args:
            pictures: array (B, ...), as `features` take them.
            beam_width: of the search; 1 is greedy.
            batch_size: pictures at a time.
            return_attention_scores: also return where each word looked.

        Returns:
            A list of B str; on request with float32 (B, T + 1, H, W), a map
            a word that sums to 1, one for the end, and zeros after it.

        Raises:
            ValueError: pictures of another shape, or none; a width or a batch
                size that is no positive integer.
        """
        self.check_pictures(pictures, batch_size)
        tokens, maps = self._searcher(beam_width).predict(
            pictures, batch_size=batch_size, verbose=0
        )
        sentences = self.vocabulary.decode(tokens[:, :-1])  # the last ends one
        if not return_attention_scores:
            return sentences
        maps = maps * (tokens != PADDING)[..., None]
        return sentences, np.reshape(maps, (*tokens.shape, *self.grid))


class _Searcher(keras.Model):
    """The best sentence about a picture and its looks, for `predict`."""

    def __init__(self, captioner, beam_width):
        super().__init__(name="searcher")
        self.memory = keras.Model(
            captioner.input["pictures"], captioner.get_layer("memory").output
        )
        self.decoder = captioner.decoder
        self.arguments = {
            "start": START,
            "end": END,
            "max_length": captioner.max_length + 1,
            "beam_width": beam_width,
        }

    def call(self, pictures):
        memory = self.memory(pictures, training=False)
        tokens = self.decoder.beam_search(memory, **self.arguments)[0][:, 0]
        start = ops.full_like(tokens[:, :1], START)
        before = ops.concatenate([start, tokens[:, :-1]], axis=1)
        _, weights = self.decoder(
            before, memory, training=False, return_attention_scores=True
        )
        return tokens, weights
