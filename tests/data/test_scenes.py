"""Drawn scenes: what is told is what is drawn."""

import numpy as np
import pytest

from kanets.data import Vocabulary, draw_scenes
from kanets.data.scenes import COLOURS, OBJECTS, SHAPES, WORDS

COUNT = 60


@pytest.fixture(scope="module")
def scenes():
    return draw_scenes(COUNT, seed=4)


def test_a_scene_depends_on_seed_and_place_alone(scenes):
    few = draw_scenes(5, seed=4)
    for name in ("pictures", "boxes", "names"):
        found, expected = getattr(few, name), getattr(scenes, name)[:5]
        np.testing.assert_array_equal(found, expected)
    assert few.sentences == scenes.sentences[:5]
    assert scenes.pictures.shape == (COUNT, 96, 96, 3)
    assert scenes.pictures.dtype == "uint8"
    assert draw_scenes(5, seed=5).sentences != few.sentences
    assert len(set(scenes.sentences)) > COUNT - 5


def test_boxes_hold_the_colour_that_is_named(scenes):
    for number in range(COUNT):
        words = scenes.sentences[number].split()
        for place, name in enumerate(scenes.names[number]):
            if name >= 0 and words[place] in COLOURS:
                box = scenes.boxes[number, name]
                _check_colour(scenes.pictures[number], box, words[place])


def _check_colour(picture, box, colour):
    top, left, bottom, right = box
    distance = np.abs(picture.astype(int) - COLOURS[colour]).max(-1)
    drawn = distance <= 12
    inside = drawn[top:bottom, left:right]
    assert 0.25 < inside.mean()  # a cross fills least
    for edge in (inside[:2], inside[-2:], inside[:, :2], inside[:, -2:]):
        assert edge.any()  # no larger than what is drawn
    around = np.zeros_like(drawn)
    around[max(0, top - 2) : bottom + 2, max(0, left - 2) : right + 2] = True
    around[top:bottom, left:right] = False
    assert not drawn[around].any()


def test_sentences_are_true(scenes):
    """Relations of the boxes' centres, the largest object first."""
    numbers = set()
    for sentence, boxes, names in zip(
        scenes.sentences, scenes.boxes, scenes.names, strict=True
    ):
        words = sentence.split()
        assert np.all(names[len(words) :] == -1) and len(names) == WORDS
        named = [w for w, n in zip(words, names, strict=False) if n >= 0]
        pairs = list(zip(named[::2], named[1::2], strict=True))
        assert all(pair in OBJECTS for pair in pairs)
        assert len(set(pairs)) == len(pairs)
        numbers.add(len(pairs))
        boxes = boxes[: len(pairs)]
        area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
        assert area[0] > area[1:].max()
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        relations = [
            w for w in words if w in ("left", "right", "above", "below")
        ]
        for relation, (y, x) in zip(
            relations, centres[1:] - centres[0], strict=True
        ):
            wide = abs(x) > abs(y)
            assert (relation in ("left", "right")) == wide
            assert {"left": x, "right": -x, "above": y, "below": -y}[
                relation
            ] > 0
    assert numbers == {2, 3}


def test_size_and_objects():
    few = [("red", "circle"), ("blue", "square"), ("white", "cross")]
    scenes = draw_scenes(20, image_size=65, objects=few)
    assert scenes.pictures.shape == (20, 65, 65, 3)
    words = {word for text in scenes.sentences for word in text.split()}
    assert words & {*COLOURS} == {"red", "blue", "white"}
    assert words & {*SHAPES} == {"circle", "square", "cross"}
    assert np.all(scenes.boxes <= 65)
    scenes = draw_scenes(30, image_size=48)
    sizes = (scenes.boxes[:, :2, 2:] - scenes.boxes[:, :2, :2]).min()
    assert sizes >= 5


def test_errors():
    with pytest.raises(ValueError, match="count must be.*count=0"):
        draw_scenes(0)
    with pytest.raises(ValueError, match="seed must be.*>= 0.*seed=-1"):
        draw_scenes(1, -1)
    with pytest.raises(ValueError, match=r"image_size.*48.*image_size=32\.0"):
        draw_scenes(1, image_size=32.0)
    with pytest.raises(ValueError, match="three or more.*objects=.*red"):
        draw_scenes(1, objects=[("red", "circle")] * 3)
    with pytest.raises(ValueError, match="nearest: square"):
        draw_scenes(1, objects=[("red", "squere"), *OBJECTS[:3]])


def test_words_and_numbers():
    vocabulary = Vocabulary.of(["a cat", "b"])
    assert vocabulary.words == ["a", "b", "cat"] and len(vocabulary) == 7
    tokens = vocabulary.encode(["b cat", "", "a dog a"], length=3)
    expected = [[1, 5, 6, 2, 0], [1, 2, 0, 0, 0], [1, 4, 3, 4, 2]]
    np.testing.assert_array_equal(tokens, expected)
    assert tokens.dtype == "int32"
    assert vocabulary.decode(tokens) == ["b cat", "", "a [UNK] a"]
    assert vocabulary.decode([[5, 4]]) == ["b a"]  # no end
    with pytest.raises(ValueError, match="at most 2 words.*3 in 'a b c'"):
        vocabulary.encode(["a b c"], 2)
    with pytest.raises(ValueError, match="without blanks.*'a b'"):
        Vocabulary(["a b"])
    with pytest.raises(ValueError, match=r"different.*\['a'\]"):
        Vocabulary(["a", "b", "a"])
    for call in (Vocabulary.of, lambda text: vocabulary.encode(text, 9)):
        with pytest.raises(ValueError, match="list of.*sentences='a cat'"):
            call("a cat")
    with pytest.raises(ValueError, match="words must be a list.*words='cat'"):
        Vocabulary("cat")
