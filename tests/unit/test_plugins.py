"""Installed plug-ins: a broken one is named once, with its distribution, and nothing else suffers from it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GOOD = """
from suite.reducers.base import Reducer, register

@register("{name}")
class Mine(Reducer):
    def after_attention(self, tokens, signals, amount):
        return tokens.keep(signals.class_attention[:, tokens.num_prefix :].argsort(1)[:, amount:] + tokens.num_prefix)
"""
BROKEN_REDUCERS = {
    "missing import": ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
    "syntax": ("def (", "SyntaxError"),
    "leaves": ("import sys\nsys.exit(3)", "SystemExit: 3"),
    "no reducer": ("Mine = 3", "TypeError: 3 is no subclass of suite.reducers.base.Reducer"),
    "attribute": ("Other = 3", "AttributeError"),
    "no name": (GOOD.format(name="x").replace('@register("x")', ""), "decorate it with @register"),
    "a name that is taken": (GOOD.format(name="tome"), "'tome' is registered twice"),
    "another's name": (GOOD.format(name="sound"), "'sound' is registered twice"),
    "old hook": (
        GOOD.format(name="old").replace("tokens, signals, amount", "tokens, amount"),
        "has to take (self, tokens, signals, amount)",
    ),
    "no hook": (GOOD.format(name="idle").replace("after_attention", "reduce"), "overrides no hook"),
    "odd rates": (GOOD.format(name="odd").replace("    def", "    rates = 'r'\n    def"), "rates='r' is no tuple"),
    "needs options": (
        GOOD.format(name="needy").replace("    def", "    def __init__(self, width): super().__init__()\n    def"),
        "missing 1 required positional argument",
    ),
}
# A Vision Transformer with a forward of its own, which timm's family refuses, and the family that it comes with.
FAMILY = """
from timm.models.vision_transformer import VisionTransformer
from suite.backbones.timm_vit import ReducedViT, TimmViT

class Doubled(VisionTransformer):
    def forward(self, x):
        return 2 * super().forward(x)

class ReducedDoubled(ReducedViT):
    def forward(self, x):
        return 2 * super().forward(x)

class Mine(TimmViT):
    mixin = ReducedDoubled

    def check(self, model):
        assert isinstance(model, Doubled)
"""
BROKEN_FAMILIES = {
    "missing import": ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
    "no family": ("class Mine: pass", "is no subclass of suite.backbones.base.BackboneFamily"),
    "lacks methods": (
        "from suite.backbones.base import BackboneFamily\nclass Mine(BackboneFamily): pass",
        "abstract methods",
    ),
}
MODEL = """
from suite.models.registry import CLASSIFIER, ModelEntry

def build(num_classes=48):
    from own_vit import Doubled
    model = Doubled(img_size=32, patch_size=4, embed_dim=32, depth=4, num_heads=2, num_classes=num_classes)
    model.default_cfg = model.pretrained_cfg = {{"input_size": (3, 32, 32)}}
    return model

Mine = ModelEntry("{name}", CLASSIFIER, "own_model:build", licence="MIT")
"""
BROKEN_MODELS = {
    "missing import": ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
    "no entry": ("Mine = 3", "TypeError: 3 is no ModelEntry, nor a module with one"),
    "a name that is taken": (MODEL.format(name="lvvit_s"), "model 'lvvit_s' is registered twice"),
    "odd kind": (MODEL.format(name="odd").replace(", CLASSIFIER,", ", 'classifier',"), "is no ModelKind"),
}
TASK = """
from tasks.scenes.classes import Scenes

class Mine(Scenes):
    \"\"\"Scenes of mine.

    They are like all others.\"\"\"

    name = "{name}"
"""
BROKEN_TASKS = {
    "missing import": ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
    "no task": ("Mine = 3", "3 is no subclass of suite.contract.task.Task with a name"),
    "no name": (TASK.replace("    name =", "    title ="), "is no subclass of suite.contract.task.Task with a name"),
    "a name that is taken": (TASK.format(name="imagenet"), "task 'imagenet' is registered twice"),
    "lacks attributes": (
        "from suite.contract.task import Task\nclass Mine(Task): name = 'bare'",
        "task 'bare' lacks default_model",
    ),
    "lacks methods": (
        TASK.format(name="half") + "\nMine.__abstractmethods__ = frozenset({'load'})",
        "task 'half' lacks load",
    ),
}
KINDS = {"reducer": BROKEN_REDUCERS, "family": BROKEN_FAMILIES, "model": BROKEN_MODELS, "task": BROKEN_TASKS}
BROKEN = [(kind, *broken) for kind, faults in KINDS.items() for broken in faults.values()]
GROUPS = {"reducer": "reducers", "family": "families", "model": "models", "task": "tasks"}


def install(folder: Path, distribution: str, source: str, point: str = "broken", kind: str = "reducer") -> None:
    """What an installer leaves in site-packages: a module and its distribution's metadata."""
    module = distribution.replace("-", "_")
    (folder / f"{module}.py").write_text(source)
    about = folder / f"{module}-1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
    (about / "entry_points.txt").write_text(f"[reducerbench.{GROUPS[kind]}]\n{point} = {module}:Mine\n")


def install_all_of_mine(folder: Path) -> None:
    """A family, a model of it, and a task."""
    install(folder, "own-vit", FAMILY, "own_vit", "family")
    install(folder, "own-model", MODEL.format(name="own_vit_small"), "any", "model")
    install(folder, "own-task", TASK.format(name="own-scenes"), "any", "task")


