"""A student and its teacher: the loss, the step, a run of a recipe."""

import shutil

import h5py
import keras
import numpy as np
import pytest
from keras import layers

from kanets import checkpoints, recipes, zoo
from kanets.nets import logits_model
from kanets.train.distillation import Distillation
from kanets.train.losses import DistillationCrossentropy
from tests.backends import gradient, to_numpy
from tests.photos import write_photos

RANDOM = np.random.default_rng(0)
LABELS = RANDOM.dirichlet([0.3] * 3, 5).astype("float32")
PICTURES = RANDOM.uniform(0, 255, (5, 6, 7, 3)).astype("float32")


def softmax(logits):
    scores = np.exp(logits - logits.max(-1, keepdims=True))
    return scores / scores.sum(-1, keepdims=True)


def by_loops(labels, teacher, student, weight, temperature, smoothing=0.0):
    """The loss and its gradient in the student's logits, in float64."""
    total, slopes = 0.0, np.zeros(student.shape)
    for row, logits in enumerate(np.float64(student)):
        wanted = labels[row] * (1 - smoothing) + smoothing / len(logits)
        t, s = (softmax(z / temperature) for z in (teacher[row], logits))
        entropy = -np.sum(wanted * np.log(softmax(logits)))
        divergence = np.sum(t * np.log(t / s))
        total += (1 - weight) * entropy + weight * temperature**2 * divergence
        slopes[row] = (1 - weight) * (softmax(logits) - wanted)
        slopes[row] += weight * temperature * (s - t)
    return total / len(student), slopes / len(student)


@pytest.mark.parametrize(
    ("weight", "temperature", "smoothing"),
    [(0.5, 2.0, 0.0), (0.3, 4.0, 0.1), (1.0, 0.5, 0.1), (0.0, 3.0, 0.2)],
)
def test_the_loss_is_that_of_the_paper(weight, temperature, smoothing):
    teacher, student = 3 * RANDOM.normal(size=(2, 5, 3)).astype("float32")
    loss = DistillationCrossentropy(weight, temperature, smoothing)
    loss = DistillationCrossentropy.from_config(loss.get_config())
    both = np.concatenate([LABELS, teacher], -1)
    value, slopes = by_loops(
        LABELS, np.float64(teacher), student, weight, temperature, smoothing
    )
    np.testing.assert_allclose(loss(both, student), value, rtol=1e-5)
    (found,) = gradient(lambda logits: loss(both, logits), student)
    np.testing.assert_allclose(found, slopes, rtol=1e-4, atol=1e-6)
    plain = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=smoothing
    )
    np.testing.assert_allclose(
        loss(LABELS, student), plain(LABELS, student), rtol=1e-6
    )


def test_by_hand():
    # At temperature 2, log 4 and log 9 are log 2 and log 3 to a softmax.
    logits = np.log([[4.0, 1.0]]), np.log([[1.0, 9.0]])
    both = np.concatenate([[[1.0, 0.0]], logits[0]], -1)
    loss = DistillationCrossentropy(0.25, 2.0)(both, logits[1])
    divergence = 2 / 3 * np.log((2 / 3) / 0.25) + 1 / 3 * np.log(1 / 3 / 0.75)
    expected = 0.75 * np.log(10) + 0.25 * 4 * divergence
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"weight": 1.5}, "`weight` must be in 0..1. Received: weight=1.5"),
        ({"temperature": 0.0}, "positive number. Received: temperature=0.0"),
        ({"label_smoothing": -1}, "in 0..1. Received: label_smoothing=-1"),
    ],
)
def test_arguments_of_the_loss(arguments, text):
    with pytest.raises(ValueError, match=text):
        DistillationCrossentropy(**arguments)


def test_labels_of_another_width():
    with pytest.raises(ValueError, match=r"2 classes\). Received: y_true of"):
        DistillationCrossentropy()(np.ones((2, 5)), np.ones((2, 3)))


