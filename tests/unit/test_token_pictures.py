"""Which group a patch is in after every block, and the pictures of it."""

import io
from itertools import combinations

import numpy as np
import pytest
import torch
from PIL import Image

from reports.pictures.token_sheet import TokenImage, TokenPanel, draw_panel, edges, token_figure
from suite import attach
from suite.backbones.segmenter import build_segmenter
from suite.cli.app import main
from suite.errors import RequestError
from suite.pictures.blocks import blocks_of
from suite.pictures.token_maps import token_maps
from suite.pictures.token_pictures import as_seen, write_token_pictures
from suite.reducers.base import Reducer
from suite.tokens.grouping import Matching
from tasks.reading.images import TimmPreprocessing
from tests.unit.tiny_git import tiny_git
from tests.unit.tiny_vit import images, make_model

DEIT = {"model": "deit_tiny_patch16_224", "checkpoint": "none", "image_size": 64, "device": "cpu"}
RATES = {"tome": "r=8", "dtem": "r=8", "mctf": "r=8", "tofu": "r=8", "evit": "keep=0.6", "topk": "keep=0.6"}


class DropThenMerge(Reducer):
    """Block 1 drops the last patch and then merges the first into the second; block 2 merges these into the third."""

    name = "drop_then_merge"

    def after_attention(self, tokens, signals, amount):
        prefix, batch = tokens.num_prefix, len(tokens.x)

        def positions(*values):
            return torch.tensor(values).expand(batch, -1)

        if signals.block == 1:
            tokens = tokens.keep(positions(*range(prefix, tokens.count - 1)))
        first = [place for place in range(tokens.count) if place != prefix]
        return tokens.merge(Matching(positions(*first), positions(prefix), positions(prefix)))


class IntoTheClassToken(Reducer):
    name = "into_the_class_token"

    def after_attention(self, tokens, signals, amount):
        kept = torch.arange(tokens.count - 1).expand(len(tokens.x), -1)
        last = torch.full((len(tokens.x), 1), tokens.count - 1)
        return tokens.merge(Matching(kept, last, torch.zeros_like(last)))


def picture_of(values, tmp_path, **how):
    file = tmp_path / "tokens.png"
    notes = write_token_pictures({**DEIT, **values}, file, **how)
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB")), notes


@pytest.fixture
def photo(tmp_path):
    ramp = np.linspace(40, 220, 80 * 80 * 3).reshape(80, 80, 3).astype(np.uint8)
    Image.fromarray(ramp).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.mark.parametrize("name", [*RATES, "ats", "dpcknn"])
def test_every_block_is_told_and_the_last_one_agrees_with_the_tokens(name):
    model = make_model()
    with attach(model, name, RATES.get(name, "keep=0.6")) as handle:
        maps = token_maps(handle, images())
        tokens, prefix = handle.tokens, handle.tokens.num_prefix
        assert maps.counts.tolist() == [65, *handle.token_counts]
    assert maps.grid == (8, 8)
    assert len(maps.owners) == 4
    for block, owners in enumerate(maps.owners, start=1):
        assert owners.shape == (3, 64)
        assert (owners.max(1) < maps.present[:, block] - prefix).all()
        assert (maps.present[:, block] <= maps.counts[block]).all()
    assert (maps.owners[-1] == np.maximum(tokens.owner[:, prefix:].numpy() - prefix, -1)).all()
    assert maps.counts[-1] < 65


def test_two_steps_within_a_block_belong_to_that_block():
    with attach(make_model(), DropThenMerge(), "r=[0,2,1,0]") as handle:
        maps = token_maps(handle, images(batch=2))
    assert maps.owners[0][0].tolist() == list(range(64))
    assert maps.owners[1][0].tolist() == [0, *range(62), -1]
    assert maps.owners[2][0].tolist() == [0, 0, *range(61), -1]
    assert (maps.owners[3] == maps.owners[2]).all()
    assert maps.counts.tolist() == [65, 65, 63, 62, 62]
    assert maps.groups(1, 1).shape == (8, 8)
    assert maps.groups(1, 1)[7, 7] == -1


def test_nothing_taken_out_leaves_every_patch_to_itself():
    with attach(make_model(), "none") as handle:
        maps = token_maps(handle, images())
    assert all((owners == np.arange(64)).all() for owners in maps.owners)
    assert maps.counts.tolist() == [65] * 5


