"""A classifier of class names is what CLIP's own library makes of them."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from transformers import AutoTokenizer, CLIPModel

from suite.attachment.attach import attach
from suite.errors import RequestError
from suite.rates.rate import parse_rate
from suite.sweep.plan import make_task
from suite.sweep.spec import RunSpec
from tasks.zero_shot import read_prompts, text_classifier
from tests import tiny_clip
from tests.photos import write_photos

NAMES = ("tench", "goldfish", "great white shark")
PROMPTS = ("a photo of a {}.", "art of the {}.")
ROUNDING = 1e-5  # float32 sums in another order


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return str(tiny_clip.write(tmp_path_factory.mktemp("clip")))


def embeddings(clip: str, texts: list[str]) -> torch.Tensor:
    """By transformers alone, one text at a time."""
    model, tokenizer = CLIPModel.from_pretrained(clip).eval(), AutoTokenizer.from_pretrained(clip)
    with torch.no_grad():
        found = [
            model.text_projection(model.text_model(**tokenizer(text, return_tensors="pt")).pooler_output)
            for text in texts
        ]
    return torch.cat(found)


def test_one_prompt_gives_the_logits_of_transformers_own_clip(clip):
    classifier = text_classifier(clip, NAMES, PROMPTS[:1])
    model, tokenizer = CLIPModel.from_pretrained(clip).eval(), AutoTokenizer.from_pretrained(clip)
    texts = tokenizer([PROMPTS[0].replace("{}", name) for name in NAMES], padding=True, return_tensors="pt")
    pixels = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        theirs = model(pixel_values=pixels, **texts).logits_per_image
        images = model.visual_projection(model.vision_model(pixels).pooler_output)
    torch.testing.assert_close(classifier.logits(images), theirs, atol=ROUNDING, rtol=ROUNDING)


def test_several_prompts_are_normalised_averaged_and_normalised(clip):
    classifier = text_classifier(clip, NAMES, PROMPTS)
    for row, name in zip(classifier.weight, NAMES, strict=True):
        each = F.normalize(embeddings(clip, [prompt.replace("{}", name) for prompt in PROMPTS]), dim=1)
        torch.testing.assert_close(row, F.normalize(each.mean(dim=0), dim=0), atol=ROUNDING, rtol=ROUNDING)


def test_open_clip_gives_the_same_as_called_directly(tmp_path):
    open_clip = pytest.importorskip("open_clip")
    config = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 64, "layers": 1},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    (tmp_path / "tiny-for-tests.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny-for-tests.json")
    torch.manual_seed(0)
    classifier = text_classifier("open_clip:tiny-for-tests", NAMES, PROMPTS[:1])
    torch.manual_seed(0)
    model = open_clip.create_model("tiny-for-tests").eval()
    with torch.no_grad():
        tokens = open_clip.get_tokenizer("tiny-for-tests")([PROMPTS[0].replace("{}", name) for name in NAMES])
        images = F.normalize(model.encode_image(torch.randn(2, 3, 32, 32)), dim=1)
        theirs = model.logit_scale.exp() * images @ F.normalize(model.encode_text(tokens), dim=1).T
    torch.testing.assert_close(classifier.logits(images), theirs, atol=ROUNDING, rtol=ROUNDING)


def test_a_reduced_encoder_is_scored_by_the_same_classifier(clip, tmp_path):
    options = {"text": clip}
    task = make_task(RunSpec(task="imagenet_zero_shot", data=str(write_photos(tmp_path)), task_options=options))
    torch.manual_seed(2)
    model = VisionTransformer(32, 8, num_classes=tiny_clip.WIDTH, embed_dim=16, depth=2, num_heads=2).eval()
    task.check_model(model)
    images = torch.randn(2, 3, 32, 32)
    weight = text_classifier(clip, task.class_names, read_prompts(None)).weight
    with attach(model, "tome", parse_rate("r=3")), torch.inference_mode():
        scale = CLIPModel.from_pretrained(clip).logit_scale.exp()
        torch.testing.assert_close(task.predict(model, images), scale * F.normalize(model(images), dim=1) @ weight.T)


def test_prompts_and_names_that_do_not_fit_are_refused(clip, tmp_path):
    (tmp_path / "prompts.txt").write_text("a photo of a {}.\na photo\n")
    with pytest.raises(RequestError, match="line 2: 'a photo' has not one"):
        read_prompts(str(tmp_path / "prompts.txt"))
    (tmp_path / "names.txt").write_text("tench\n")
    data = str(write_photos(tmp_path / "data"))
    with pytest.raises(RequestError, match="has 1 lines for 1000 classes"):
        make_task(RunSpec(task="imagenet_zero_shot", data=data, task_options={"names": str(tmp_path / "names.txt")}))
    with pytest.raises(RequestError, match="cannot be loaded"):
        text_classifier(str(tmp_path), NAMES, PROMPTS)
