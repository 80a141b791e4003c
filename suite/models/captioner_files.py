"""Captioners with their weights: folders in transformers' format, downloaded, local or shipped, and random weights.

A folder holds config.json, model.safetensors (or pytorch_model.bin, or an index of parts), tokenizer.json (or
vocab.txt), perhaps tokenizer_config.json, and preprocessor_config.json. All of it is data: no code of a folder is run.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import tokenizers
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.utils import EntryNotFoundError
from timm.data import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from tokenizers.decoders import WordPiece as WordPieceDecoder
from tokenizers.models import WordPiece
from transformers import GitConfig, GitForCausalLM, GitVisionConfig

from suite.errors import RequestError, UnavailableError
from suite.models.captioner import Captioner
from suite.models.contents import IN_FOLDERS, read_contents
from suite.models.hub import no_waiting_for_an_unreachable_hub
from suite.models.random_weights import build_random
from suite.models.registry import ModelEntry
from suite.models.weights_file import (
    WeightsInfo,
    check_fit,
    file_sha256,
    one_line,
    state_dict_sha256,
)

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
TOKENIZER = ("tokenizer.json", "vocab.txt")
WRITING = "tokenizer_config.json"
PREPROCESSOR = "preprocessor_config.json"
INTERPOLATION = {2: "bilinear", 3: "bicubic"}  # by Pillow's numbers


def load_captioner(entry: ModelEntry, checkpoint: str, seed: int = 0) -> tuple[Captioner, WeightsInfo]:
    """A captioner in float32 on the CPU, and what its weights are.

    `entry`: without a shape it is of whatever shape the checkpoint has.
    `checkpoint`: 'pretrained', 'embedded', 'none' (random weights from `seed`) or a local folder. The digest is over
    the weights and everything else that a caption depends on: configuration, words, preparation of images.
    """
    if checkpoint == "none":
        captioner = build_random(entry, seed)
        return captioner, WeightsInfo("random", f"random:seed={seed}", state_dict_sha256(captioner.state_dict()))
    if checkpoint == "pretrained":
        return _trained(entry, *_downloaded(entry))
    source = f"embedded:{entry.name}" if checkpoint == "embedded" else checkpoint
    return _trained(entry, entry.locate(checkpoint), source)


def _trained(entry: ModelEntry, folder: Path, source: str) -> tuple[Captioner, WeightsInfo]:
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise RequestError(f"checkpoint '{folder}' {what}; give a folder that transformers' save_pretrained wrote")
    config = read_config(folder)
    _check_shape(entry, config, folder)
    words, preparation = read_tokenizer(folder, config.vocab_size), read_preparation(folder, config)
    contents = read_contents(_first(folder, IN_FOLDERS))
    try:
        git = GitForCausalLM(config)
    except Exception as error:  # sizes that do not go together fail in many ways
        raise RequestError(f"'{folder / 'config.json'}' describes no GIT model: {one_line(error)}") from error
    _load(git, contents.tensors, contents.path)
    digest = hashlib.sha256()
    words_from = _first(folder, TOKENIZER)
    files = [folder / "config.json", *contents.files, words_from, folder / PREPROCESSOR, folder / WRITING]
    for file in filter(Path.is_file, files):
        digest.update(f"{file.name} {file_sha256(file)}\n".encode())
    return Captioner(git, words, preparation), WeightsInfo("trained", source, digest.hexdigest())


def build_captioner(**vision: Any) -> Captioner:
    """A captioner without words whose image encoder is of shape `vision`, as transformers names it.

    Images are prepared as CLIP's are.
    """
    config = GitConfig(vision_config=vision)
    side = vision["image_size"]
    clip = {"size": side, "crop_size": side, "image_mean": OPENAI_CLIP_MEAN, "image_std": OPENAI_CLIP_STD}
    return Captioner(GitForCausalLM(config), None, _timm_config(clip, config, Path(PREPROCESSOR)))


def build_like(folder: Path) -> Captioner:
    """A captioner of the shape, the words and the preparation of images that a folder has."""
    config = read_config(folder)
    words, preparation = read_tokenizer(folder, config.vocab_size), read_preparation(folder, config)
    return Captioner(GitForCausalLM(config), words, preparation)


def _downloaded(entry: ModelEntry) -> tuple[Path, str]:
    """The folder that the hub's client keeps a model's files in, and the source to name."""
    hub = entry.hub
    if not hub:
        folder = "give its folder as the checkpoint (--checkpoint FOLDER)"
        remedy = "use checkpoint embedded, none or a folder" if entry.weights else folder
        raise RequestError(f"model '{entry.name}' has no pretrained weights to download; {remedy}")
    try:
        with no_waiting_for_an_unreachable_hub():
            for files in (WEIGHTS, TOKENIZER, (PREPROCESSOR,), ("config.json",)):
                path = _download_first(hub, files)
            with suppress(EntryNotFoundError):
                hf_hub_download(hub, WRITING)
    # the client raises errors of several libraries: requests, httpx, huggingface_hub, OSError
    except Exception as error:
        none = ", or none for random weights" if entry.build else ""
        remedy = f"give a local folder with its files as the checkpoint{none}"
        raise UnavailableError(f"no pretrained weights for '{hub}': {one_line(error)}; {remedy}") from error
    return Path(path).parent, f"pretrained:{hub}"


def _download_first(hub: str, files: tuple[str, ...]) -> str:
    """The first of `files` that the model has."""
    for file in files[:-1]:
        try:
            return hf_hub_download(hub, file)
        except EntryNotFoundError:
            continue
    return hf_hub_download(hub, files[-1])


def _first(folder: Path, names: tuple[str, ...]) -> Path:
    """The first of `names` that the folder has."""
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        raise RequestError(f"checkpoint '{folder}' has no {' and no '.join(names)}; a captioner needs it")
    return found


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    path = _first(folder, (name,))
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RequestError(f"'{path}' cannot be read as JSON: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise RequestError(f"'{path}' holds a {type(content).__name__}; it must be an object with names and values")
    return content


def read_config(folder: Path) -> GitConfig:
    """The shape that a folder's config.json gives. RequestError for anything but a GIT model of single images."""
    content = _read_json(folder, "config.json")
    if content.get("model_type") != "git":
        raise RequestError(f"'{folder / 'config.json'}' is of model type {content.get('model_type')!r}, not 'git'")
    try:
        config = GitConfig.from_dict(content)
    except Exception as error:  # checks of transformers' own, of many types
        raise RequestError(f"'{folder / 'config.json'}' is no GIT configuration: {one_line(error)}") from error
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if not isinstance(getattr(config, key), int):
            raise RequestError(f"'{folder / 'config.json'}' has {key}={getattr(config, key)!r}; captions need an id")
    return config


