"""What an export for a runtime computes, from tensors to tensors."""

import dataclasses

from kanets.export import bundle


@dataclasses.dataclass(frozen=True)
class Graph:
    """What is written for a runtime that is given tensors.

    Attributes:
        class_names: list of str, maybe empty.
        image_size: pair of int, H and W; None where open.
        answer: function from the inputs to a dict of tensors.
        inputs: `tf.TensorSpec` of each input, the batch open.
    """

    class_names: list
    image_size: tuple
    answer: object
    inputs: tuple

    def function(self, batch_size=None):
        """The `tf.function` of a batch size."""
        import tensorflow as tf

        return tf.function(
            self.answer,
            input_signature=[
                tf.TensorSpec((batch_size, *s.shape[1:]), s.dtype, s.name)
                for s in self.inputs
            ],
            autograph=False,
        )


def open_or_resolved(model, image_size):
    """As `bundle.resolve_image_size`, but open where it is asked to be."""
    own_size = tuple(getattr(model, "input_shape", ())[1:3])
    if own_size == (None, None) and image_size in (own_size, list(own_size)):
        return own_size
    return bundle.resolve_image_size(model, image_size)
