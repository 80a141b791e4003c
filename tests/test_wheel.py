"""The wheel is the program: installed, it runs beside whatever else is called `suite`, `tasks` or `reports`."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.test_imports import ROOT
from tests.wild.machines import user_packages

pytestmark = pytest.mark.slow
RUN = ("run", "--limit", "4", "--reducers", "tome,topk", "--rates", "r=8,keep=0.5", "--speed-rounds", "2")
"""A small sweep, which is timed, too."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """As `python -m build` makes it: from a source archive."""
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if uv is None:
        pytest.skip("uv is not installed; make installs it into its environment")
    folder = tmp_path_factory.mktemp("dist")
    built = subprocess.run([uv, "build", "--out-dir", folder, ROOT], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    [file] = folder.glob("*.whl")
    return file


class Installed:
    """An environment with the wheel, and the packages of this one, but those that it is to lack."""

    def __init__(self, folder, wheel):
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        self.bin, [self.site] = folder / "bin", folder.glob("lib/python*/site-packages")
        with zipfile.ZipFile(wheel) as files:
            files.extractall(self.site)
        program = self.bin / "reducerbench"  # as an installer writes it
        program.write_text(f"#!{self.bin / 'python'}\nimport sys\nfrom reducerbench import main\nsys.exit(main())\n")
        program.chmod(0o755)

    def run(self, *command, cwd, fails=False):
        """What a command of its own prints on both streams."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        line = [self.bin / command[0], *map(str, command[1:])]
        done = subprocess.run(line, cwd=cwd, env=clean, capture_output=True, text=True, timeout=600)
        assert bool(done.returncode) == fails, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory, wheel):
    made = Installed(tmp_path_factory.mktemp("installed"), wheel)
    (made.site / "others.pth").write_text(sysconfig.get_path("purelib"))  # behind its own
    return made


def test_nothing_lies_beside_its_one_folder_but_the_file_for_suite(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"reducerbench", "suite.py"}
    assert any(name.endswith(".dist-info/sboms/shipped.cdx.json") for name in names)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_it_holds_every_file_of_the_packages_but_pictures_for_readers(wheel):
    held = {name.removeprefix("reducerbench/packages/") for name in zipfile.ZipFile(wheel).namelist()}
    listed = subprocess.run(["git", "ls-files", "suite", "tasks", "reports"], cwd=ROOT, capture_output=True, text=True)
    files = {file for file in listed.stdout.split() if (ROOT / file).is_file()}
    left_out = {file for file in files - held if not file.startswith(("suite/alias/", "reports/examples/"))}
    assert len(files & held) > 300
    assert left_out == {"reports/published/README.md"}


def test_a_run_is_that_of_a_clone_cell_by_cell(installed, tmp_path):
    installed.run("reducerbench", *RUN, "--out", "run", cwd=tmp_path)
    command = [sys.executable, ROOT / "run_bench.py", *RUN, "--out", tmp_path / "clone"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=600)
    for name in ("scores.json", "flops.json", "accuracy.json"):
        files = [sorted((tmp_path / run / "cells").glob(f"*/{name}")) for run in ("run", "clone")]
        contents = [[(file.parent.name, json.loads(file.read_text())) for file in each] for each in files]
        assert len(contents[0]) == 4  # one of each method, each at the rate that it is defined for, and two unreduced
        assert contents[0] == contents[1]
    assert (tmp_path / "run" / "report" / "index.html").is_file()


