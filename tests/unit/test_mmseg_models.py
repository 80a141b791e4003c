"""mmsegmentation's own Segmenter: ours computes the same from its weights, and it runs through the same reducers.

Its models import only where mmcv has compiled operators. A Segmenter uses none of them, so where they are missing a
stand-in lets the import pass, and what runs is mmsegmentation's own code all the same.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from suite import RequestError, attach
from suite.backbones import family_of
from suite.backbones.segmenter import RESTORE, build_segmenter
from suite.measure.flops import count_flops, count_module
from suite.models.load import load_model
from suite.models.registry import find_entry
from suite.models.segmenter_files import from_mmseg
from suite.models.weights_file import check_fit
from tests.segmented import known_as

COMPILED = importlib.util.find_spec("mmcv._ext") is not None
NAME, SHAPE = "seg_test_mask_16", {"width": 128, "depth": 4, "heads": 2, "image_size": 64, "num_classes": 5}


class StandIn(ModuleType):
    """Has whatever is imported from it; none of it does anything."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


@pytest.fixture
def operators(monkeypatch):
    """mmsegmentation's models, with operators in mmcv or, for the length of a test, something in their place.

    For so long there is a published Segmenter that takes no time.
    """
    known_as(monkeypatch, NAME, **SHAPE)
    if not COMPILED:
        monkeypatch.setitem(sys.modules, "mmcv.ops", StandIn("mmcv.ops"))
    return importlib.import_module("mmseg.models")


def settings(shape=SHAPE, **changes) -> dict:
    """`model` of a config, as mmsegmentation's own Segmenters have it."""
    side = (shape["image_size"], shape["image_size"])
    return {
        "type": "EncoderDecoder",
        "data_preprocessor": {"mean": [127.5] * 3, "std": [127.5] * 3, "bgr_to_rgb": True},
        "pretrained": "https://nowhere.invalid/start.pth",
        "backbone": {
            "type": "VisionTransformer",
            "img_size": side,
            "embed_dims": shape["width"],
            "num_layers": shape["depth"],
            "num_heads": shape["heads"],
            "drop_path_rate": 0.1,
            "final_norm": True,
            "norm_cfg": {"type": "LN", "eps": 1e-6},
        },
        "decode_head": {
            "type": "SegmenterMaskTransformerHead",
            "in_channels": shape["width"],
            "channels": shape["width"],
            "num_classes": shape["num_classes"],
            "num_layers": 2,
            "num_heads": shape["width"] // 64,
            "embed_dims": shape["width"],
            "dropout_ratio": 0.0,
        },
        "test_cfg": {"mode": "slide", "crop_size": side, "stride": side},
        **changes,
    }


def write(folder, model: dict) -> str:
    (folder / "config.py").write_text(f"model = {model!r}\n")
    return f"mmseg:{folder / 'config.py'}"


def built(model: dict):
    """mmsegmentation's model with weights in which nothing is 0 or 1."""
    from mmseg.registry import MODELS

    torch.manual_seed(0)
    made = MODELS.build({**model, "pretrained": None, "data_preprocessor": None})
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made.eval()


def saved(made, path: Path) -> str:
    """As mmengine's runner saves it."""
    torch.save({"meta": {"epoch": 0}, "state_dict": made.state_dict()}, path)
    return str(path)


def images(shape=SHAPE, count=2):
    torch.manual_seed(1)
    return torch.randn(count, 3, shape["image_size"], shape["image_size"])


def refused(match: str, *what) -> None:
    with pytest.raises(RequestError, match=match) as caught:
        load_model(*what)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("patch_bias", [True, False])
