"""The embedded captioning model: a small GIT (Wang et al. 2022, arXiv:2205.14100) for the embedded scenes.

Its image encoder has the shape of the embedded classifier: 12 blocks, width 96, 14 x 14 patches and a class token.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import GitConfig, GitForCausalLM, GitVisionConfig, PreTrainedTokenizerFast

from suite.models.scenes_vit import SCENES_MEAN, SCENES_SIDE, SCENES_STD

PAD, BOS, EOS, UNK = SPECIAL_TOKENS = ("[PAD]", "[BOS]", "[EOS]", "[UNK]")  # ids 0, 1, 2, 3
MAX_WORDS = 32  # of a caption with [BOS] and [EOS]: the longest of the scenes' captions has 19


def scenes_git_config(vocab_size: int) -> GitConfig:
    """Encoder: (B, 3, 112, 112) to (B, 197, 96). Decoder: 3 layers of width 128. 1.9 M parameters in all."""
    vision = GitVisionConfig(
        hidden_size=96,
        intermediate_size=384,
        num_hidden_layers=12,
        num_attention_heads=3,
        image_size=SCENES_SIDE,
        patch_size=8,
    )
    return GitConfig(
        vision_config=vision.to_dict(),
        vocab_size=vocab_size,
        hidden_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=384,
        hidden_dropout_prob=0.0,  # a small model of endless data has nothing to memorise
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=MAX_WORDS,
        initializer_range=0.06,  # for a width of 128; transformers' 0.02 is made for widths near 768
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )


def build_scenes_git(vocab_size: int) -> GitForCausalLM:
    """transformers' `GitForCausalLM` with random weights. Images as for `build_scenes_vit`."""
    return GitForCausalLM(scenes_git_config(vocab_size))


def build_word_tokenizer(words: Iterable[str]) -> PreTrainedTokenizerFast:
    """One token a word: special tokens first, then `words` in alphabetical order. Text becomes [BOS] ... [EOS]."""
    vocabulary = {word: i for i, word in enumerate((*SPECIAL_TOKENS, *sorted(set(words))))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=UNK))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing(
        single=f"{BOS} $A {EOS}", special_tokens=[(BOS, vocabulary[BOS]), (EOS, vocabulary[EOS])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        model_max_length=MAX_WORDS,
        clean_up_tokenization_spaces=False,
    )


def preprocessor_config() -> dict:
    """What transformers' image processors read: size, mean and standard deviation of the images."""
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": SCENES_SIDE},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": SCENES_SIDE, "width": SCENES_SIDE},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(SCENES_MEAN),
        "image_std": list(SCENES_STD),
    }
