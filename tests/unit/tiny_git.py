"""A GIT model small enough for any test, whose captions differ from image to image, and its folder."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor, nn
from transformers import GitConfig, GitForCausalLM

from suite.models.captioner import Caption

SIDE, TOKENS, WORDS = 32, 65, 60
PREPARATION = {
    "image_processor_type": "CLIPImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": SIDE},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": SIDE, "width": SIDE},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}


def tiny_git(seed: int = 0, **options) -> GitForCausalLM:
    """4 + 3 layers; 64 patches and a class token; ids 0, 1, 2 are padding, beginning and end."""
    vision = {"image_size": SIDE, "patch_size": 4, "hidden_size": 32, "intermediate_size": 64}
    config = GitConfig(
        vision_config={**vision, "num_hidden_layers": 4, "num_attention_heads": 2},
        **{"vocab_size": WORDS, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3},
        **{"num_attention_heads": 4, "max_position_embeddings": 64},
        **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, **options},
    )
    torch.manual_seed(seed)
    return spread(GitForCausalLM(config).eval())


def spread(git: GitForCausalLM) -> GitForCausalLM:
    """Weights so large that every image has a caption of its own, which a small change of the tokens changes."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, module in git.named_modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                # a decoder that attends to few tokens each time, not to the mean of all
                gain = 3.0 if name.endswith(("query", "key")) else 1.0
                noise = torch.randn(module.weight.shape, generator=generator)
                module.weight.copy_(noise * gain / module.weight[0].numel() ** 0.5)
            elif isinstance(module, nn.Embedding):
                module.weight.copy_(0.5 * torch.randn(module.weight.shape, generator=generator))
        git.output.bias[git.config.eos_token_id] -= 1  # not at once
    return git


def pictures(batch: int = 3, side: int = SIDE, seed: int = 0) -> Tensor:
    """(B, 3, H, W) noise over a gradient, another one for every image."""
    generator = torch.Generator().manual_seed(seed)
    slope = torch.linspace(-1, 1, side) * torch.randn(batch, 3, side, 1, generator=generator)
    return slope + 0.5 * torch.randn(batch, 3, side, side, generator=generator)


def prompts(lengths: list[int], batch: int = 3) -> tuple[Tensor, Tensor]:
    """Prompts (B, L) of those lengths in turn, padded on the left, and their mask."""
    longest = max(lengths)
    ids = torch.randint(3, WORDS, (batch, longest), generator=torch.Generator().manual_seed(5))
    mask = torch.zeros_like(ids)
    for row in range(batch):
        length = lengths[row % len(lengths)]
        mask[row, longest - length :] = 1
        ids[row, longest - length] = 1
    return ids * mask, mask


def write_folder(git: GitForCausalLM, folder: Path) -> Path:
    """What `save_pretrained` of model, words and image processor would leave there."""
    git.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPARATION))
    special = ["[PAD]", "[BOS]", "[EOS]"]
    words = [*special, *(f"word{i}" for i in range(len(special), git.config.vocab_size))]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[PAD]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def tokens_of(captions: list[Caption]) -> list[tuple[int, ...]]:
    return [caption.tokens for caption in captions]


def rows(generated: Tensor, end: int) -> list[tuple[int, ...]]:
    """Ids that transformers generated (B, T), each up to its end token."""
    return [tuple(ids[: ids.index(end) + 1] if end in ids else ids) for ids in generated.tolist()]
