"""Private hooks of Keras and TensorFlow, each with its reason, in one place.

What a new version may take away is found here, and missed by one test file.
The frameworks offer nothing public for any of it. This module imports nothing
else of ours; TensorFlow is imported by the functions.
"""

import functools


def all_layers(model):
    """All layers of a Keras model, those inside of others, too.

    `model.layers` are the outermost alone, and a layer does not tell which
    layers it is made of.

    Returns:
        A list, with the model itself.
    """
    return list(model._flatten_layers())


def freeze_within(layer):
    """Freezes what is inside of a frozen layer; called at its build's end.

    Keras passes `trainable` on when it is set, but not to what a layer makes
    that was loaded or copied as frozen: its batch norms would go on learning.
    """
    if not layer.trainable:
        for inner in all_layers(layer)[1:]:
            inner.trainable = False


def finalize(model):
    """Lets layers derive anew what they derive from weights given by hand.

    A `Normalization` computes with what it made of its mean and variance when
    it was adapted or loaded, not with these.

    Args:
        model: a model, or a layer.
    """
    for layer in all_layers(model):
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()


def calls(model):
    """The calls that a functional model of Keras is made of, in order.

    A layer may be called several times, in this model and in others, and what
    is public of it tells neither which of its calls are this model's nor what
    comes first.

    Returns:
        A list of (layer or operation, input tensors, output tensors,
        arguments), from the inputs on: no call stands before those it takes
        something from. The arguments are a pair of a tuple and a dictionary,
        with the input tensors in their places.
    """
    depths = sorted(model._nodes_by_depth, reverse=True)
    nodes = [node for depth in depths for node in model._nodes_by_depth[depth]]
    return [
        (
            node.operation,
            node.input_tensors,
            node.output_tensors,
            (node.arguments.args, node.arguments.kwargs),
        )
        for node in nodes
    ]


def producer(tensor):
    """The layer or operation that made a symbolic tensor of Keras.

    `model.layers[-1]` need not be what makes the output: layers are listed
    depth by depth, and a model may have several ends.
    """
    return tensor._keras_history.operation


def leave_out_first_look(model):
    """Keeps a model under TensorFlow's strategies from adding up a batch.

    Before `fit()` and `evaluate()`, Keras looks at a batch to build metrics
    from its shape, and for that takes the mean of what the devices have of
    it, which fails where these are not alike. The model must have built them
    already.
    """
    model._maybe_symbolic_build = lambda iterator=None, data_batch=None: None


def function_graph(graph, name):
    """The `tf.Graph` of a function that an operation of a graph calls.

    Operations name the functions that they call. Only the graph knows them,
    and what is public of it gives their protocol buffers, without shapes.
    """
    return graph._get_function(name).graph


@functools.cache
def dataset_view():
    """A class of `tf.data.Dataset`s that show another dataset unchanged.

    A class derived from it can have attributes of its own, as `tf.data`'s
    methods cannot give: they return classes that are not public, of which
    nothing can be derived. TensorFlow has no public constructor for a dataset
    that is there already.

    Returns:
        The class, which takes that dataset.
    """
    import tensorflow as tf

    class View(tf.data.Dataset):
        def __init__(self, dataset):
            self._dataset = dataset
            super().__init__(dataset._variant_tensor)

        def _inputs(self):
            return [self._dataset]

        @property
        def element_spec(self):
            return self._dataset.element_spec

    return View