@pytest.mark.parametrize("width", [128, 384])
def test_our_segmenter_on_mmsegmentations_weights_computes_what_mmsegmentation_does(
    operators, tmp_path, monkeypatch, width, patch_bias
):
    shape = {"width": width, "depth": 12, "heads": width // 64, "image_size": 96, "num_classes": 150}
    known_as(monkeypatch, NAME, **shape)
    model = settings(shape)
    model["backbone"]["patch_bias"] = patch_bias
    theirs, x = built(model), images(shape)
    ours, info = load_model(NAME, saved(theirs, tmp_path / "theirs.pth"))
    assert info.source == f"{tmp_path / 'theirs.pth'}[state_dict]"
    with torch.inference_mode():
        features, expected = theirs.backbone(x)[-1], theirs._forward(x)
        encoded = ours.backbone.forward_features(x)[:, 1:].transpose(1, 2).reshape(features.shape)
        assert (encoded - features).abs().max() < 1e-5 * features.abs().max()
        assert (ours.grid_logits(x) - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("size", ["tiny", "small", "base", "large"])
def test_the_published_shapes_are_those_of_mmsegmentations_own_configs(operators, size):
    from mmengine import Config
    from mmseg.registry import MODELS

    folder = Path(importlib.util.find_spec("mmseg").origin).parent / ".mim" / "configs" / "segmenter"
    model = Config.fromfile(folder / f"segmenter_vit-{size[0]}_mask_8xb1-160k_ade20k-512x512.py").model
    shape = find_entry(f"seg_{size}_mask_16").shape
    assert (model.backbone.num_layers, model.backbone.num_heads) == (shape["depth"], shape["heads"])
    assert model.decode_head.num_heads == shape["width"] // 64
    assert model.test_cfg.crop_size == (shape["image_size"], shape["image_size"])
    model.update(pretrained=None, data_preprocessor=None)
    model.backbone.num_layers = 2  # their blocks are alike
    state = from_mmseg(MODELS.build(model).state_dict())
    check_fit(build_segmenter(**{**shape, "depth": 2}).state_dict(), state, size, "")


def mmseg_segmenter(folder, **changes):
    """The model of a config as load_model gives it, and as mmsegmentation does."""
    model = settings(**changes)
    theirs = built(model)
    return load_model(write(folder, model), saved(theirs, folder / "theirs.pth"))[0], theirs


def test_a_config_runs_mmsegmentations_own_backbone_and_head(operators, tmp_path):
    segmenter, theirs = mmseg_segmenter(tmp_path)
    x = images()
    with torch.inference_mode():
        expected = theirs.encode_decode(x, [{"img_shape": (64, 64)}] * 2)
        assert expected.shape == (2, 5, 64, 64)
        assert (segmenter(x) - expected).abs().max() < 1e-5 * expected.abs().max()
        (features,) = segmenter.backbone(x)
        assert (features - theirs.backbone(x)[0]).abs().max() < 1e-5 * features.abs().max()
    assert type(segmenter.backbone).__mro__[1] is operators.VisionTransformer
    assert type(segmenter.decoder.head) is operators.decode_heads.SegmenterMaskTransformerHead
    assert (segmenter.window, segmenter.num_classes, segmenter.training) == ((64, 64), 5, False)
    assert segmenter.pretrained_cfg["mean"] == segmenter.pretrained_cfg["std"] == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("restore", RESTORE)
def test_no_reduction_leaves_mmsegmentations_segmenter_bit_for_bit(operators, tmp_path, restore):
    segmenter, _ = mmseg_segmenter(tmp_path)
    x, segmenter.restore = images(), restore
    with torch.inference_mode():
        untouched = segmenter(x)
        for reducer in ("tome", "evit", "mctf"):
            with attach(segmenter, reducer, "r=0"):
                assert torch.equal(segmenter(x), untouched), reducer


@pytest.mark.parametrize("reducer", ["tome", "evit", "mctf", "dpcknn", "topk"])
def test_mmsegmentations_encoder_reduces_as_ours_does_on_the_same_weights(operators, tmp_path, reducer):
    theirs, _ = mmseg_segmenter(tmp_path)
    ours, _ = load_model(NAME, str(tmp_path / "theirs.pth"))
    x = images()
    for restore in RESTORE:
        theirs.restore = ours.restore = restore
        if reducer == "topk" and restore == "after_decoder":
            continue
        with torch.inference_mode(), attach(theirs, reducer, "r=2") as a, attach(ours, reducer, "r=2") as b:
            expected, scores = ours(x), theirs(x)
            assert a.token_counts == b.token_counts == a.planned_counts
            assert min(a.token_counts) < 17
            assert (scores - expected).abs().max() < 1e-4 * expected.abs().max(), restore


def test_a_reduced_encoder_gives_a_head_all_patches_in_their_places(operators, tmp_path):
    segmenter, theirs = mmseg_segmenter(tmp_path)
    x = images()
    with torch.inference_mode(), attach(segmenter, "tome", "r=2"):
        scores = theirs.decode_head(segmenter.backbone(x))  # they share the weights that were loaded
        assert scores.shape == (2, 5, 4, 4)
        assert (scores - segmenter.grid_logits(x)).abs().max() < 1e-5 * scores.abs().max()


def test_dropped_patches_are_refused_where_mmsegmentations_head_would_have_to_read_them(operators, tmp_path):
    segmenter, _ = mmseg_segmenter(tmp_path)
    segmenter.restore = "after_decoder"
    reason = "cannot read patches that were dropped; use restore=before_decoder"
    with torch.inference_mode(), attach(segmenter, "topk", "r=2"), pytest.raises(RequestError, match=reason):
        segmenter(images())


def test_the_cost_of_mmsegmentations_segmenter_is_that_of_ours(operators, tmp_path):
    theirs, _ = mmseg_segmenter(tmp_path)
    ours, _ = load_model(NAME, str(tmp_path / "theirs.pth"))
    for rate in ("r=0", "r=2"):
        with attach(theirs, "tome", rate), attach(ours, "tome", rate):
            one, other = count_flops(theirs), count_flops(ours)
            assert (one.total, one.by_part, one.by_block) == (other.total, other.by_part, other.by_block)
            assert one.formula == other.formula
            assert not one.disputed
    decoders = [count_module(model.decoder, *model.decoder_inputs(images(count=1))) for model in (theirs, ours)]
    assert decoders[0] == decoders[1]


def test_random_weights_of_a_config_repeat_and_leave_the_random_state_alone(operators, tmp_path, capsys):
    name, before = write(tmp_path, settings()), torch.get_rng_state()
    (one, first), (_, second) = load_model(name, "none"), load_model(name, "none")
    assert torch.equal(torch.get_rng_state(), before)
    assert first == second
    assert (first.kind, first.source) == ("random", f"random:seed=0 by {tmp_path / 'config.py'}")
    assert one.backbone.pos_embed.std() > 0.01
    assert capsys.readouterr().out == ""


def test_what_a_config_says_is_told_and_part_of_the_digest(operators, tmp_path):
    model = settings()
    file = saved(built(model), tmp_path / "a.pth")
    _, first = load_model(write(tmp_path, model), file)
    model["test_cfg"]["stride"] = (48, 48)
    _, second = load_model(write(tmp_path, model), file)
    assert first.source == f"{file}[state_dict] by {tmp_path / 'config.py'}"
    assert second.source == f"{first.source}, meant for windows of (64, 64) every (48, 48) pixels"
    assert first.sha256 != second.sha256


def test_weights_with_a_bias_of_patches_keep_it(operators, tmp_path):
    model = settings()
    name = write(tmp_path, model)  # says nothing of it, as published configs do, whose weights have one
    model["backbone"]["patch_bias"] = True
    theirs = built(model)
    segmenter, _ = load_model(name, saved(theirs, tmp_path / "a.pth"))
    assert torch.equal(segmenter.backbone.patch_embed.projection.bias, theirs.backbone.patch_embed.projection.bias)


def test_what_is_no_segmenter_of_mmsegmentations_is_refused_by_name(operators, tmp_path):
    def config(**changes) -> str:
        return write(tmp_path, settings(**changes))

    good = settings()
    refused(r"decode_head\.type is 'FCNHead'", config(decode_head={**good["decode_head"], "type": "FCNHead"}), "none")
    refused(r"backbone\.type is 'BEiT'", config(backbone={**good["backbone"], "type": "BEiT"}), "none")
    refused(r"bgr_to_rgb is None, not True", config(data_preprocessor={"mean": [0] * 3, "std": [1] * 3}), "none")
    refused(
        "data_preprocessor.std is not three", config(data_preprocessor={"mean": [0] * 3, "bgr_to_rgb": True}), "none"
    )
    refused("gives out more than", config(backbone={**good["backbone"], "out_indices": [1, 3]}), "none")
    refused("cannot be built: .*num_layerz", config(backbone={**good["backbone"], "num_layerz": 3}), "none")
    (tmp_path / "broken.py").write_text("model = dict(")
    refused("broken.py' cannot be read", f"mmseg:{tmp_path / 'broken.py'}", "none")
    refused("does not exist", f"mmseg:{tmp_path / 'nothing.py'}", "none")
    refused("comes without weights", config(), "pretrained")
    torch.save({"state_dict": {"backbone.cls_token": torch.zeros(1)}}, tmp_path / "a.pth")
    refused(r"a\.pth' does not fit .* keys missing", config(), str(tmp_path / "a.pth"))


def test_mmsegmentations_encoder_outside_a_segmenter_is_refused(operators):
    with pytest.raises(RequestError, match="supported within a Segmenter"):
        family_of(built(settings()).backbone)


def test_without_operators_one_line_says_what_is_missing_and_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mmcv.ops", None)  # which is how Python marks a module that is not there
    refused(r"needs mmcv with compiled operators \(.*mmcv.ops.*\): pip install", write(tmp_path, settings()), "none")


@pytest.mark.skipif(not COMPILED, reason="mmcv has no compiled operators here; pip install '.[mmseg]' compiles them")
def test_with_compiled_operators_a_config_runs_as_it_is(tmp_path):
    """The same without anything that stands in for anything."""
    segmenter, _ = load_model(write(tmp_path, settings()), "none")
    with torch.inference_mode(), attach(segmenter, "tome", "r=2") as handle:
        assert torch.isfinite(segmenter(images())).all()
        assert handle.token_counts == handle.planned_counts
