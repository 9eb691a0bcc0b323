"""How far are our nets from timm's, with the same weights?

    python benchmarks/parity.py

Reads files of timm's names and shapes, with the values that
`tests/golden/README.md` gives them, into the nets whose outputs are stored (all
that have a table of timm's names but ViT and EfficientNet-Lite2), and compares
logits and the means of each stage to what timm computed in PyTorch. Writes
`parity.csv` beside this file: net, size of the pictures, parameters, the
largest logit and the worst differences; of 65x97 every tenth logit alone is
stored. Minutes. More outputs of timm's, keys as in `timm_compact.npz`, may be
named: they are printed, and not written.
"""

import os
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
LITES = "tf_efficientnet_"


def main():
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.path[:0] = [str(ROOT)]
    import numpy as np
    from tables import write

    from tests.nets import test_compact
    from tests.zoo import test_timm

    stored = dict(test_compact.FILE)
    lites = {f"{LITES}{key}": x for key, x in test_timm.LITES.items()}
    for path in sys.argv[1:]:
        with np.load(path) as file:
            stored = lites = dict(file)
    rows = []
    nets = {key.partition("/")[0] for key in (*stored, *lites)}
    for net in sorted(nets):
        for row in compare(net, lites if net.startswith(LITES) else stored):
            rows.append(row)
            print(*row.values(), flush=True)
    if not sys.argv[1:]:
        write(HERE / "parity.csv", rows)


def compare(net, stored):
    """A row for each size of a net that there are outputs of.

    Args:
        net: timm's name.
        stored: arrays by "<net>/<height>x<width>/<what>".
    """
    import numpy as np

    from tests import timm_files
    from tests.backends import to_numpy

    model, staged = read(net)
    parameters = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    keys = sorted(k for k in stored if k.startswith(f"{net}/"))
    for key in keys:
        _, size, what = (*key.split("/"), "")[:3]
        if what != "logits":
            continue
        height, width = map(int, size.split("x"))
        inputs = timm_files.inputs(net, (height, width))
        *means, logits = [to_numpy(x) for x in staged(inputs)]
        expected = stored[key]
        if expected.shape != logits.shape:
            logits = logits[:, ::10]
        wanted = [
            stored.get(f"{net}/{size}/stage{i}_mean") for i in range(len(means))
        ]
        stages = [
            np.abs(found - mean).max()
            for found, mean in zip(means, wanted, strict=True)
            if mean is not None
        ]
        yield {
            "net": net.removeprefix("tf_"),
            "size": size,
            "parameters": parameters,
            "largest_logit": f"{np.abs(expected).max():.3g}",
            "logits_difference": f"{np.abs(logits - expected).max():.1e}",
            "stages_difference": f"{max(stages):.1e}" if stages else "",
        }


def read(net):
    """A net with the weights, and the same to means of stages and logits."""
    import keras

    import kanets
    from tests.nets import test_compact
    from tests.zoo import test_timm

    with tempfile.TemporaryDirectory() as folder:
        if not net.startswith(LITES):
            model = test_compact.create(
                net, Path(folder), include_preprocessing=False
            )
            means = [
                keras.ops.mean(model.get_layer(layer).output, (1, 2))
                for layer in test_compact.ends(net, model)
            ]
            return model, keras.Model(model.input, [*means, model.output])
        variant = net.removeprefix(LITES)
        model = kanets.create_model(
            f"efficientnet_{variant}",
            weights=test_timm.write(Path(folder) / variant, variant),
            input_shape=(None, None, 3),
            **test_timm.LOGITS,
        )
        return model, test_timm.stages(model, variant)


if __name__ == "__main__":
    main()
