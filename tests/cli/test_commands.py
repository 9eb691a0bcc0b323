"""The command: what it prints, what it leaves, and how it fails."""

import json
import re
import shutil
from pathlib import Path

import pytest

import kanets
from kanets import cli, recipes
from tests.backends import needs_tensorflow
from tests.photos import write_photos
from tests.test_recipes import tiny


@pytest.fixture(autouse=True)
def tiny_net(monkeypatch):
    monkeypatch.setitem(recipes.NETS, "tiny", tiny)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    return write_photos(root, 8, 4, (16, 16), "jpg", quality=95)


RECIPE = """
epochs = 12
batch_size = 4
[model]
name = "tiny"
width = 8
[optimize]
learning_rate = 0.2
"""


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    """A run made by the command."""
    root = tmp_path_factory.mktemp("runs")
    (root / "recipe.toml").write_text(RECIPE)
    recipes.NETS["tiny"] = tiny
    code = cli.main(
        [
            "train",
            str(root / "recipe.toml"),
            "--data",
            str(photos),
            "--to",
            str(root / "run"),
        ]
    )
    del recipes.NETS["tiny"]
    assert code == 0
    return root / "run"


def call(capsys, *arguments):
    code = cli.main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_train_and_evaluate(run, photos, capsys):
    code, out, _ = call(capsys, "evaluate", run, "--data", photos / "val")
    assert code == 0
    assert out == "accuracy 1.0000 (8 of 8 pictures)\n"
    evaluate = ("evaluate", run, "--data", photos / "val", "--json")
    code, out, _ = call(capsys, *evaluate)
    expected = {"accuracy": 1.0, "correct": 8, "pictures": 8}
    assert code == 0 and json.loads(out) == expected


def test_a_report_is_of_the_best_model(run, photos, capsys, tmp_path):
    ours = json.loads((run / "report" / "report.json").read_text())
    log = json.loads((run / "result.json").read_text())
    assert ours["accuracy"] == log["val_accuracy"] == 1.0
    assert log["report"] == "report" and log["weakest"] == {}
    # Told that red is blue, and the other way round.
    wrong = tmp_path / "wrong"
    for label, other in (("red", "blue"), ("blue", "red")):
        shutil.copytree(photos / "val" / label, wrong / other)
    folder = tmp_path / "report"
    evaluate = ("evaluate", run, "--data", wrong, "--report", folder)
    code, out, _ = call(capsys, *evaluate)
    assert code == 0 and out.splitlines() == [
        "accuracy 0.0000 (0 of 8 pictures)",
        "weakest classes: blue 0.0000; red 0.0000",
        f"where it errs: {folder} (classes.png, confusion.png, mistakes.png)",
    ]
    code, _, err = call(capsys, *evaluate[:-1], wrong)
    assert code == 1 and err.endswith(f" Received: --report {wrong}\n")


def test_train_reports_in_json(run, photos, capsys):
    again = ("train", run.parent / "recipe.toml", "--data", photos, "--to", run)
    code, out, err = call(capsys, *again, "--json")
    found = json.loads(out)
    assert code == 0 and "complete" in err
    assert found["run"] == str(run) and found["epochs"] == 12
    assert found["val_accuracy"] == 1.0


def test_predict_files_and_folders(run, photos, capsys):
    picture = photos / "val" / "red" / "0.jpg"
    code, out, _ = call(capsys, "predict", run, picture)
    assert code == 0
    assert out.startswith(f"{picture}: red 0.")
    code, out, _ = call(capsys, "predict", run, photos / "val", "--top-k", 1)
    answers = [line.split(": ")[1].split()[0] for line in out.splitlines()]
    assert answers == ["blue"] * 4 + ["red"] * 4
    code, out, _ = call(capsys, "predict", run, photos / "val", "--json")
    found = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and len(found) == 8
    assert found[4]["picture"] == str(picture)
    assert found[4]["classes"] == ["red", "blue"]
    assert sum(found[4]["scores"]) == pytest.approx(1)


@pytest.mark.thorough
@needs_tensorflow
def test_version_10_comes_after_version_9(run, photos, capsys, tmp_path):
    call(capsys, "export", run, "--to", tmp_path / "s", "--version", 9)
    call(capsys, "export", run, "--to", tmp_path / "s", "--version", 10)
    labels = tmp_path / "s" / "9" / "assets.extra" / "labels.txt"
    labels.write_text("other\nnames\n")
    code, out, _ = call(
        capsys, "evaluate", tmp_path / "s", "--data", photos / "val"
    )
    assert code == 0 and out == "accuracy 1.0000 (8 of 8 pictures)\n"


