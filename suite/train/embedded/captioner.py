"""Trains the embedded captioner: `python -m suite.train.embedded.captioner --out FOLDER --cache FOLDER`.

The image encoder starts from the embedded classifier. First the text decoder alone learns from the encoder's output,
then all is trained together, the encoder at a lower rate. All captions of a scene are learned in one pass: they follow
each other behind the image's tokens, and none sees another. An auxiliary head, thrown away afterwards, makes patch
tokens know what they show, its place and size, and its role in the captions: the main object, the neighbour named with
it, another one, or background and of which pattern. The classifier has learned to overlook patterns, and words alone
are slow to teach them. On cores shared with other programs set OMP_WAIT_POLICY=passive.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from pycocoevalcap.cider.cider import Cider
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, smooth_l1_loss
from transformers import GitForCausalLM, GitVisionConfig, PreTrainedTokenizerFast

from suite.backbones.git import next_word_logits
from suite.models.load import load_model
from suite.models.scenes_git import build_scenes_git, build_word_tokenizer, preprocessor_config
from suite.sweep.progress import Progress
from suite.train import loop
from suite.train.caption_batches import BACKGROUND, ROLES, CaptionBatch, CaptionData, batch_of, caption_data, vocabulary
from suite.train.embedded.joint_job import JointJob, JointRecipe
from suite.train.embedded.model_job import run_command_line
from suite.train.scene_batches import normalise
from suite.train.warm_start import warm_start
from tasks.scenes.drawing import PATTERNS
from tasks.scenes.generator import NUM_CLASSES, VERSION

# A caption that is generated word by word follows the likeliest wording. That is to be the second one: it names six
# facts, and of the five it agrees most with the others (CIDEr of true captions: 4.6, of the others 3.9 to 4.2).
WORDING_WEIGHTS = (1.0, 3.0, 1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Recipe(JointRecipe):
    """Everything that decides what is learned, with the classifier's weights."""

    patch_weight: float = 0.5


class PatchTaught(nn.Module):
    """The captioner plus the auxiliary head on its patch tokens: class, role in the captions, pattern, geometry."""

    def __init__(self, git: GitForCausalLM) -> None:
        super().__init__()
        self.git = git
        self.outputs = [NUM_CLASSES + 1, ROLES, len(PATTERNS), 3]
        self.patch_head = nn.Linear(cast(GitVisionConfig, git.config.vision_config).hidden_size, sum(self.outputs))

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) to what the decoder is given, (B, N, C)."""
        return self.git.git.image_encoder(images).last_hidden_state

    def forward(self, features: Tensor, words: Tensor) -> tuple[Tensor, ...]:
        """Logits of next words (B, T, V), patch classes (B, P, K + 1), roles and patterns; geometry (B, P, 3)."""
        parts = self.patch_head(features[:, 1:]).split(self.outputs, dim=-1)
        return next_word_logits(self.git, features, words), *parts


def word_loss(logits: Tensor, words: Tensor, git: GitForCausalLM) -> Tensor:
    """Weighted mean cross-entropy of each caption's words and of the [EOS] that ends it."""
    wording = (words.eq(cast(int, git.config.bos_token_id)).cumsum(1) - 1)[:, :-1]
    last = words.eq(cast(int, git.config.eos_token_id)) | words.eq(cast(int, git.config.pad_token_id))
    weights = torch.tensor(WORDING_WEIGHTS)[wording] * ~last[:, :-1]
    losses = cross_entropy(logits[:, :-1].transpose(1, 2), words[:, 1:], reduction="none")
    return (losses * weights).sum() / weights.sum()


def patch_loss(classes: Tensor, roles: Tensor, patterns: Tensor, places: Tensor, batch: CaptionBatch) -> Tensor:
    """Objects and background weigh by themselves, not by their number: most patches are background."""
    seen = batch.roles != BACKGROUND
    loss = 2 * smooth_l1_loss(places[seen], batch.geometry[seen])
    loss = loss + cross_entropy(patterns[~seen], batch.patterns[~seen])
    for logits, targets in ((classes, batch.patches), (roles, batch.roles)):
        loss = loss + cross_entropy(logits[seen], targets[seen]) + 0.3 * cross_entropy(logits[~seen], targets[~seen])
    return loss


class CaptionerJob(JointJob):
    """words: how many there are, special tokens among them."""

    model: PatchTaught
    recipe: Recipe
    warm_up, encoder, embeddings = 100, "image_encoder", ("embeddings",)

    def __init__(self, recipe: Recipe, data: CaptionData, words: int, compiled: bool = False) -> None:
        super().__init__(recipe, prepare_model(recipe, data, words, compiled))
        self.data = data

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """The loss of words and, with less weight, that of patches."""
        rng = np.random.default_rng([self.recipe.seed + 2, step])
        rows = np.sort(rng.choice(len(self.data), self.recipe.batch_size, replace=False))  # a memory map, in order
        batch = batch_of(self.data, rows, rng.random(len(rows)) < 0.5)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.set_grad_enabled(step >= self.recipe.frozen_steps):
                features = self.model.encode(batch.images)
            parts = (part.float() for part in self.model(features, batch.words))
            logits, classes, roles, patterns, places = parts
        words = word_loss(logits, batch.words, self.model.git)
        patches = patch_loss(classes, roles, patterns, places, batch)
        return words + self.recipe.patch_weight * patches, {"words": words.item(), "patches": patches.item()}


