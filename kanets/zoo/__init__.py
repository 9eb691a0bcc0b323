"""The zoo: models by name, and model folders from anywhere.

A model folder is what Keras writes unzipped and what the Hugging Face Hub
calls a Keras repository (`config.json`, `metadata.json`, `model.weights.h5`),
with `labels.txt`, a class per line, beside them. A zoo entry is a model folder
under `models/` with `entry.json` (figures, licence, checksums) and a card; a
GAN's is that of the generator, with the discriminator's in `discriminator/`.
"""

from kanets.files import sha256
from kanets.zoo.applications import application_name
from kanets.zoo.creating import create_model, feature_model
from kanets.zoo.entries import (
    ARCHITECTURES,
    TASKS,
    Architecture,
    Entry,
    list_models,
    models_directory,
)
from kanets.zoo.opening import load_model, saved_class_names
from kanets.zoo.published import list_hub
from kanets.zoo.pushing import push_model
from kanets.zoo.saving import save_model
from kanets.zoo.sources import is_entry

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "Entry",
    "TASKS",
    "application_name",
    "create_model",
    "feature_model",
    "is_entry",
    "list_hub",
    "list_models",
    "load_model",
    "models_directory",
    "push_model",
    "save_model",
    "saved_class_names",
    "sha256",
]
