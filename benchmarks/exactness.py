"""How far are our mechanisms from the code of their authors?

    python benchmarks/exactness.py

Runs every case of the golden arrays in `tests/golden/` (outputs of other
people's code, see its README) through our layers, in float32 on TensorFlow, and
writes `exactness.csv` beside this file: a row a file, with the number of cases,
the largest difference of an output and the largest output. Seconds.
"""

import inspect
import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
GOLDEN = ROOT / "tests" / "golden"
# The mechanism of the table, and whose code made the file.
WHOSE = {
    "kao_numpy_2d": ("kao_kv, kao_qkv", "the paper's formulas in float64"),
    "kronecker_lucidrains": ("kao_qkv", "lucidrains' kronecker-attention"),
    "sagan_nonlocal_nH8_2x16x16x64": ("dense", "the official YLG code"),
    "ylg_attention_2x16x16x64": ("ylg", "the official YLG code"),
    "axial_lucidrains": ("axial", "lucidrains' axial-attention"),
    "longformer_hf": ("window", "Longformer of transformers"),
    "windows_numpy": ("window", "loops in float64"),
    "natten": ("neighborhood", "NATTEN"),
    "reformer_hf": ("lsh", "Reformer of transformers"),
    "smyrf": ("smyrf", "the authors' SMYRF"),
    "adaptive_seq_attention": ("adaptive_span", "the authors' adaptive span"),
    "convnet_gates": (
        "squeeze_excitation, efficient_channel, cbam, global_context, "
        "coordinate, efficient_local",
        "timm",
    ),
    "convnet_tokens": (
        "multi_query, linear, single_head, separable, efficient_additive, "
        "spatial_reduction, cross_covariance, single_head_modulation, "
        "non_local",
        "timm and mmcv",
    ),
    "additive_numpy": ("AdditiveAttention", "the papers' formulas in float64"),
}

# Whatever of these a case has is what its layer is called with.
INPUTS = (
    *("query", "key", "value", "queries", "keys", "values", "input"),
    *("hidden_states", "extra_key", "extra_value", "additional_key"),
    *("additional_value", "key_value", "key_pe", "c", "y", "mask", "global"),
)


def main():
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.path[:0] = [str(ROOT)]
    from tables import write

    rows = []
    for name, (mechanism, whose) in WHOSE.items():
        pairs = list(outputs(name))
        rows.append(
            {
                "mechanism": mechanism,
                "file": f"{name}.npz",
                "code": whose,
                "cases": len(pairs),
                "largest_difference": f"{max(map(difference, pairs)):.1e}",
                "largest_output": f"{max(abs(p[1]).max() for p in pairs):.3g}",
            }
        )
        print(*rows[-1].values(), flush=True)
    write(HERE / "exactness.csv", rows)


def difference(pair):
    found, expected = pair
    if found.shape != expected.shape:
        raise ValueError(f"{found.shape} is not {expected.shape}")
    return abs(found.astype("float64") - expected).max()


def outputs(name):
    """Pairs of what ours gives and what is stored, a case each."""
    import numpy as np

    from kanets import attention
    from tests.attention import test_grid_layers, test_local_sparse
    from tests.backends import to_numpy

    arrays = np.load(GOLDEN / f"{name}.npz")
    if name == "kao_numpy_2d":
        for key in arrays.files:
            case, _, kind = key.partition("_kao_")
            if kind:
                call = getattr(attention, f"kao_{kind}")
                x = arrays[f"{case}_input"].astype("float32")
                yield to_numpy(call(x)), arrays[key]
    elif name == "kronecker_lucidrains":
        layer, x, channels = test_grid_layers.lucidrains_layer(arrays)
        expected = arrays["case0_output"].transpose(0, 2, 3, 1)
        yield to_numpy(layer(x))[..., :channels], expected
    elif name in test_local_sparse.CASES:
        make = test_local_sparse.CASES[name]
        layer, arrays = test_local_sparse.official(name, make)
        yield to_numpy(layer(arrays["input"])), arrays["output"]
    else:
        yield from of_cases(name)


def of_cases(name):
    import numpy as np

    from tests.attention import references
    from tests.backends import to_numpy

    path = GOLDEN / f"{name}.npz"
    flat = "/" not in next(iter(np.load(path).files))
    for case, arrays in references.cases(path, "_" if flat else "/").items():
        if "output" not in arrays:  # a mask alone
            continue
        arrays = {
            k: a.astype("float32") if a.dtype == "float64" else a
            for k, a in arrays.items()
        }
        _, call = references.from_golden(path.name, case, arrays)
        takes = inspect.signature(call).parameters
        any_name = {"more", "extra"} & set(takes)
        given = {
            key: arrays[key]
            for key in INPUTS
            if key in arrays and (key in takes or any_name)
        }
        yield to_numpy(call(**given)), arrays["output"]


if __name__ == "__main__":
    main()
