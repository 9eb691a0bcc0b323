"""Several devices of one machine on TensorFlow."""

import json

import numpy as np
import pytest

from kanets import data, recipes, zoo
from tests.backends import BACKEND
from tests.distribute.running import printed, start


@pytest.mark.thorough
def test_two_devices_train_as_one_does(tmp_path):
    source = data.unpack_sample(tmp_path / "sample")
    fields = {
        "model": {"name": "tiny"},
        "epochs": 2,
        "batch_size": 127,  # the first and the last batch are odd
        "data": {"source": str(source)},
        "optimize": {"learning_rate": 0.05},
    }
    folder = tmp_path / "run"
    program = start(
        *("mirror", folder, json.dumps(fields)),
        KERAS_BACKEND="tensorflow",
        OMP_NUM_THREADS="1",
    )
    [[(one, accuracy), (two, accuracies), error]] = printed([program])
    # Batch norm takes the moments of the batch, as the same weights say.
    np.testing.assert_allclose(two, one, rtol=0, atol=1e-5)
    assert accuracies == accuracy
    assert error.startswith(
        "A training must have as many devices as it is distributed over. "
        "Received: devices=3, where TensorFlow finds ["
    )
    assert len((folder / "log.csv").read_text().splitlines()) == 3
    result = json.loads((folder / "result.json").read_text())
    model = zoo.load_model(folder / "best")
    assert not model.get_layer("bn").synchronized  # other backends have none
    # Validation counts each picture once.
    correct = result["val_accuracy"] * 200
    assert abs(correct - round(correct)) < 1e-3


def test_a_number_of_devices_that_cannot_be(tmp_path):
    recipe = recipes.from_dict({"model": {"name": "KANet"}})
    with pytest.raises(
        ValueError,
        match="devices must be a positive integer. Received: devices=0$",
    ):
        recipes.train(recipe, tmp_path / "run", 0, devices=0)
    with pytest.raises(ValueError, match="distributed=True, devices=2$"):
        recipes.train(recipe, tmp_path / "run", 0, distributed=True, devices=2)
    if BACKEND != "tensorflow":
        error = f"is for TensorFlow; .*Received: devices=2, backend={BACKEND!r}"
    else:
        error = "Received: devices=99, where TensorFlow finds \\["
    count = 99 if BACKEND == "tensorflow" else 2
    with pytest.raises(ValueError, match=error):
        recipes.train(recipe, tmp_path / "run", 0, devices=count)
    assert not (tmp_path / "run").exists()