@pytest.mark.thorough
@needs_tensorflow
def test_export_then_the_bundle_says_the_same(run, photos, capsys, tmp_path):
    code, out, _ = call(
        capsys, "export", run, "--format", "savedmodel", "--to", tmp_path / "s"
    )
    assert code == 0 and out.startswith(str(tmp_path / "s" / "1"))
    _, plain, _ = call(capsys, "predict", run, photos / "val")
    _, served, _ = call(capsys, "predict", tmp_path / "s", photos / "val")
    assert served == plain
    _, out, _ = call(capsys, "evaluate", tmp_path / "s" / "1", "--data", photos)
    assert out == "accuracy 1.0000 (8 of 8 pictures)\n"
    code, _, err = call(
        capsys, "export", run, "--to", tmp_path / "s", "--version", 1
    )
    assert code == 1 and err.count("\n") == 1 and str(tmp_path) in err


@pytest.mark.thorough
@needs_tensorflow
def test_every_format_is_verified(run, photos, capsys, tmp_path):
    for arguments in (
        ["savedmodel", "--precision", "float16"],
        ["litert", "--precision", "int8", "--representative", photos / "train"],
        ["litert", "--batch-size", "any"],
        ["onnx"],
        ["openvino"],
    ):
        folder = tmp_path / "-".join(map(str, arguments[:3]))
        code, out, err = call(
            capsys, "export", run, "--to", folder, "--format", *arguments
        )
        assert code == 0 and out.startswith(str(folder)), err
        code, out, _ = call(
            capsys, "verify", folder, "--model", run, "--data", photos / "val"
        )
        assert code == 0, arguments
        found = re.search("8 inputs, agreement 1.0000, difference (.*?),", out)
        assert float(found[1]) < (0.1 if "int8" in arguments else 0.01)
    assert "(openvino 20" in out and "(1 threads), " in out


@needs_tensorflow
def test_a_keras_file_is_exported_with_labels(run, capsys, tmp_path):
    kanets.load_model(run).save(tmp_path / "plain.keras")
    (tmp_path / "names").write_text("blau\nrot\n")
    code, out, _ = call(
        capsys,
        *("export", tmp_path / "plain.keras", "--to", tmp_path / "onnx"),
        *("--format", "onnx", "--labels", tmp_path / "names"),
        "--no-from-logits",
    )
    assert code == 0
    assert (tmp_path / "onnx" / "labels.txt").read_text() == "blau\nrot\n"
    (tmp_path / "names").write_text("blau\nrot\n", encoding="utf-16")
    code, _, err = call(
        capsys,
        *("export", tmp_path / "plain.keras", "--to", tmp_path / "onnx2"),
        *("--format", "onnx", "--labels", tmp_path / "names"),
    )
    assert code == 1 and "must be in UTF-8" in err and "names'" in err


@needs_tensorflow
def test_an_artifact_of_another_model_fails(run, photos, capsys, tmp_path):
    model = kanets.load_model(run)
    model.layers[-1].kernel.assign(-model.layers[-1].kernel)
    model.layers[-1].bias.assign(-model.layers[-1].bias)
    kanets.export.export_onnx(model, tmp_path / "other")
    verify = ["verify", tmp_path / "other", "--model", run]
    verify += ["--data", photos / "val"]
    code, out, err = call(capsys, *verify)
    assert code == 1 and "agreement 0.0000" in out
    assert "at least 0.95 of the inputs (--min-agreement)" in err
    code, out, _ = call(capsys, *verify, "--min-agreement", 0, "--json")
    assert code == 0 and json.loads(out)["agreement"] == 0


def test_options_that_do_not_fit_a_format(run, capsys, tmp_path):
    for format, option, value in (
        ("savedmodel", "--batch-size", "2"),
        ("litert", "--version", "3"),
        ("onnx", "--precision", "float16"),
        ("openvino", "--representative", "photos"),
    ):
        code, _, err = call(
            capsys,
            *("export", run, "--to", tmp_path / "x"),
            *("--format", format, option, value),
        )
        assert code == 1 and not list(tmp_path.iterdir())
        message = f"{option} does not fit --format {format}. Received: {value}"
        assert message in err


@needs_tensorflow
def test_models_config_lists_what_was_exported(run, capsys, tmp_path):
    export = "export", run, "--to", tmp_path / "b", "--batch-sizes"
    with pytest.raises(SystemExit):
        call(capsys, *export, "1;3")
    assert "'1;3' is no list as 1,8,32" in capsys.readouterr().err
    call(capsys, *export, "1,3")
    shutil.copytree(tmp_path / "b", tmp_path / "a")
    code, out, _ = call(
        capsys, "models-config", tmp_path, "--base-path", "/here"
    )
    assert code == 0 and out.strip() == str(tmp_path / "models.config")
    _, out, _ = call(capsys, "models-config", tmp_path, "--json")
    assert json.loads(out) == {"models_config": out.split('"')[3]}
    _, out, _ = call(capsys, "models-config", tmp_path, "--batch-sizes", "1,3")
    parameters = tmp_path / "batching_parameters.txt"
    assert out.splitlines()[1] == str(parameters) and parameters.exists()
    call(capsys, "models-config", tmp_path, "--base-path", "/here")
    text = (tmp_path / "models.config").read_text()
    assert text.index('base_path: "/here/a"') < text.index('"/here/b"')


