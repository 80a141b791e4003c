"""How captions are taught: which image and words, and the loss of the words that follow."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from cold_dtem import COLD
from taught import PLAIN, batch_of, make_captioner, scene_captions, seed
from tiny_git import tiny_git

from suite import RequestError, attach
from suite.backbones.git import features_to_learn, next_word_logits
from suite.models.captioner import Captioner
from suite.models.captioner_files import read_tokenizer
from suite.models.load import load_model
from suite.train.objectives.captioning import Captioning
from suite.train.recipe import Recipe
from tasks.coco.task import CocoCaption
from tasks.scenes.captions import ScenesCaption
from tests.captioned import CAPTIONS, coco, photos
from tests.captioned import write as write_captions
from tests.tolerances import SUM64, TINY32


def test_the_loss_of_captions_is_that_of_transformers_on_every_caption_by_itself():
    model, objective = scene_captions()
    batch = batch_of(objective)
    assert len({(row >= 0).sum().item() for row in batch.targets}) > 1  # some are padded
    terms = []
    with torch.no_grad():
        for image, row in zip(batch.images, batch.targets, strict=True):
            ids = row[row >= 0]
            logits = model.git(input_ids=ids[None], pixel_values=image[None]).logits[0, -len(ids) :]
            terms += [-logits[place].log_softmax(-1)[word].item() for place, word in enumerate(ids[1:].tolist())]
        loss = objective.loss(model, batch)
    assert loss.item() == pytest.approx(np.mean(terms), rel=TINY32["rtol"])


def test_padding_behind_a_caption_changes_nothing_even_if_its_id_is_that_of_a_word():
    model, objective = scene_captions()
    model, batch = copy.deepcopy(model).double(), batch_of(objective)
    batch = replace(batch, images=batch.images.double())
    longer = replace(batch, targets=torch.nn.functional.pad(batch.targets, (0, 4), value=-1))
    other = copy.copy(objective)
    other.pad = objective.eos
    with torch.no_grad():
        loss = objective.loss(model, batch).item()
        padded = [taught.loss(model, longer).item() for taught in (objective, other)]
    assert padded == pytest.approx([loss, loss], rel=SUM64)


@torch.no_grad()
def test_images_with_different_numbers_of_tokens_are_learned_as_each_by_itself():
    model, objective = scene_captions()
    batch = batch_of(objective)
    with attach(model, "ats", "keep=0.7") as handle:
        together = model.next_word_logits(batch.images, batch.targets.clamp(min=0))
        assert handle.tokens.valid is not None
        assert len(set(handle.tokens.counts.tolist())) > 1
        alone = [
            model.next_word_logits(image[None], words[None].clamp(min=0))
            for image, words in zip(batch.images, batch.targets, strict=True)
        ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_a_token_that_softly_vanished_is_not_read_at_all():
    model, objective = scene_captions()
    batch = batch_of(objective)
    words = batch.targets.clamp(min=0)
    with attach(model, "dtem", "r=[12]", **COLD) as handle:
        handle.reducer.train()
        features, bias = features_to_learn(model.backbone, batch.images)
        sizes = handle.tokens.size
        assert (sizes[:, -12:] < 1e-6).all()
        assert (sizes[:, :-12] > 0.99).all()
        assert features.shape[1] == 65
    biased = next_word_logits(model.git, features, words, bias)
    without = next_word_logits(model.git, features[:, :-12], words)
    torch.testing.assert_close(biased, without, **TINY32)
    assert not torch.allclose(next_word_logits(model.git, features, words), without, atol=1e-2)


def test_every_reference_is_drawn_and_begins_and_ends_as_the_model_generates():
    model, objective = scene_captions()
    sample, found = objective.task.samples[0], set()
    for number in range(40):
        seed(number)
        ids = objective.example(sample)[1].tolist()
        assert (ids[0], ids[-1]) == (1, 2)
        found.add(model.tokenizer.decode(ids[1:-1]))
    assert found == set(sample.label)


def test_a_caption_beyond_the_models_positions_is_cut_without_an_end():
    task = ScenesCaption(split="train", scenes=1)
    model = make_captioner(task)
    model.git.config.max_position_embeddings = 5
    objective = Captioning(task, model, PLAIN)
    ids = objective.example(task.samples[0])[1].tolist()
    assert len(ids) == 5
    assert ids[0] == 1
    assert 2 not in ids


def test_images_of_captions_are_those_of_evaluation_or_a_square_of_the_image(tmp_path):
    write_captions(tmp_path, photos("val2014"))
    write_captions(tmp_path, {"annotations/captions_val2014.json": coco()})
    task = CocoCaption(str(tmp_path))
    model = make_captioner(task)
    plain, cropping = (Captioning(task, model, Recipe(crop=crop)) for crop in (False, True))
    sample, seen = task.samples[0], set()
    for number in range(20):
        seed(number)
        assert torch.equal(plain.example(sample)[0], task.load(sample, plain.preprocessing))
        image = cropping.example(sample)[0]
        whole = plain.pictures.image(sample)
        tops = [
            top for top in range(whole.height - whole.width + 1)
            if torch.equal(image, plain.preprocessing(whole.crop((0, top, whole.width, top + whole.width))))
        ]  # fmt: skip
        assert tops
        seen.add(tops[0])
    assert len(seen) > 3
    assert len(task.samples) == len(CAPTIONS)


def test_a_model_without_words_cannot_be_taught_captions():
    task = ScenesCaption(split="train", scenes=1)
    with pytest.raises(RequestError, match="no tokenizer"):
        Captioning(task, Captioner(tiny_git()), PLAIN)


def test_the_embedded_captioner_says_the_captions_of_its_words():
    model, _ = load_model("scenes_git", "embedded")
    objective = Captioning(ScenesCaption(split="train", scenes=2), model, PLAIN)
    for caption in objective.task.samples[1].label:
        ids = objective.words(caption).tolist()
        assert (ids[0], ids[-1]) == (model.git.config.bos_token_id, model.git.config.eos_token_id)
        assert model.tokenizer.decode(ids) == caption
    loss = objective.loss(model, batch_of(objective)).item()
    assert 0 < loss < 1  # it was taught them


def test_a_list_of_word_pieces_reads_text_as_bert_does(tmp_path):
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "dog", "##gy", ",", "cafe"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces))
    words = read_tokenizer(tmp_path, len(pieces))
    assert words.encode("A doggy, café") == [4, 5, 6, 7, 8]
    assert words.decode([4, 5, 6]) == "a doggy"


def test_the_loss_of_words_falls_when_it_is_followed():
    model, objective = copy.deepcopy(scene_captions())
    batch = batch_of(objective)
    optimiser, losses = torch.optim.Adam(model.parameters(), 1e-3), []
    for _ in range(5):
        optimiser.zero_grad()
        loss = objective.loss(model, batch)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@torch.no_grad()
@pytest.mark.parametrize(("reducer", "rate"), [("none", None), ("tome", "r=6")])
def test_explicit_attention_gives_what_fused_attention_gives(reducer, rate):
    model, objective = copy.deepcopy(scene_captions())
    batch = batch_of(objective)
    with attach(model, reducer, rate):
        fused, _ = features_to_learn(model.backbone, batch.images)
        for block in model.backbone.encoder.layers:
            assert block.self_attn.fused_attn
            block.self_attn.fused_attn = False
        explicit, _ = features_to_learn(model.backbone, batch.images)
    assert not torch.equal(explicit, fused)  # other kernels
    torch.testing.assert_close(explicit, fused, **TINY32)
