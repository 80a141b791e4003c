"""Every command of README.md and docs/ that can be run on small data is run, page by page, as a reader would.

What stands in a page is made smaller, never other: few samples, two methods where none are named, no timing but where
that is what a command is for, the smallest DeiT with random weights in place of larger ones with trained ones, small
files of a data set's own form.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator

import pytest

import tests.captioned as captioned
import tests.segmented as segmented
from suite.cli.app import main
from tests.docs.methods_page import PAGE
from tests.docs.pages import COMMANDS, PAGES, Command, Page, parse
from tests.photos import SYNSETS, write_photos_of_training

SMALL_MODELS = {"deit_small_patch16_224": "deit_tiny_patch16_224", "deit_base_patch16_224": "deit_tiny_patch16_224"}
SMALLER = {
    "--limit": "4", "--batch-size": "4", "--workers": "0", "--device": "cpu", "--speed-rounds": "2", "--calls": "2",
    "--warm-up": "0", "--calibration": "4", "--checkpoint": "none",
}  # fmt: skip
"""Flags that a command is given, if it has them."""
SAMPLES = {"int8": "8", "export": "4", "check": "64"}  # what is judged needs a few
JUDGING = {"check": {0, 3, 4}, "compare": {0, 4}}  # exit codes of verbs that say how it is
TO_RUN = [command for command in COMMANDS if not command.why]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[str, str]:
    """What stands in the pages, and where the small thing of that form lies."""
    folder = tmp_path_factory.mktemp("data")
    imagenet = write_photos_of_training(folder / "imagenet")
    (folder / "my_photos").mkdir()
    for photo in (imagenet / "val" / SYNSETS[0]).iterdir():
        shutil.copy(photo, folder / "my_photos" / photo.name)
    own = [text for page in PAGES for text in page.blocks("python") if text.count("@register(") == 1]
    named = {name: next(text for text in own if f"class {name}(" in text) for name in ("Mine", "MyMethod")}
    (folder / "my.py").write_text("\n\n".join(named.values()))
    return {
        "/data/imagenet": str(imagenet), "my_photos/": str(folder / "my_photos"), "my.py": str(folder / "my.py"),
        "dog.jpg": str(next((folder / "my_photos").iterdir())),
        "/data/coco": str(captioned.write(folder / "coco", {
            "annotations/captions_val2014.json": captioned.coco(), **captioned.photos("val2014/"),
        })),
        "/data/ADEChallengeData2016": str(segmented.write(folder / "ade20k", segmented.ade20k())),
    }  # fmt: skip


def smaller(command: Command, data: dict[str, str]) -> list[str]:
    text = command.arguments or "run --flops=-35%"
    for told, small in (*data.items(), *SMALL_MODELS.items()):
        text = text.replace(told, small)
    arguments = shlex.split(text)
    context = parse(arguments)
    verb, params = context.command.name, context.params
    known = {flag for one in context.command.params for flag in one.opts}
    flags = {} if params.get("flops_only") else {flag: value for flag, value in SMALLER.items() if flag in known}
    if "checkpoint" in params and (params.get("model") or "scenes").startswith("scenes") and not params.get("models"):
        flags.pop("--checkpoint", None)  # what is embedded comes with its weights
    if verb in SAMPLES:
        flags["--limit" if verb == "check" else "--samples"] = SAMPLES[verb]
    if verb in ("tokens", "masks"):
        arguments = without(arguments, "--samples")  # fewer have other ids
    if verb == "train":
        flags |= {"--steps": "2", "--batch-size": "4"}
        arguments = without(arguments, "--epochs")
    if verb in ("run", "predict") and not params.get("reducers"):
        flags["--reducers"] = "tome" if "generation" not in command.line else "tome_sd"
    for flag in flags:
        arguments = without(arguments, flag)
    further = [flag for flag in ("--no-contract",) if verb == "check"]
    timed = params.get("runtime") or verb in ("break-even", "latency")
    further += ["--no-speed"] if "--speed" in known and flags and not timed else []
    return [*arguments, *(part for flag in flags.items() for part in flag), *further]


def without(arguments: list[str], flag: str) -> list[str]:
    """The arguments without a flag and its value."""
    parts = iter(arguments)
    return [part for part in parts if not (part == flag and next(parts, None)) and not part.startswith(f"{flag}=")]


def pages() -> Iterator[Page]:
    yield from (page for page in PAGES if any(command.page == page.name for command in TO_RUN))


@pytest.mark.slow
@pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in pages()])
def test_the_commands_of_a_page_run_one_after_the_other(page, data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for command in (command for command in TO_RUN if command.page == page.name):
        arguments = smaller(command, data)
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        printed = capsys.readouterr()
        assert ended.value.code in JUDGING.get(arguments[0], {0}), (command.line, printed.err[-2000:])


def test_few_commands_are_not_run_and_each_says_why():
    unrun = [command for command in COMMANDS if command.why]
    assert len(unrun) < len(TO_RUN) / 2
    assert PAGE.name not in {command.page for command in unrun}


def test_a_command_is_made_smaller_and_nothing_else(data):
    asked = "python run_bench.py run --task imagenet --data /data/imagenet --model deit_small_patch16_224 --limit=9"
    arguments = smaller(Command("a.md", asked, ""), data)
    assert arguments[:3] == ["run", "--task", "imagenet"]
    assert arguments[arguments.index("--model") + 1] == "deit_tiny_patch16_224"
    assert arguments[arguments.index("--limit") + 1] == "4"
    assert "--limit=9" not in arguments
    assert smaller(Command("a.md", "python run_bench.py", ""), data)[0] == "run"