@pytest.mark.thorough
def test_finetune(run, photos, capsys, tmp_path):
    code, out, _ = call(
        capsys,
        *("finetune", run, "--data", photos, "--to", tmp_path / "tuned"),
        *("--epochs", 2, "--frozen-epochs", 1, "--no-jit-compile"),
        "--new-head",
    )
    assert code == 0
    assert "A new head for 2 classes, as new_head = true says." in out
    assert "kept, validation accuracy" in out
    tuned = tmp_path / "tuned"
    assert (tuned / "report" / "confusion.png").exists()
    where, predict, export = out.splitlines()[-3:]
    assert where.startswith(f"where it errs: {tuned}/report (classes.png, ")
    assert predict == f"next: kanets predict {tuned} PICTURE"
    assert export.strip().endswith(f"{tuned} --to savedmodels/tuned")
    recipe = recipes.read(tmp_path / "tuned" / "recipe.toml")
    assert recipe.jit_compile is False and recipe.finetune.new_head is True
    options = {"jit_compile": False, "new_head": True}
    assert recipe == recipes.finetune_recipe(
        run, photos, epochs=2, frozen_epochs=1, **options
    )
    assert kanets.load_model(tmp_path / "tuned").class_names == ("blue", "red")


@needs_tensorflow
@pytest.mark.slow
def test_finetune_for_8_bits(capsys, tmp_path):
    sample = kanets.data.unpack_sample(tmp_path / "sample")
    tuned, phone = tmp_path / "tuned", tmp_path / "phone"
    code, out, err = call(
        capsys,
        *("finetune", "kanet_qkv_cifar10", "--data", sample, "--to", tuned),
        *("--epochs", 2, "--int8"),
    )
    assert code == 0, err
    assert "The last 1 of 2 epochs train for 8 bits." in out
    code, _, err = call(
        capsys,
        *("export", tuned, "--format", "litert", "--to", phone),
        *("--precision", "int8"),
    )
    assert code == 0, err
    found = {}
    for name in (tuned, phone):
        _, out, _ = call(capsys, "evaluate", name, "--data", sample, "--json")
        found[name] = json.loads(out)["accuracy"]
    assert found[tuned] > 0.75
    assert found[phone] == pytest.approx(found[tuned], abs=0.03)


def test_list(capsys):
    code, out, _ = call(capsys, "list")
    assert code == 0
    for entry in kanets.list_models():
        assert f"{entry.name} " in out
    _, out, _ = call(capsys, "list", "nothing*")
    assert out == "There is no model that 'nothing*' names.\n"
    _, out, _ = call(capsys, "list", "--json", "kanet_qkv_cifar10")
    [found] = json.loads(out)
    [entry] = kanets.list_models("kanet_qkv_cifar10")
    assert found["value"] == entry.value and found["input_shape"] == [32, 32, 3]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["evaluate", "kanet_nix", "--data", "x"], "zoo entry"),
        (["train", "none.toml", "--to", "x"], "must be a TOML file"),
        (["predict", "{run}", "none.jpg"], "no such picture. Received: 'none"),
        (["predict", "{run}", "s/top_k=1"], "Received: 's/top_k=1'"),
        (["evaluate", "{run}", "--data", "none"], "none"),
        (["finetune", "{run}", "--data", "none", "--to", "{tmp}/x"], "none"),
        (["predict", "{run}", "gs://x/a.jpg"], "first. Received: 'gs://x"),
        (["predict", "{runs}", "{photos}"], "itself: name {run}. Received: '"),
        (["predict", "{tmp}", "{photos}"], "A model folder holds config.json"),
        (
            ["predict", "{run}", "{photos}", "--distributed"],
            "kanets predict-many. Received: --distributed\n",
        ),
        (
            ["predict", "{run}", "{photos}", "--top-k", "0"],
            "Received: --top-k 0\n",
        ),
        (
            ["predict", "{run}", "{photos}", "--top-k", "-1"],
            "`--top-k` must be a positive integer. Received: --top-k -1\n",
        ),
        (
            ["predict", "{run}", "{photos}", "--to", "{tmp}/x"],
            "`--to` must be a table for the answers of a classifier, a file "
            "that ends in .csv, .jsonl, .parquet. Received: --to {tmp}/x",
        ),
        (
            ["evaluate", "{run}", "--data", "{photos}", "--ignore-label", "7"],
            "`--on-error`, `--report`. Received: `--ignore-label` for",
        ),
        (
            ["finetune", "{run}", "--data", "{photos}", "--to", "{tmp}/x"]
            + ["--ignore-label", "7"],
            "`--ignore-label` is for a segmenter. Received: --ignore-label 7 "
            "for '{run}', a classifier",
        ),
        (
            ["verify", "{run}", "--model", "{run}", "--count", "0"],
            "`--count` must be a positive integer. Received: --count 0\n",
        ),
    ],
)
def test_errors_are_one_line(run, photos, tmp_path, capsys, arguments, text):
    places = {"run": run, "runs": run.parent, "photos": photos, "tmp": tmp_path}
    arguments = [a.format(**places) for a in arguments]
    text = text.format(**places)
    code, out, err = call(capsys, *arguments)
    assert code == 1 and not out
    assert err.startswith("kanets: error: ") and text in err
    assert err.count("\n") == 1 and "Traceback" not in err


