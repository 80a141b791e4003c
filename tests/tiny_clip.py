"""A CLIP and a SigLIP of transformers with random weights, written as their libraries write them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

WIDTH = 24  # of what images and texts become
BEGIN, END = "<|startoftext|>", "<|endoftext|>"


def write(folder: Path) -> Path:
    """A model and its tokenizer, which knows letters alone; returns the folder."""
    letters = [chr(code) for code in range(33, 127)]
    vocabulary = {token: i for i, token in enumerate([*letters, *(f"{one}</w>" for one in letters), BEGIN, END])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    tokenizer.save_pretrained(folder)
    layers = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**layers, "vocab_size": len(vocabulary), "max_position_embeddings": 77}
    text |= {"bos_token_id": vocabulary[BEGIN], "eos_token_id": vocabulary[END], "pad_token_id": vocabulary[END]}
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config=text, vision_config={**layers, "image_size": 32, "patch_size": 16}, projection_dim=WIDTH
    )
    CLIPModel(config).save_pretrained(folder)
    return folder