def _check_shape(entry: ModelEntry, config: GitConfig, folder: Path) -> None:
    """RequestError where a folder holds another image encoder than the model's name says."""
    wanted = {} if entry.weights else entry.shape
    if entry.weights is not None and (entry.weights / "config.json").is_file():
        own = read_config(entry.weights).vision_config
        wanted = {key: getattr(own, key) for key in ("image_size", "patch_size", "hidden_size", "num_hidden_layers")}
    for key, value in wanted.items():
        found = getattr(config.vision_config, key)
        if found != value:
            raise RequestError(
                f"checkpoint '{folder}' does not fit model '{entry.name}': {key} is {found}, "
                f"not {value}; name the model 'git' to take the folder's own shape"
            )


class Words:
    """A tokenizer of a folder. `tidy`: without the spaces before punctuation and contractions, as in "a dog's bed"."""

    # transformers 4 tidies unless a folder says not to, 5 does not unless it says so; captions follow the older rule
    TIDIED = (" .", " ?", " !", " ,", " n't", " 'm", " 's", " 've", " 're")

    def __init__(self, tokenizer: tokenizers.Tokenizer, tidy: bool) -> None:
        self.tokenizer, self.tidy = tokenizer, tidy

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        text = self.tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens)
        if self.tidy:
            text = text.replace(" ' ", "'")
            for spaced in self.TIDIED:
                text = text.replace(spaced, spaced[1:])
        return text

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=add_special_tokens).ids


def read_tokenizer(folder: Path, words: int) -> Words:
    """What turns ids into text and back. RequestError unless it has as many words as the model."""
    path = _first(folder, TOKENIZER)
    try:
        if path.suffix == ".json":
            tokenizer = tokenizers.Tokenizer.from_file(str(path))
        else:  # BERT's list of word pieces, of which GIT's original text decoder is made
            tokenizer = tokenizers.Tokenizer(WordPiece.from_file(str(path)))
            tokenizer.normalizer = tokenizers.normalizers.BertNormalizer()
            tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
            tokenizer.decoder = WordPieceDecoder()
    except Exception as error:  # the library raises nothing more specific
        raise RequestError(f"'{path}' is no tokenizer: {one_line(error)}") from error
    if tokenizer.get_vocab_size() != words:
        raise RequestError(f"'{path}' has {tokenizer.get_vocab_size()} words, the model {words}; give the model's own")
    writing = _read_json(folder, WRITING) if (folder / WRITING).is_file() else {}
    return Words(tokenizer, bool(writing.get("clean_up_tokenization_spaces", True)))