def ask(folder: Path, code: str) -> subprocess.CompletedProcess:
    program = f"import sys; sys.path.insert(0, {str(folder)!r}); {code}"
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def faults(tmp_path_factory):
    """A folder with a sound plug-in that prints and warns, and one of every broken kind."""
    folder = tmp_path_factory.mktemp("site")
    noisy = "import warnings\nwarnings.warn('old')\nprint(' hello from a plug-in')\n"
    install(folder, "a-sound-one", noisy + GOOD.format(name="sound"), "sound")
    install_all_of_mine(folder)
    for number, (kind, source, _) in enumerate(BROKEN):
        install(folder, f"broken-{number}", source, f"broken{number}", kind)
    return folder


def test_every_broken_plugin_is_named_once_and_all_others_are_there(faults):
    done = ask(
        faults,
        """from suite import attach
from suite.cli.app import main
from suite.models.registry import list_models
from tasks import list_tasks
from tests.unit.tiny_vit import make_model

attach(make_model(), "sound", "r=1")
print(*list_tasks(), sep="\\n")
print(*list_models("*v*t_s*"), sep="\\n")
main(["list", "reducers"])
""",
    )
    assert done.returncode == 0, done.stderr
    assert {"own-scenes", "imagenet", "('own_vit_small', 'with --checkpoint FILE')", "('lvvit_s', '')"} <= {
        *done.stdout.splitlines()
    }
    for name in ("sound", "tome", "evit"):
        assert name in done.stdout.split()
    for name in ("old", "idle", "odd", "needy", "hello"):  # what was registered before the fault, and what was printed
        assert f" {name} " not in done.stdout
    lines = [line for line in done.stderr.splitlines() if "left out" in line]
    assert len(lines) == len(BROKEN)
    for number, (kind, _, reason) in enumerate(BROKEN):
        [line] = [line for line in lines if f"broken-{number} 1.2" in line]
        assert line.startswith(f"warning: {kind} plug-in 'broken{number}' (broken_{number}:Mine)")
        assert reason in line


ASKING = {
    "reducer": ["run", "--reducers", "tome,broken", "--rates", "r=1"],
    "model": ["run", "--model", "broken", "--reducers", "tome", "--rates", "r=1"],
    "task": ["run", "--task", "broken", "--reducers", "tome", "--rates", "r=1"],
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ASKING)
def test_a_broken_plugin_that_is_asked_for_is_one_line_with_its_reason_and_exit_code_2(tmp_path, kind):
    install(tmp_path, "broken-one", "import no_such_module", kind=kind)
    done = ask(tmp_path, f"from suite.cli.app import main; main({ASKING[kind]})")
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith(f"error: {kind} plug-in 'broken' (broken_one:Mine) of broken-one 1.2 is left out")
    assert "No module named 'no_such_module'" in line


def test_a_model_of_a_family_and_a_task_that_are_all_installed_run_together(tmp_path):
    install_all_of_mine(tmp_path)
    done = ask(
        tmp_path,
        f"""import suite
sweep = {{"task": "own-scenes", "model": "own_vit_small", "checkpoint": "none", "limit": 4, "speed": False}}
frame = suite.run(sweep, reducers="tome", rates="r=3", out={str(tmp_path / "run")!r}, report=False).frame()
assert set(frame.task) == {{"own-scenes"}} and set(frame.model) == {{"own_vit_small"}}
assert list(frame.reducer) == ["none", "tome"] and frame.gmacs.is_monotonic_decreasing and list(frame.samples) == [4, 4]
""",
    )
    assert done.returncode == 0, done.stderr


def test_a_task_that_is_installed_is_listed_with_the_first_line_about_it(tmp_path):
    install_all_of_mine(tmp_path)
    done = ask(tmp_path, "from suite.cli.app import main; main(['list', 'tasks'])")
    assert done.returncode == 0, done.stderr
    assert {"own-scenes: Scenes of mine."} < {*done.stdout.splitlines()}
    assert "\nimagenet: " in done.stdout


def test_models_of_a_family_that_is_installed_are_reduced_as_their_own_forward_has_it(tmp_path):
    install(tmp_path, "own-vit", FAMILY, "own_vit", "family")
    done = ask(
        tmp_path,
        """import torch
from own_vit import Doubled
from suite import attach, count_flops
from tests.unit.tiny_vit import make_model, SHAPE
plain, doubled = make_model(), Doubled(**SHAPE).eval()
doubled.load_state_dict(plain.state_dict())
images = torch.randn(2, 3, *plain.patch_embed.img_size)
for rate in ("r=0", "r=2"):
    with attach(plain, "tome", rate), attach(doubled, "tome", rate) as handle, torch.no_grad():
        assert torch.equal(doubled(images), 2 * plain(images))
        assert count_flops(doubled).total == count_flops(plain).total
""",
    )
    assert done.returncode == 0, done.stderr


def test_a_model_of_a_family_that_is_broken_is_refused_with_the_reason(tmp_path):
    install(tmp_path, "own-vit", "import no_such_module", "timm.models.vision_transformer", "family")
    done = ask(
        tmp_path,
        """from suite import RequestError, attach
from tests.unit.tiny_vit import make_model
try:
    attach(make_model(), "tome", "r=1")
except RequestError as error:
    print(error)
""",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        "family plug-in 'timm.models.vision_transformer' (own_vit:Mine) of own-vit 1.2 is left"
    )
    assert "No module named 'no_such_module'" in done.stdout
