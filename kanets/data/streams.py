"""`tf.data.Dataset`s of which every pass can be repeated.

TensorFlow's own shuffling and random layers go on from wherever the last pass
left their generators. Here a pass takes a number when it begins, and its order
and augmentation follow from a seed, that number and the place of a batch, in
however many threads.

TensorFlow is imported by the functions, never by the module.
"""

import functools

import keras

from kanets import compat


def each_pass(step, seed, size, source=None):
    """A dataset that is made anew for every pass through it.

    Args:
        step: function from an int64 key `(2,)`, another one for every pass,
            to the `tf.data.Dataset` of that pass.
        seed: int, which the keys depend on.
        size: number of elements of a pass, as `cardinality()` gives it.
        source: the dataset that `step` reads.

    Returns:
        A `tf.data.Dataset` with the attribute `epoch`, an int: the number of
        the next pass. It advances when a pass begins, and may be set, which
        sets that of `source`, too, if it has one.
    """
    import tensorflow as tf

    counters = [_Counter(), *getattr(source, "_counters", ())]
    first = tf.constant([seed, len(counters)], tf.int64)

    def begin(_):
        # In this function's graph alone. `shuffle` mixes the global seed into
        # its own, and fails where that is 0.
        tf.compat.v1.set_random_seed(1)
        number = tf.numpy_function(counters[0].next, (), tf.int64)
        number = tf.ensure_shape(number, ())
        # `fold_in` mixes the number in with the next draw alone.
        return step(tf.random.split(tf.random.fold_in(first, number), 1)[0])

    dataset = tf.data.Dataset.from_tensors(0).flat_map(begin)
    if size != tf.data.UNKNOWN_CARDINALITY:
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(size))
    return _stream_class()(dataset, counters)


def with_random_states(function, variables):
    """Makes the random states of a function's layers depend on a key.

    Args:
        function: function of arrays, where TensorFlow is Keras's backend.
        variables: list of Keras variables, the states `(2,)` of all
            generators that it draws from.

    Returns:
        A function of an int64 key `(2,)` and the arrays, which neither reads
        nor assigns the variables: many threads can run it.
    """

    def program(key, *arrays):
        import tensorflow as tf

        states = tf.random.stateless_uniform(
            (len(variables), 2), key, minval=0, maxval=2**31, dtype=tf.int64
        )
        pairs = [
            (variable, tf.cast(states[number], variable.dtype))
            for number, variable in enumerate(variables)
        ]
        with keras.StatelessScope(pairs):
            return function(*arrays)

    return program


class _Counter:
    def __init__(self):
        self.epoch = 0

    def next(self):
        number, self.epoch = self.epoch, self.epoch + 1
        return number


@functools.cache
def _stream_class():
    class Stream(compat.dataset_view()):
        def __init__(self, dataset, counters):
            self._counters = counters
            super().__init__(dataset)

        @property
        def epoch(self):
            return self._counters[0].epoch

        @epoch.setter
        def epoch(self, epoch):
            for counter in self._counters:
                counter.epoch = epoch

    return Stream
