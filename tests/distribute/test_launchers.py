"""The launchers' files, as far as they go without a cluster."""

import importlib.util
import re
import subprocess
from pathlib import Path

import pytest

from kanets import distribute
from kanets.distribute.environment import Place, find

FOLDER = Path(__file__).parents[2] / "examples" / "launchers"


def run(script, folder, *arguments, **environment):
    """What a script of bash runs, where its launcher prints it."""
    for name in ("srun", "gcloud"):
        command = folder / name
        command.write_text('#!/bin/bash\necho "$0" "$@"\n')
        command.chmod(0o755)
    return subprocess.run(
        ["bash", FOLDER / script, *arguments],
        env={"PATH": f"{folder}:/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_slurm_refuses_another_number_of_processes(tmp_path):
    for tasks in ("3", ""):
        done = run("slurm.sh", tmp_path, SLURM_NTASKS=tasks)
        assert (done.returncode, done.stdout) == (1, "")
    done = run("slurm.sh", tmp_path, SLURM_NTASKS="4")
    assert done.returncode == 0
    assert " python train.py 4 recipe.toml photos runs/mine" in done.stdout


def test_a_pod_is_told_its_number_of_processes(tmp_path):
    done = run("tpu_pod.sh", tmp_path, "pod", "zone")
    assert done.returncode == 0
    assert "ssh pod --zone zone --worker=all" in done.stdout
    assert "WORLD_SIZE=4\n  python train.py 4 recipe.toml" in done.stdout


def test_a_jobset_tells_each_pod_its_place():
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    jobset = yaml.safe_load((FOLDER / "jobset.yaml").read_text())
    [workers] = jobset["spec"]["replicatedJobs"]
    job = workers["template"]["spec"]
    pod = job["template"]["spec"]
    [container] = pod["containers"]
    count = job["completions"]
    assert job["parallelism"] == count and job["completionMode"] == "Indexed"
    assert container["command"] == ["python", "train.py", str(count)]
    environ = {item["name"]: item["value"] for item in container["env"]}
    host = f"{jobset['metadata']['name']}-{workers['name']}-0-0"
    assert environ["MASTER_ADDR"].startswith(f"{host}.")
    address = f"{environ['MASTER_ADDR']}:29500"
    environ["JOB_COMPLETION_INDEX"] = "3"
    assert find(environ) == Place(count, 3, address)


def test_the_script_asserts_the_number_of_processes(monkeypatch):
    pytest.importorskip("jax", reason="several processes train on JAX")
    spec = importlib.util.spec_from_file_location("train", FOLDER / "train.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    told = {}
    monkeypatch.setattr(distribute, "initialize", told.update)
    with pytest.raises(SystemExit, match="^1 processes were joined: .*'2'$"):
        script.main("2", "none.toml", "photos", "run", index=0)
    assert told == {"index": 0}
    # Its recipe is read after that.
    with pytest.raises(ValueError, match="must be a TOML file"):
        script.main("1", "none.toml", "photos", "run")


def test_ray_gives_each_worker_its_place():
    text = (FOLDER / "ray_train.py").read_text()
    compile(text, "ray_train.py", "exec")
    assert re.search(r"main\(\s+\*\(PROCESSES, ", text)
    pytest.importorskip("ray", reason="Ray is not installed")
    from ray.train.v2.jax import JaxTrainer  # noqa: F401