def copy_as_shipped(git: GitForCausalLM) -> GitForCausalLM:
    """A copy in eval mode with the weights rounded to float16, and not compiled: captions come in many lengths."""
    copy = build_scenes_git(git.config.vocab_size)
    copy.load_state_dict({name: value.half() for name, value in git.state_dict().items()})
    return copy.eval()


@torch.no_grad()
def quality(git: GitForCausalLM, tokenizer: PreTrainedTokenizerFast, data: CaptionData, count: int) -> dict[str, float]:
    """Of greedy captions: share that is word for word one of the scene's references; CIDEr; CIDEr of other scenes'."""
    git = copy_as_shipped(git)
    written = []
    for start in range(0, count, 100):
        images = normalise(data.images[start : min(start + 100, count)])
        ids = git.generate(pixel_values=images, max_new_tokens=24, do_sample=False)
        written += tokenizer.batch_decode(ids, skip_special_tokens=True)
    references = {i: [text.decode() for text in data.captions[i, 0]] for i in range(count)}
    right = sum(text in references[i] for i, text in enumerate(written)) / count
    cider, _ = Cider().compute_score(references, {i: [text] for i, text in enumerate(written)})
    chance, _ = Cider().compute_score(references, {i: [written[i - 1]] for i in references})
    return {"right": right, "cider": float(cider), "cider_of_shuffled": float(chance)}


def write_texts(git: GitForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Configuration, words and preparation of images, as every release of transformers since 4.45 reads them.

    Not by `save_pretrained`: what releases since 5.0 write for a tokenizer, those before cannot read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    specials = {name: token for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    shared = {"model_max_length": tokenizer.model_max_length, "clean_up_tokenization_spaces": False}
    texts = {
        # The file has float16, the model runs in float32.
        "config.json": {**git.config.to_diff_dict(), "architectures": ["GitForCausalLM"], "dtype": "float32"},
        "preprocessor_config.json": preprocessor_config(),
        "special_tokens_map.json": specials,
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", **specials, **shared},
    }
    for name, content in texts.items():
        (folder / name).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def write_snapshot(
    git: GitForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path, recipe: Recipe, step: int, **measured: dict
) -> None:
    """A folder that transformers loads; its float16 weights carry the facts of the training as metadata."""
    write_texts(git, tokenizer, folder)
    about: dict[str, Any] = {
        "recipe": asdict(recipe), "generator_version": VERSION, "steps_done": step, "total_steps": recipe.steps,
    }  # fmt: skip
    facts = {key: json.dumps(value) for key, value in {**about, **measured}.items()}
    tensors = {name: value.detach().half().contiguous() for name, value in git.state_dict().items()}
    save_file(tensors, folder / "model.partial", {"format": "pt", **facts})
    (folder / "model.partial").replace(folder / "model.safetensors")
    print(f"saved step {step}: {measured}", flush=True)


def prepare_model(recipe: Recipe, data: CaptionData, words: int, compiled: bool) -> PatchTaught:
    """A model to start from."""
    torch.manual_seed(recipe.seed)
    model = PatchTaught(build_scenes_git(words))
    classifier, _ = load_model("scenes_vit", "embedded")
    warm_start(
        model.git.git.image_encoder.vision_model, cast(VisionTransformer, classifier), normalise(data.images[:256])
    )
    # The backward of fused attention is the slower one on CPUs, several times.
    model.git.set_attn_implementation("eager")
    if compiled:
        for layer in (*model.git.git.image_encoder.vision_model.encoder.layers, *model.git.git.encoder.layer):
            layer.compile(dynamic=False)
    return model


def train(
    recipe: Recipe, out: Path, cache: Path, every: int, workers: int, compiled: bool, held_out: int = 1000
) -> None:
    """Train, from the checkpoint in `<cache>/captioner` if there is one; snapshots to `out` every `every` steps.

    `held_out`: scenes of 'val' and of 'test' that the result is measured on.
    """
    tokenizer = build_word_tokenizer(vocabulary())
    data = caption_data("train", recipe.scenes, cache, workers, tokenizer)
    job = CaptionerJob(recipe, data, len(tokenizer), compiled)
    val, test = (caption_data(split, held_out, cache, workers, tokenizer) for split in ("val", "test"))

    def measure_and_write(step: int, count: int, **parts: CaptionData) -> None:
        found = {split: quality(job.model.git, tokenizer, part, count) for split, part in parts.items()}
        write_snapshot(job.model.git, tokenizer, out, recipe, step, **found)

    few = min(200, held_out)
    loop.train(
        job, cache / "captioner", Progress(), every=every, saved=lambda step: measure_and_write(step, few, val=val)
    )
    measure_and_write(recipe.steps, held_out, val=val, test=test)


if __name__ == "__main__":
    run_command_line(__doc__, Recipe(), train, out="folder to write, as transformers reads it", every=250)