def test_what_tome_has_merged_stays_together():
    with attach(make_model(), "tome", "r=13") as handle:
        maps = token_maps(handle, images())
    for finer, coarser in zip(maps.owners, maps.owners[1:]):
        for before, after in zip(finer, coarser):
            pairs = set(zip(before.tolist(), after.tolist()))
            assert len(pairs) == len(set(before.tolist()))  # a group goes into one group
            assert len(set(after.tolist())) < len(set(before.tolist()))


def test_images_that_keep_fewer_tokens_are_told_apart():
    with attach(make_model(), "ats", "keep=0.6") as handle:
        maps = token_maps(handle, images(batch=6))
    present = maps.present[:, -1]
    assert present.min() < present.max() == maps.counts[-1]
    assert [len(set(owners[owners >= 0])) for owners in maps.owners[-1]] == (present - 1).tolist()


def test_a_patch_that_is_merged_into_the_class_token_is_nobodys():
    with attach(make_model(), IntoTheClassToken(), "r=1") as handle:
        maps = token_maps(handle, images())
    assert (maps.owners[0][:, -1] == -1).all()
    assert (maps.owners[0][:, :-1] == np.arange(63)).all()


def test_encoders_of_captioners_and_segmenters_have_maps_too():
    segmenter = build_segmenter(
        image_size=32, patch_size=4, width=32, depth=4, heads=2, num_classes=3, decoder_heads=2
    ).eval()
    for model in (segmenter, tiny_git()):
        with attach(model, "topk", "r=8") as handle:
            maps = token_maps(handle, images())
        assert maps.counts.tolist() == [65, 57, 49, 41, 33]
        assert all((owners < 0).sum() == 3 * 8 * block for block, owners in enumerate(maps.owners, start=1))


@pytest.mark.parametrize("name", ["sit", "patchmerger", "sinkhorn"])
def test_mixtures_of_all_patches_are_refused_by_name(name):
    with (
        attach(make_model(), name, "keep=0.6") as handle,
        pytest.raises(RequestError, match=f"'{name}' are mixtures of all"),
    ):
        token_maps(handle, images())


def test_where_no_patch_has_an_owner_the_reason_is_said():
    model = make_model()
    with attach(model, "dtem", "r=8") as handle:
        handle.reducer.train()
        with pytest.raises(RequestError, match="softly"):
            token_maps(handle, images())
    with pytest.raises(RequestError, match="not attached"):
        token_maps(handle, images())
    segmenter = build_segmenter(
        image_size=32, patch_size=4, width=32, depth=2, heads=2, num_classes=3, decoder_heads=2
    ).eval()
    segmenter.restore = "per_block"
    with attach(segmenter, "tome", "r=8") as handle, pytest.raises(RequestError, match="per_block"):
        token_maps(handle, images())


def test_a_border_runs_where_a_group_meets_another():
    assert edges(np.array([[0, 0, 1], [0, 2, 1]])) == [
        ((2, 2), (0, 1)), ((1, 1), (1, 2)), ((2, 2), (1, 2)), ((1, 2), (1, 1)),
    ]  # fmt: skip


def test_what_was_dropped_is_struck_through_and_a_grey_group_is_not():
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    draw_panel(axes, np.full((4, 8, 3), 128, np.uint8), np.array([[0, -1], [0, 3]]))
    assert (axes.images[0].get_array() == 128).all()  # by colour alone nobody could tell
    strokes = axes.lines[0].get_xydata()
    assert strokes[:2].tolist() == [[1, 1], [2, 0]]
    assert len(strokes) == 3


