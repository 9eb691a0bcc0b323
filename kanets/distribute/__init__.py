"""One training on several devices and processes, on Keras's own engines.

On JAX, `keras.distribution`:

```python
distribution = kanets.distribute.initialize()
train, validation = kanets.data.load("photos/", image_size=(160, 160))
with distribution.scope():
    model = kanets.KANet((160, 160, 3), classes=len(train.class_names))
    model.compile("adamw", "sparse_categorical_crossentropy")
    train = kanets.distribute.shard(train, model)
    validation = kanets.distribute.shard(validation, model)
    model.fit(train, validation_data=validation, shuffle=False)
```

`kanets train RECIPE --distributed` does this, and keeps one run's folder. On
TensorFlow, `kanets train RECIPE --devices N` uses `tf.distribute`'s
`MirroredStrategy` on one machine.
"""

from kanets.distribute.layouts import layout
from kanets.distribute.processes import initialize
from kanets.distribute.shares import shard

__all__ = ["initialize", "layout", "shard"]