def net(size=(6, 7), classes=3, norm=True, activation="softmax", dropout=0.5):
    """With batch norm and dropout, which a teacher does not use to train."""
    x = inputs = keras.Input((*size, 3))
    x = layers.Rescaling(1 / 255)(x)
    x = layers.Conv2D(4, 3, activation="relu")(x)
    if norm:
        x = layers.BatchNormalization()(x)
        x = layers.Dropout(dropout)(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(
        classes,
        activation=activation,
        kernel_initializer=keras.initializers.RandomNormal(stddev=3),
        name="predictions",
    )(x)
    return keras.Model(inputs, x, name="net")


def step(model, weight=0.5, temperature=2.0, rate=0.0):
    """Loss and accuracy of one step of training."""
    model.compile(
        keras.optimizers.SGD(rate),
        DistillationCrossentropy(weight, temperature),
        metrics=[keras.metrics.CategoricalAccuracy("accuracy")],
    )
    values = model.train_on_batch(PICTURES, LABELS, return_dict=True)
    return float(values["loss"]), float(values["accuracy"])


@pytest.mark.parametrize(
    ("size", "activation"),
    [((9, 8), "softmax"), ((None, None), "softmax"), ((6, 7), None)],
)
def test_a_step_is_that_of_the_loss(size, activation):
    keras.utils.set_random_seed(1)
    teacher, student = net(size, activation=activation), net(norm=False)
    given = [np.array(weight) for weight in teacher.get_weights()]
    seen = PICTURES
    if size == (9, 8):
        seen = to_numpy(keras.ops.image.resize(PICTURES, size))
    answers = to_numpy(teacher(seen, training=False))
    if activation == "softmax":
        answers = np.log(answers)
    student = logits_model(student)
    logits = to_numpy(student(PICTURES))
    model = Distillation(student, teacher)
    loss, accuracy = step(model)
    expected, _ = by_loops(LABELS, np.float64(answers), logits, 0.5, 2.0)
    assert loss == pytest.approx(expected, rel=1e-4)
    # Of the labels, however many columns the loss is given.
    rights = np.argmax(LABELS, -1) == np.argmax(logits, -1)
    assert accuracy == pytest.approx(rights.mean())
    # Without labels' help a teacher moves the student, and does not move.
    step(model, weight=1.0, rate=0.1)
    assert not np.array_equal(logits, to_numpy(student(PICTURES)))
    for expected, weight in zip(given, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)
    assert len(model.weights) == len(student.weights) == 4
    # What is validated is told of the labels alone.
    value = model.evaluate(PICTURES, LABELS, verbose=0)[0]
    plain = keras.losses.CategoricalCrossentropy(from_logits=True)
    assert value == pytest.approx(
        float(to_numpy(plain(LABELS, student(PICTURES))))
    )


def test_outputs_are_put_in_the_order_of_the_data():
    keras.utils.set_random_seed(2)
    teacher, student = net(), logits_model(net(norm=False))
    teacher.class_names = ("ant", "bee", "cow")
    answers = np.log(to_numpy(teacher(PICTURES)))[:, [1, 2, 0]]
    logits = to_numpy(student(PICTURES))
    loss, _ = step(Distillation(student, teacher, ["bee", "cow", "ant"]))
    expected, _ = by_loops(LABELS, np.float64(answers), logits, 0.5, 2.0)
    assert loss == pytest.approx(expected, rel=1e-4)


@pytest.mark.thorough
def test_a_student_takes_after_its_teacher():
    """The teacher tells the strongest colour, the labels are random."""
    random = np.random.default_rng(0)
    colours = random.uniform(0, 255, (96, 1, 1, 3)).astype("float32")
    labels = random.permutation(np.eye(3, dtype="float32").repeat(32, 0))
    inputs = keras.Input((2, 2, 3))
    x = layers.GlobalAveragePooling2D()(layers.Rescaling(1 / 255)(inputs))
    head = layers.Dense(3, name="predictions")
    teacher = keras.Model(inputs, head(x))
    head.set_weights([20 * np.eye(3), np.zeros(3)])
    right = np.argmax(colours, -1)[:, 0, 0]
    agreement = []
    for weight in (0.0, 1.0):
        student = keras.Model(inputs, layers.Dense(3)(x))
        model = Distillation(student, teacher)
        loss = DistillationCrossentropy(weight)
        model.compile(keras.optimizers.Adam(0.1), loss)
        pictures = colours.repeat(2, 1).repeat(2, 2)
        model.fit(pictures, labels, epochs=10, verbose=0)
        answers = np.argmax(to_numpy(student(pictures)), -1)
        agreement.append(np.mean(answers == right))
    assert agreement[0] < 0.6 and agreement[1] > 0.9


def segmenter():
    inputs = keras.Input((6, 7, 3))
    return keras.Model(inputs, layers.Conv2D(3, 1)(inputs), name="segmenter")


@pytest.mark.parametrize(
    ("make", "known", "text"),
    [
        (lambda: net(classes=4), None, "its student, 3. .* of 4"),
        (lambda: net(activation="sigmoid"), None, "in logits. Received: 'net'"),
        (segmenter, None, "must be a classifier. Received: 'segmenter'"),
        (net, "bcd", r"which alone has \['d'\], and lacks \['a'\]"),
        (
            lambda: net(classes=15),
            "bcdefghijklmnop",
            r"'l', 'm'\] and 3 more, and lacks \['a'\]",
        ),
    ],
)
def test_what_is_no_teacher(make, known, text):
    teacher = make()
    if known is not None:
        teacher.class_names = tuple(known)
    with pytest.raises(ValueError, match=text):
        Distillation(logits_model(net()), teacher, ["a", "b", "c"])


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    return write_photos(root, 12, 6, (9, 11), "png")


@pytest.fixture
def teacher(tmp_path):
    """Of larger pictures, and of the classes in the other order."""
    keras.utils.set_random_seed(0)
    folder = tmp_path / "teacher"
    return zoo.save_model(net((13, 14), 2), folder, ["red", "blue"])


@pytest.fixture(autouse=True)
def tiny_net(monkeypatch):
    def build(input_shape, classes):
        return net(input_shape[:2], classes, dropout=0.1)

    monkeypatch.setitem(recipes.NETS, "tiny", build)


def recipe(photos, teacher, **changes):
    fields = {
        "model": {"name": "tiny"},
        "epochs": 2,
        "batch_size": 6,
        "data": {"source": str(photos)},
        "augment": {"mixup": 0.2},
        "optimize": {"learning_rate": 0.01, "label_smoothing": 0.1},
        "distill": {"teacher": str(teacher), "temperature": 4},
        **changes,
    }
    return recipes.from_dict(fields)


class Stop(Exception):
    pass


class StopInSecondEpoch(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise Stop


@pytest.mark.thorough
def test_a_run_with_a_teacher_resumes(
    tmp_path, photos, teacher, monkeypatch, capsys
):
    plan = recipe(photos, teacher)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    recipes.train(plan, whole)
    assert f"The teacher is {teacher}." in capsys.readouterr().out
    assert recipes.read(whole / "recipe.toml") == plan
    with monkeypatch.context() as patch:
        patch.setattr(
            recipes.supervised, "tensorboard", lambda _: StopInSecondEpoch()
        )
        with pytest.raises(Stop):
            recipes.train(plan, broken, verbose=0)
    assert len(checkpoints.read_progress(broken)[0]) == 1
    recipes.train(plan, broken, verbose=0)
    shutil.rmtree(teacher)
    expected, found = (zoo.load_model(run) for run in (whole, broken))
    assert type(found) is type(net()) and found.class_names == ("blue", "red")
    for one, other in zip(
        expected.get_weights(), found.get_weights(), strict=True
    ):
        np.testing.assert_allclose(other, one, atol=2e-5)
    # The state is the student's: four weights, four of batch norm, one seed.
    with h5py.File(broken / checkpoints.STATE) as file:
        assert len(file["seeds"]) == 1
        weights = []
        file["layers"].visititems(
            lambda name, item: (
                weights.append(name) if isinstance(item, h5py.Dataset) else None
            )
        )
    assert len(weights) == 8


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"weight": 0.3}, "distill.teacher must be given where its weight or"),
        ({"temperature": 3.0}, "distill.teacher must be given where"),
        ({"teacher": "a", "weight": 1.5}, "distill.weight must be in 0..1. Re"),
        ({"teacher": "a", "temperature": 0}, "distill.temperature must be a p"),
        ({"teachr": "a"}, r"\(nearest: teacher\). Received: \['teachr'\]"),
    ],
)
def test_bad_sections_are_named(photos, fields, text):
    with pytest.raises(ValueError, match=text):
        recipe(photos, "", distill=fields)


def test_a_student_that_gives_no_logits(photos, teacher, tmp_path):
    net((9, 11), 2, activation="sigmoid").save(tmp_path / "odd.keras")
    plan = recipe(
        photos,
        teacher,
        model={"name": str(tmp_path / "odd.keras")},
        finetune={"new_head": False},
    )
    with pytest.raises(ValueError, match="must end in a softmax or in logits"):
        recipes.train(plan, tmp_path / "run", verbose=0)
