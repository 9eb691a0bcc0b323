"""What must be written for each backend of Keras, and is not for all."""


def for_backend(what, **choices):
    """What was written for the backend that Keras runs on.

    Args:
        what: the start of a sentence about what it does.
        **choices: by the name of the backend, as in `KERAS_BACKEND`.

    Raises:
        ValueError: nothing was written for this backend.
    """
    import keras  # not at the top, see `ylg.registered`

    backend = keras.backend.backend()
    if backend not in choices:
        raise ValueError(
            f"{what} needs one of the Keras backends {sorted(choices)}; the "
            "environment variable KERAS_BACKEND chooses. "
            f"Received: backend={backend!r}"
        )
    return choices[backend]