def read_preparation(folder: Path, config: GitConfig) -> dict[str, Any]:
    """How images are prepared, as timm's `resolve_model_data_config` reads it from a model."""
    return _timm_config(_read_json(folder, PREPROCESSOR), config, folder / PREPROCESSOR)


def _timm_config(asked: Mapping[str, Any], config: GitConfig, path: Path) -> dict[str, Any]:
    """timm's words for what CLIP's image processor does: shorter side to `size`, centre crop, mean and deviation.

    RequestError for what timm has no words for.
    """
    try:
        reason = next(_unsupported(asked, cast(GitVisionConfig, config.vision_config).image_size), None)
    except TypeError as error:
        reason = f"has a value of a wrong type ({one_line(error)})"
    if reason is not None:
        raise RequestError(f"'{path}' {reason}; such preparation of images is not supported")
    size, crop = _size(asked), _crop(asked)
    if size is None or crop is None:
        raise RequestError(f"'{path}' has no size or crop_size; such preparation of images is not supported")
    ratio = crop / size
    while math.floor(crop / ratio) < size:  # timm rounds down what it divides
        ratio = math.nextafter(ratio, 0.0)
    return {
        "input_size": (3, crop, crop),
        "mean": tuple(asked["image_mean"]),
        "std": tuple(asked["image_std"]),
        "crop_pct": ratio,
        "crop_mode": "center-floor",  # as transformers cuts
        "interpolation": INTERPOLATION[asked.get("resample", 3)],
    }


def _unsupported(asked: Mapping[str, Any], side: Any) -> Iterator[str]:
    """What there is in a preprocessor_config.json that is not CLIP's way, for a model of images of `side` pixels."""
    kind = str(asked.get("image_processor_type") or asked.get("feature_extractor_type") or "CLIP")
    if not kind.startswith("CLIP"):
        yield f"is of type {kind}, not CLIPImageProcessor"
    for step in ("do_resize", "do_center_crop", "do_rescale", "do_normalize"):
        if not asked.get(step, True):
            yield f"turns {step} off"
    size, crop = _size(asked), _crop(asked)
    if size is None:
        yield f"has size {asked.get('size')!r}, not a shortest_edge"
    if crop is None or size is None or crop > size:
        yield f"has crop_size {asked.get('crop_size')!r}, not a square within the size"
    if crop != side:
        yield f"crops to {crop} pixels, but the model takes {side}"
    if asked.get("resample", 3) not in INTERPOLATION:
        yield f"has resample {asked['resample']!r}, neither 2 (bilinear) nor 3 (bicubic)"
    if not math.isclose(asked.get("rescale_factor", 1 / 255), 1 / 255, rel_tol=1e-6):
        yield f"has rescale_factor {asked['rescale_factor']!r}, not 1/255"
    for key in ("image_mean", "image_std"):
        if len(asked.get(key) or ()) != 3 or not all(math.isfinite(value) for value in asked[key]):
            yield f"has {key} {asked.get(key)!r}, not three numbers"


def _size(asked: Mapping[str, Any]) -> int | None:
    return _side(asked.get("size"), "shortest_edge")


def _crop(asked: Mapping[str, Any]) -> int | None:
    return _side(asked.get("crop_size"), "height", "width")


def _side(value: Any, *keys: str) -> int | None:
    """The one length that `value` gives, a number or an object of exactly `keys`."""
    if isinstance(value, dict):
        sides = {value.get(key) for key in keys} if set(value) == set(keys) else set()
        value = sides.pop() if len(sides) == 1 else None
    return value if isinstance(value, int) and value > 0 else None


def _load(git: GitForCausalLM, state: dict[str, torch.Tensor], path: Path) -> None:
    """Every key and shape must match; but older releases stored tables of positions, which are fixed."""
    state = {key: value for key, value in state.items() if not key.endswith("position_ids")}
    own = git.state_dict()
    if git.config.tie_word_embeddings and "git.embeddings.word_embeddings.weight" in state:
        state.setdefault("output.weight", state["git.embeddings.word_embeddings.weight"])
    check_fit(own, state, f"checkpoint '{path}' does not fit its config.json", "the two must be of the same model")
    git.load_state_dict(state)
