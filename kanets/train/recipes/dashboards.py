"""Where else a training is shown: TensorBoard, and Weights & Biases."""

import contextlib
import contextvars
import dataclasses
import importlib.util

import keras

# The project that is asked for and what ends its run; None logs nothing.
_ASKED = contextvars.ContextVar("project and stack", default=None)


def tensorboard(directory):
    """Keras's TensorBoard callback, which needs TensorFlow to write."""
    if not _writes():
        return None
    return keras.callbacks.TensorBoard(
        directory / "tensorboard", write_graph=False
    )


class Pictures(keras.callbacks.Callback):
    """Shows picture files in a run's TensorBoard, where its writer is there.

    Args:
        directory: `Path` of the run's folder.
        of_epoch: whole epochs -> dict from a name to the path of a PNG that
            is there by then; by default none.
    """

    def __init__(self, directory, of_epoch=lambda epochs: {}):
        super().__init__()
        self.folder = directory / "tensorboard" / "pictures"
        self.of_epoch = of_epoch
        self._writer = None

    def on_epoch_end(self, epoch, logs=None):
        self.show(self.of_epoch(epoch + 1), epoch)

    def on_train_end(self, logs=None):
        if self._writer is not None:
            self._writer.close()

    def show(self, paths, step):
        """Adds pictures, a dict from a name to a path, at a step."""
        if not paths or not _writes():
            return
        import tensorflow as tf

        if self._writer is None:
            self._writer = tf.summary.create_file_writer(str(self.folder))
        with self._writer.as_default(step):
            for name, path in paths.items():
                pixels = tf.io.decode_png(path.read_bytes(), channels=3)
                tf.summary.image(name, pixels[None])
        self._writer.flush()


def _writes():
    names = "tensorboard", "tensorflow"
    return all(importlib.util.find_spec(name) is not None for name in names)


@contextlib.contextmanager
def logged_to(project):
    """Lets runs that are trained inside log to a project of W&B's.

    Args:
        project: name, or None to log nothing.

    Raises:
        ImportError: wandb is not installed.
        ValueError: another backend than TensorFlow, the only one whose rates
            its callback reads.
    """
    if project is None:
        yield
        return
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise ValueError(
            "Weights & Biases's callback needs the TensorFlow backend. "
            f"Received: wandb={project!r} on {backend!r}"
        )
    if importlib.util.find_spec("wandb") is None:
        raise ImportError(
            "Logging to Weights & Biases needs its package: pip install "
            '"kanets[wandb]".'
        )
    with contextlib.ExitStack() as stack:
        token = _ASKED.set((project, stack))
        try:
            yield
        finally:
            _ASKED.reset(token)


def wandb_logger(recipe, directory):
    """W&B's own Keras callback, where `logged_to` asks for it, or None.

    Its run, of the folder's name, has the recipe as its configuration.
    """
    if _ASKED.get() is None:
        return None
    import wandb
    from wandb.integration.keras import WandbMetricsLogger

    project, stack = _ASKED.get()
    if wandb.run is None:
        run = wandb.init(
            project=project,
            name=directory.name,
            dir=directory,
            config=dataclasses.asdict(recipe),
            resume="auto",
            # What is printed is a bar of the whole run, not to be wrapped.
            settings=wandb.Settings(console="off"),
        )
        stack.enter_context(run)
    return WandbMetricsLogger()
