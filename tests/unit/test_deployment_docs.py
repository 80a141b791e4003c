"""The script of docs/deployment.md classifies a JPEG as the suite does, with ONNX Runtime, numpy and Pillow alone."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from suite import attach
from suite.deploy.export import Shape, export
from suite.deploy.subject import make_subject
from suite.models.load import load_model
from tasks.reading.images import TimmPreprocessing, decode
from tasks.scenes.generator import draw_scene

DOCS = (Path(__file__).parents[2] / "docs" / "deployment.md").read_text(encoding="utf-8")
(SCRIPT,) = re.findall(r"^```python\n(.*?)^```", DOCS, re.M | re.S)


def test_the_script_has_twenty_lines():
    assert len([line for line in SCRIPT.splitlines() if line.strip()]) <= 20


@pytest.fixture
def exported(tmp_path):
    """The card of a file, a JPEG that is larger than the model's images and not square, and what PyTorch says of it."""
    subject = make_subject({"device": "cpu"}, "tome", "r=4")
    card = export(subject, "onnx", Shape(samples=4), tmp_path).card
    photo = tmp_path / "photo.jpg"
    picture = Image.fromarray(draw_scene("test", 3).image)
    picture.resize((picture.width * 3, picture.height * 2)).save(photo, quality=95)
    model, _ = load_model("scenes_vit")
    with torch.inference_mode(), attach(model, "tome", "r=4"):
        logits = model(TimmPreprocessing.of(model)(decode(photo.read_bytes()))[None])[0]
    return card, photo, logits


def classify(python, tmp_path, card, photo):
    script = tmp_path / "classify.py"
    script.write_text(SCRIPT + "\nassert not {'torch', 'suite'} & set(sys.modules)\n")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [python, script, card, photo], capture_output=True, text=True, env=clean, cwd=tmp_path, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.split()


@pytest.mark.slow
def test_it_classifies_a_jpeg_as_the_suite_does(exported, tmp_path):
    card, photo, logits = exported
    best, *name, value = classify(sys.executable, tmp_path, card, photo)
    assert int(best) == int(logits.argmax())
    assert len(name) == 2  # a colour and a shape
    assert float(value) == pytest.approx(float(logits.max()), rel=1e-3)


@pytest.mark.slow
def test_it_does_so_in_a_fresh_environment_of_three_packages(exported, tmp_path):
    card, photo, logits = exported
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "fresh"], check=True, timeout=120)
    python = tmp_path / "fresh" / "bin" / "python"
    wanted = [python, "-m", "pip", "install", "-q", "onnxruntime", "numpy", "pillow"]
    if subprocess.run(wanted, capture_output=True, timeout=400).returncode:
        pytest.skip("pip cannot fetch onnxruntime here")
    assert subprocess.run([python, "-c", "import torch"], capture_output=True).returncode
    assert int(classify(python, tmp_path, card, photo)[0]) == int(logits.argmax())