def test_a_model_that_diverged_is_refused(run, photos, tmp_path, capsys):
    model = kanets.load_model(run)
    model.layers[-1].bias.assign([float("nan"), 0.0])
    broken = tmp_path / "broken.keras"
    model.save(broken)
    for command in (
        ["evaluate", broken, "--data", photos],
        ["predict", broken, photos],
        ["export", broken, "--to", tmp_path / "served"],
    ):
        code, out, err = call(capsys, *command)
        assert code == 1 and not out and err.count("\n") == 1
        assert "weights of a model must be finite" in err
        assert f"'{broken}' with NaN" in err
    assert not (tmp_path / "served").exists()


def test_a_damaged_picture_is_named(run, photos, tmp_path, capsys):
    folder = tmp_path / "photos" / "red"
    folder.mkdir(parents=True)
    whole = (photos / "val" / "red" / "0.jpg").read_bytes()
    (folder / "whole.jpg").write_bytes(whole)
    (folder / "cut.jpg").write_bytes(whole[:200])
    data = tmp_path / "photos"
    for more in (["evaluate"], ["finetune", "--to", tmp_path / "tuned"]):
        code, _, err = call(capsys, *more, run, "--data", data)
        assert code == 1 and "cut.jpg" in err and "whole.jpg" not in err
        assert "(`--on-error skip` leaves" in err and "on_error" not in err
    code, _, err = call(capsys, "predict", run, folder)
    assert code == 1 and "cut.jpg" in err and "`--on-error skip`" in err
    # A recipe says it as Python does.
    (tmp_path / "recipe.toml").write_text(RECIPE)
    train = ["train", tmp_path / "recipe.toml", "--to", tmp_path / "run"]
    code, _, err = call(capsys, *train, "--data", data)
    assert code == 1 and "(`on_error='skip'` leaves" in err
    with pytest.warns(UserWarning, match="cut.jpg"):
        code, out, _ = call(
            capsys, "evaluate", run, "--data", data, "--on-error", "skip"
        )
    assert out == "accuracy 1.0000 (1 of 1 pictures)\n"


def test_predict_labels_what_is_good(run, photos, tmp_path, capsys):
    whole = (photos / "val" / "red" / "0.jpg").read_bytes()
    for name in "acd":
        (tmp_path / f"{name}.jpg").write_bytes(whole)
    (tmp_path / "b.jpg").write_bytes(whole[:200])
    code, out, err = call(capsys, "predict", run, tmp_path)
    assert code == 1 and out.startswith(f"{tmp_path / 'a.jpg'}: red 0.")
    assert out.count("\n") == 1, "what comes before the bad one"
    code, out, err = call(
        capsys, "predict", run, tmp_path, "--on-error", "skip"
    )
    lines = [line.split(".jpg: ") for line in out.splitlines()]
    assert code == 0
    assert [Path(name).name for name, _ in lines] == ["a", "c", "d"]
    bad, count = err.splitlines()
    assert bad.startswith(f"kanets: {tmp_path / 'b.jpg'}: damaged: ")
    assert count == "kanets: 1 of 4 pictures left out"


@pytest.mark.thorough
@needs_tensorflow
def test_the_demo(tmp_path, capsys):
    code, out, err = call(capsys, "demo", "--to", tmp_path, "--epochs", 1)
    assert code == 0, err[-2000:]
    lines = out.splitlines()
    for step in range(1, 6):
        assert any(line.startswith(f"{step}. ") for line in lines)
    accuracies = [x.split()[-1] for x in lines if ": accuracy " in x]
    assert len(accuracies) == 2 and accuracies[0] == accuracies[1]
    assert lines[-1].strip().endswith(tuple("0123456789"))
