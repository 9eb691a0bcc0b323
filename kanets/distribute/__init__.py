"""One training on several devices and processes, on Keras's own engines.

On JAX, `keras.distribution`:

```python
distribution = kanets.distribute.initialize()  # one line a process
train, validation = kanets.data.load("photos/", image_size=(160, 160))
with distribution.scope():
    model = kanets.KANet((160, 160, 3), classes=len(train.class_names))
    model.compile("adamw", "sparse_categorical_crossentropy")
    model.fit(
        kanets.distribute.shard(train, model),
        validation_data=kanets.distribute.shard(validation, model),
        shuffle=False,
    )
```

`kanets train RECIPE --distributed` does this, and keeps one run's folder. On
TensorFlow, `kanets train RECIPE --devices N` uses `tf.distribute`'s
`MirroredStrategy` on one machine.
"""

from kanets.distribute.environment import Place
from kanets.distribute.layouts import layout
from kanets.distribute.mirrored import as_saved, is_mirrored, mirrored, prepare
from kanets.distribute.processes import (
    initialize,
    is_first,
    local,
    same_everywhere,
)
from kanets.distribute.run_folder import run_folder
from kanets.distribute.shares import shard

__all__ = [
    "Place",
    "as_saved",
    "initialize",
    "is_first",
    "is_mirrored",
    "layout",
    "local",
    "mirrored",
    "prepare",
    "run_folder",
    "same_everywhere",
    "shard",
]