@pytest.mark.parametrize("program", [["reducerbench"], ["python", "-m", "reducerbench"]])
def test_the_program_does_not_mind_what_lies_in_the_folder_that_it_is_run_from(program, installed, tmp_path):
    user_packages(tmp_path)
    for name in ("suite", "typer", "run_bench"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('of the current folder')\n")
    if program != ["reducerbench"]:
        (tmp_path / "typer.py").unlink()  # whose folder comes first is -m's to say
    assert "\nimagenet: " in installed.run(*program, "list", "tasks", cwd=tmp_path)


def test_a_package_reports_of_somebody_else_and_ours_lie_side_by_side(installed, tmp_path):
    user_packages(installed.site)
    try:
        theirs = "import reports, reports.nightly; print(reports.OWN, reports.nightly.SCHEDULE)"
        assert installed.run("python", "-c", theirs, cwd=tmp_path) == "mine mine at 3\n"
        both = f"import suite, tasks.scenes.classes, reports.tables.console; {theirs}"
        assert installed.run("python", "-c", both, cwd=tmp_path) == "mine mine at 3\n"
        assert "\nimagenet: " in installed.run("reducerbench", "list", "tasks", cwd=tmp_path)
    finally:
        for name in ("tasks", "reports"):
            shutil.rmtree(installed.site / name)


@pytest.mark.parametrize("first", ["suite", "reducerbench", "suite.errors", "suite.reducers.base"])
def test_what_is_imported_is_the_same_by_either_name(first, installed, tmp_path):
    code = (
        f"import {first}, sys; from suite import attach; from reducerbench import attach as also; "
        "assert attach is also; assert __import__('suite') is sys.modules['suite']; import suite.errors, tasks.scenes; "
        "print(attach.__name__)"
    )
    assert installed.run("python", "-c", code, cwd=tmp_path) == "attach\n"


def test_another_suite_that_was_imported_before_is_named(installed, tmp_path):
    (tmp_path / "suite.py").write_text("")
    said = installed.run("python", "-c", "import suite, reducerbench", cwd=tmp_path, fails=True)
    assert said.splitlines()[-1].startswith(f"ImportError: another 'suite' was imported before: {tmp_path}/suite.py")


EXTRAS = ("caption", "segmentation", "deploy", "ray", "generation", "judges")


@pytest.fixture(scope="module")
def light(tmp_path_factory, wheel):
    """Without what the extras bring: every other package of this environment is linked to."""
    made = Installed(tmp_path_factory.mktemp("light"), wheel)
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    brought = {canonicalize_name(Requirement(line).name) for extra in EXTRAS for line in declared[extra]}
    brought -= {"regex"}  # others need it, too
    modules = {
        name for name, of in packages_distributions().items() if brought & {canonicalize_name(one) for one in of}
    }
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        distribution = canonicalize_name(entry.name.partition("-")[0]) if entry.suffix == ".dist-info" else ""
        of_others = entry.name.partition(".")[0] not in modules and distribution not in brought
        if of_others and entry.suffix != ".pth" and not (made.site / entry.name).exists():
            (made.site / entry.name).symlink_to(entry)
    return made


def test_without_the_extras_classification_is_measured(light, tmp_path):
    assert "tome" in light.run("reducerbench", *RUN, "--out", "run", cwd=tmp_path)
    assert (tmp_path / "run" / "report" / "index.html").is_file()


TINY = ("--limit", "2", "--reducers", "tome", "--rates", "r=8", "--no-speed")
PIPELINE = "from suite.models.diffusers_pipeline import load_pipeline; load_pipeline('.')"
ASKED = {
    "segmentation": ["reducerbench", "run", "--task", "scenes-seg", *TINY],
    "deploy": ["reducerbench", "export", "--reducer", "tome", "--rate", "r=8"],
    "ray": ["reducerbench", "run", "--executor", "ray", *TINY],
    "generation": ["python", "-c", PIPELINE],
}


@pytest.mark.parametrize("extra", ASKED)
def test_what_needs_an_extra_names_it(extra, light, tmp_path):
    (tmp_path / "model_index.json").write_text("{}")
    said = light.run(*ASKED[extra], cwd=tmp_path, fails=True)
    assert f"pip install 'reducerbench[{extra}]'" in said.splitlines()[-1]


def test_captions_are_generated_without_their_scorers_and_say_what_brings_them(light, tmp_path):
    said = light.run("reducerbench", "run", "--task", "scenes-caption", *TINY, "--out", "run", cwd=tmp_path)
    assert "needs pycocoevalcap: pip install 'reducerbench[caption]'" in said
    [cell, _] = sorted((tmp_path / "run" / "cells").glob("*/scores.json"))
    assert json.loads(cell.read_text())["scores"]["cider"]["value"] is None
