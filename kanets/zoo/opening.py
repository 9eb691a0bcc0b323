"""Models as they were saved or published, by name, place or address."""

from kanets.data.folders import imagenet_names
from kanets.files import read_labels
from kanets.zoo.applications import application_name
from kanets.zoo.creating import create_model
from kanets.zoo.loading import read
from kanets.zoo.sources import locate
from kanets.zoo.timm import described


def load_model(source):
    """The model of a name, a model folder, a run, a file or an address.

    Args:
        source: one of

            - the name of an entry, also "<name>/discriminator" of a GAN's
              (a folder of that name is "./name");
            - a model folder, or a `.keras` file, which holds no labels;
            - a run's folder: its best model, or a GAN's generator;
            - "hf://owner/name", maybe with "@revision": a Keras repository
              of the Hugging Face Hub (`pip install huggingface_hub`), or one
              of timm's whose net is an architecture of ours;
            - a `.safetensors` file of timm's with its `config.json`, or a
              folder of both;
            - "keras.applications.<Net>", or "<Net>" alone: a net with
              ImageNet's weights, which Keras fetches;
            - "https://host/name.keras#sha256=<64 hex digits>", or a `.zip` of
              a model folder. Without the hash it is refused.

    Returns:
        A `keras.Model`, not compiled; labels that were saved with it are its
        `class_names`, a tuple of strings.

    Raises:
        ValueError: nothing there to load; files that are missing, damaged,
            do not match their checksum, or were made by a newer version;
            weights that are not finite; an unknown name (the nearest are
            suggested); a download that failed.
        ImportError: "hf://" without `huggingface_hub`.

    Where the environment variable `KANETS_MIRROR` names a folder or the base
    of URLs, the weights of the zoo's entries are read from
    `<mirror>/<name>/model.weights.h5`, and checked as those installed are.
    """
    if application_name(source) is not None:
        return create_model(source)
    located = locate(source, foreign=True)
    return create_model(source) if located.is_timm else read(located)


def saved_class_names(source):
    """The labels that `load_model` would give a model, or None.

    Args:
        source: as in `load_model`; the model itself is not read.

    Raises:
        ValueError: as in `load_model`, where there is nothing to load.
    """
    if application_name(source) is not None:
        return tuple(imagenet_names().values())
    located = locate(source, foreign=True)
    if not located.is_timm:
        return read_labels(located.path)
    found = described(located.path)
    return found and found.class_names
