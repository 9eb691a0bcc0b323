"""The kinds of models: one object for each, and one table of them.

Whatever asks what kind of model this is, asks here.
"""

from kanets.tasks.base import Task
from kanets.tasks.classification import Classification
from kanets.tasks.generation import Generation
from kanets.tasks.segmentation import Segmentation

__all__ = [
    "TASKS",
    "Task",
    "of_export",
    "of_model",
    "of_recipe",
    "of_result",
    "takes_pictures",
]

TASKS = {
    task.name: task for task in (Classification(), Segmentation(), Generation())
}
_OTHERS = TASKS["classification"]  # what counts as one if no task knows it


def of_model(model):
    """The task of a Keras model, by the ranks of its inputs and outputs.

    What no task recognizes, as a subclass that does not tell its tensors,
    counts as a classifier: whoever runs it sees whether it is one.
    """
    ranks = _ranks(model)
    return _first(lambda task: task.recognizes(*ranks)) or _OTHERS


def of_export(inputs, outputs):
    """The task of an exported model, or None if it is of no task.

    Args:
        inputs, outputs: names of its tensors.
    """
    names = set(inputs), set(outputs)
    return _first(lambda task: task.answers(*names))


def of_recipe(recipe):
    """The task of a recipe or of its fields, by the section it alone has."""
    fields = recipe if isinstance(recipe, dict) else vars(recipe)
    return _first(lambda task: task.section in fields) or _OTHERS


def of_result(measured):
    """The task of what `kanets.evaluation.evaluate` returned."""
    return _first(lambda task: task.figure in measured)


def takes_pictures(model):
    """Whether a Keras model takes a batch of pictures and nothing else."""
    inputs, _ = _ranks(model)
    return inputs == [4]


def _ranks(model):
    """Of the inputs and of the outputs; none where a model does not tell."""
    return [
        [len(tensor.shape) for tensor in getattr(model, name, None) or ()]
        for name in ("inputs", "outputs")
    ]


def _first(fits):
    return next((task for task in TASKS.values() if fits(task)), None)