@pytest.mark.parametrize("blocks", [(12,), (3, 6, 9, 12)])
@pytest.mark.parametrize("methods", [1, 5])
def test_no_text_lies_on_another_or_leaves_the_picture(blocks, methods):
    panel = TokenPanel(np.array([[0, -1], [1, 1]]), 197)
    names = [
        ("my_own_reducers/with/a/long/path.py:Reducer", "untrained embedding", "flops=-50% → keep=0.5204")
    ] * methods
    image = np.zeros((32, 32, 3), np.uint8)
    shown = [
        TokenImage(f"a_file_with_quite_a_long_name_{i}.JPEG", image, [[panel] * len(blocks)] * methods) for i in "ab"
    ]
    figure = token_figure(
        shown,
        names,
        [f"after block {block}" for block in blocks],
        "deit_small_patch16_224.fb_in1k, weights: /some/where/model.safetensors",
    )
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.texts]
    boxes += [legend.get_window_extent() for legend in figure.legends]
    boxes += [axes.get_window_extent() for axes in figure.axes]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    assert all(figure.bbox.contains(*corner) for box in boxes for corner in (box.min, box.max))


def test_the_picture_is_what_the_model_sees():
    preprocessing = TimmPreprocessing.of(make_model(), 32)
    picture = Image.fromarray(np.arange(48 * 32 * 3, dtype=np.uint32).reshape(48, 32, 3).astype(np.uint8) // 2)
    view = preprocessing(picture)
    (seen,) = as_seen("a.png", view[None], preprocessing)
    mean, std = (torch.tensor(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    again = (torch.from_numpy(seen.picture.copy()).permute(2, 0, 1) / 255 - mean) / std
    assert seen.picture.shape == (32, 32, 3)
    assert (again - view).abs().max() < 0.02


def test_blocks_are_counted_from_one():
    assert blocks_of("", 12) == [3, 6, 9, 12]
    assert blocks_of("", 2) == [1, 2]
    assert blocks_of("all", 3) == [1, 2, 3]
    assert blocks_of("9, 3", 12) == [3, 9]
    for wrong in ("0", "13", "x", "3,,4"):
        with pytest.raises(RequestError, match="write 1 to 12, or all"):
            blocks_of(wrong, 12)


def test_one_command_draws_any_picture_file_with_both_spellings(tmp_path, capsys, photo):
    file = tmp_path / "new" / "tokens.svg"
    model = ["--model", DEIT["model"], "--checkpoint", "none", "--image-size", "64"]
    asked = ["--reducer", "tome,topk", "--rate", "r=2", "--blocks", "6,12", "--out", str(file)]
    with pytest.raises(SystemExit) as ended:
        main(["view", "tokens", "--image", str(photo), *model, *asked])
    assert ended.value.code == 0
    assert str(file) in capsys.readouterr().out
    assert file.read_text().startswith("<?xml")


def test_rows_are_blocks_and_columns_are_methods(tmp_path, photo):
    asked = {"reducers": "tome,s*", "rates": ["r=1"]}
    picture, notes = picture_of(asked, tmp_path, images=[photo], blocks="6,12")
    assert any("'sit' are mixtures" in note for note in notes)  # of a wildcard, so left out
    more, _ = picture_of({"reducers": "tome", "rates": ["r=1", "r=2"]}, tmp_path, images=[photo], blocks="3,6,9,12")
    assert more.shape[0] > picture.shape[0]
    assert more.shape[1] > picture.shape[1]


def test_what_cannot_be_drawn_is_refused_in_one_line(tmp_path, photo):
    torn = tmp_path / "torn.jpg"
    buffer = io.BytesIO()
    Image.new("RGB", (90, 90), "red").save(buffer, "JPEG")
    torn.write_bytes(buffer.getvalue()[:-60])
    tome = {"reducers": "tome", "rates": ["r=1"]}
    for values, how, match in (
        (tome, {"images": [torn]}, r"torn\.jpg' cannot be read: "),
        (tome, {"images": [tmp_path / "no.png"]}, r"no\.png' cannot be read: No such file"),
        (tome, {"images": [photo], "samples": ["test/00000"]}, "not both"),
        (tome, {"images": [photo], "blocks": "13"}, "13.*1 to 12"),
        ({**tome, "reducers": "sit"}, {"images": [photo]}, "mixtures of all patches"),
        ({**tome, "reducers": "none"}, {"images": [photo]}, "no method is left to draw"),
    ):
        with pytest.raises(RequestError, match=match):
            picture_of(values, tmp_path, **how)
    assert not (tmp_path / "tokens.png").exists()
    with pytest.raises(RequestError, match=r"\.png, \.svg, \.pdf"):
        write_token_pictures({**DEIT, **tome}, tmp_path / "a.jpg", images=[photo])
