"""Words, and the numbers that stand for them in a net."""

import collections

import numpy as np

PADDING, START, END, UNKNOWN = range(4)
_SPECIAL = ("[PAD]", "[START]", "[END]", "[UNK]")


class Vocabulary:
    """Sentences to numbers and back, word by word.

    A word is what stands between blanks, as it is: whoever wants lower case
    and punctuation apart writes sentences so. 0 is padding, 1 the start, 2 the
    end and 3 a word that is not known; words count from 4.

    Args:
        words: list of different str without blanks.

    Attributes:
        words: the list.

    Raises:
        ValueError: words that are none, or one that is there twice; a str in
            the place of a list.

    Example:

    >>> vocabulary = Vocabulary.of(["a cat", "a dog"])
    >>> vocabulary.encode(["a dog"], length=3)
    array([[1, 4, 6, 2, 0]], dtype=int32)
    >>> vocabulary.decode([[1, 4, 6, 2, 0]])
    ['a dog']
    """

    def __init__(self, words):
        _check_list(words=words)
        self.words = list(words)
        for word in self.words:
            if not isinstance(word, str) or len(word.split()) != 1:
                raise ValueError(
                    "words must be strings without blanks. "
                    f"Received: word={word!r}"
                )
        known = [*_SPECIAL, *self.words]
        self._numbers = {word: number for number, word in enumerate(known)}
        if len(self._numbers) < len(known):
            twice = [w for w, n in collections.Counter(known).items() if n > 1]
            raise ValueError(f"words must be different. Received: {twice}")

    @classmethod
    def of(cls, sentences):
        """The vocabulary of all words of some sentences, sorted."""
        _check_list(sentences=sentences)
        return cls(
            sorted({word for text in sentences for word in text.split()})
        )

    def __len__(self):
        return len(self._numbers)

    def encode(self, sentences, length):
        """The numbers of sentences: start, words, end, padding.

        Args:
            sentences: str, B of them.
            length: T, words of the longest that there may be.

        Returns:
            int32 array (B, T + 2).

        Raises:
            ValueError: a sentence of more words; a str in the place of several.
        """
        _check_list(sentences=sentences)
        tokens = np.full((len(sentences), length + 2), PADDING, "int32")
        for row, sentence in zip(tokens, sentences, strict=True):
            words = sentence.split()
            if len(words) > length:
                raise ValueError(
                    f"A sentence must have at most {length} words. "
                    f"Received: {len(words)} in {sentence!r}"
                )
            numbers = [self._numbers.get(word, UNKNOWN) for word in words]
            row[: len(words) + 2] = [START, *numbers, END]
        return tokens

    def decode(self, tokens):
        """The sentences of numbers: up to the end, without start and padding.

        Args:
            tokens: integers (B, T).

        Returns:
            A list of B str.
        """
        known = [*_SPECIAL, *self.words]
        sentences = []
        for row in np.asarray(tokens).tolist():
            row = row[: row.index(END)] if END in row else row
            words = [known[n] for n in row if n not in (PADDING, START)]
            sentences.append(" ".join(words))
        return sentences


def _check_list(**strings):
    """Raises a ValueError for a str, which is a list of its letters."""
    for name, value in strings.items():
        if isinstance(value, str):
            raise ValueError(
                f"{name} must be a list of strings. Received: {name}={value!r}"
            )
