"""A smaller image in place of fewer tokens: kernels by hand, the grids of rates, and what nothing else may change."""

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from tiny_git import tiny_git
from tiny_vit import SHAPE, images, make_model

from suite import RequestError, attach, count_flops, solve_rate
from suite.models.captioner import Captioner
from suite.models.load import load_model
from suite.rates.image_grid import shrunk_grid
from suite.rates.rate import ImageSide, parse_rate
from suite.reducers import make_reducer
from tests.tolerances import TINY32

RESIZE = make_reducer("resize")


def shrunk(picture, side):
    return RESIZE("before_embedding", picture, (side, side))


@pytest.mark.parametrize(("row", "wanted"), [
    ([1, 0, 0, 0], [111 / 242, -9 / 242]),
    ([0, 1, 2, 3], [142 / 242, 584 / 242]),
    ([0, 0, 1, 0], [29 / 242, 111 / 242]),
])  # fmt: skip
def test_four_pixels_become_two_by_an_antialiased_bicubic_kernel(row, wanted):
    picture = torch.tensor(row, dtype=torch.float64).expand(1, 3, 4, 4)
    torch.testing.assert_close(shrunk(picture, 2), torch.tensor(wanted, dtype=torch.float64).expand(1, 3, 2, 2))


def test_a_constant_image_stays_constant_and_a_mirrored_one_mirrored():
    picture = images(2, side=32)
    torch.testing.assert_close(shrunk(torch.full((1, 3, 32, 32), 0.7), 20), torch.full((1, 3, 20, 20), 0.7))
    torch.testing.assert_close(shrunk(picture.flip(3), 20), shrunk(picture, 20).flip(3), atol=1e-5, rtol=0)


def test_shrinking_before_and_after_normalising_is_the_same():
    picture, mean, std = images(2, side=32), torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.25, 0.3])

    def normalised(x):
        return (x - mean[:, None, None]) / std[:, None, None]

    torch.testing.assert_close(shrunk(normalised(picture), 20), normalised(shrunk(picture, 20)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("options", [
    {}, {"no_embed_class": True, "reg_tokens": 2}, {"class_token": False, "global_pool": "avg"}, {"img_size": (32, 24)},
])  # fmt: skip
@torch.no_grad()
def test_it_is_the_model_that_was_built_for_the_smaller_image(options):
    model = make_model(**options)
    height, width = model.patch_embed.img_size
    small = (20, 20) if height == width else (28, 20)
    native = VisionTransformer(**{**SHAPE, **options, "img_size": (height, width)}).eval()
    native.load_state_dict(model.state_dict())
    native.set_input_size(small)
    picture = torch.randn(3, 3, height, width, generator=torch.Generator().manual_seed(1))
    with attach(model, "resize", "side=20") as handle:
        logits = model(picture)
        assert torch.equal(logits, native(RESIZE("before_embedding", picture, small)))
        assert handle.token_counts == handle.planned_counts == [handle.images.layout().tokens] * 4
        torch.testing.assert_close(model(picture[1:2]), logits[1:2], **TINY32)
    with pytest.raises(AssertionError, match="doesn't match model"):  # no longer
        model(torch.randn(1, 3, 20, 20))


@torch.no_grad()
def test_the_models_own_size_is_the_unmodified_model():
    model, picture = make_model(), images()
    whole = model(picture)
    for rate in ("side=32", "keep=1", "keep=0.95", "flops=0%"):
        with attach(model, "resize", rate) as handle:
            assert torch.equal(model(picture), whole)
            assert handle.token_counts == [65] * 4


@torch.no_grad()
def test_weights_that_change_while_it_is_attached_are_used():
    model, other, picture = make_model(), make_model(seed=1), images()
    with attach(other, "resize", "side=20"):
        wanted = other(picture)
    with attach(model, "resize", "side=20") as handle:
        assert not torch.equal(model(picture), wanted)
        model.load_state_dict(other.state_dict())
        assert torch.equal(model(picture), wanted)
        handle.rate = ImageSide(16)
        assert handle.planned_counts == [65 - 64 + 25] * 4  # of the last forward
        model(picture)
        assert handle.token_counts == [17] * 4


def test_position_embeddings_learn_through_it():
    model = make_model()
    with attach(model, "resize", "side=20"):
        model(images()).square().sum().backward()
    assert model.pos_embed.grad.abs().sum() > 0


@pytest.mark.parametrize(("rate", "grid"), [
    ("side=160", (10, 10)), ("side=16", (1, 1)), ("grid=10", (10, 10)), ("grid=14", (14, 14)),
    ("keep=0.5", (10, 10)), ("keep=0.7", (12, 12)),
    ("keep=0.001", (1, 1)), ("keep=1", (14, 14)), ("keep=0.99", (14, 14)),
])  # fmt: skip
def test_a_rate_comes_to_the_nearest_number_of_whole_patches(rate, grid):
    assert shrunk_grid(parse_rate(rate), RESIZE, (14, 14), (16, 16)) == grid


def test_of_two_grids_that_are_equally_near_the_smaller_is_taken():
    assert shrunk_grid(parse_rate("keep=0.625"), RESIZE, (2, 2), (16, 16)) == (1, 1)  # 2.5 of 4: 1.5 from 1 and from 4


def test_an_image_that_is_not_square_keeps_its_shape_as_far_as_patches_go():
    assert shrunk_grid(parse_rate("side=32"), RESIZE, (3, 7), (16, 16)) == (2, 5)
    assert shrunk_grid(parse_rate("grid=2"), RESIZE, (3, 7), (16, 16)) == (2, 5)
    assert shrunk_grid(parse_rate("side=32"), RESIZE, (7, 3), (16, 16)) == (5, 2)


@pytest.mark.parametrize(("rate", "said"), [
    ("side=170", "images of 224 pixels to whole patches of 16; use side=160 or side=176"),
    ("side=300", "images of 224 pixels to whole patches of 16; use side=224"),
    ("side=7", "use side=16$"),
    ("grid=15", "of 14 patches along the shorter side; use grid=14 or less"),
    ("r=8", "not defined for rate r=8; it takes side=... or keep=... or flops=..."),
    ("keep=0.7@3,6,9", "is of blocks, but 'resize' shrinks the image before all of them"),
    ("keep=[0.7,0.5]", "is of blocks"),
])  # fmt: skip
def test_what_no_number_of_patches_can_give_is_refused_in_one_line(rate, said):
    model = timm.create_model("deit_tiny_patch16_224")
    with pytest.raises(RequestError, match=said) as caught:
        attach(model, "resize", rate)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["side=0", "side=-16", "side=160.5", "side=160@3", "side=", "grid=0", "grid=1.5"])
def test_a_side_that_is_no_number_of_pixels_or_patches_is_refused(text):
    with pytest.raises(RequestError, match=text.partition("=")[0]):
        parse_rate(text)


SAVED = {208: 14.6, 192: 27.9, 176: 39.9, 160: 50.7, 144: 60.3, 128: 68.7, 112: 76.1}  # % of DeiT-S, by hand


@pytest.mark.parametrize("side", [208, *(pytest.param(side, marks=pytest.mark.slow) for side in (176, 144)), 112])
def test_what_deit_small_costs_is_the_closed_form_of_the_smaller_grid(side):
    model = timm.create_model("deit_small_patch16_224").eval()
    whole = count_flops(model).total
    with attach(model, "resize", f"side={side}"):
        report = count_flops(model)
    assert not report.disputed, report.why
    assert report.total == report.formula
    assert report.reducer == 0
    assert 100 * (1 - report.total / whole) == pytest.approx(SAVED[side], abs=0.1)


def test_a_flops_target_comes_to_the_nearest_side_and_says_what_the_neighbours_are():
    model = timm.create_model("deit_tiny_patch16_224").eval()
    solved = solve_rate(model, "resize", flops="-50%")
    assert solved.rate == ImageSide(160)
    assert 100 * solved.reduction == pytest.approx(-52.3, abs=0.05)
    assert [str(rate) for rate, _ in solved.neighbours] == ["side=176", "side=160"]


@torch.no_grad()
def test_gits_encoder_is_transformers_own_at_the_smaller_size_and_its_decoder_reads_fewer_tokens():
    model = Captioner(tiny_git())
    whole = model.generate(images(), max_new_tokens=4)
    small = model.backbone(shrunk(images(), 20), interpolate_pos_encoding=True).last_hidden_state
    with attach(model, "resize", "side=20") as handle:
        assert torch.equal(model.backbone(images()).last_hidden_state, small)
        assert handle.planned_counts == [26] * 4
        captions = model.generate(images(), max_new_tokens=4)
    assert captions != whole
    assert model.generate(images(), max_new_tokens=4) == whole


@torch.no_grad()
@pytest.mark.parametrize("name", ["scenes_vit", "scenes_eva"])
def test_an_embedded_model_that_is_loaded_for_smaller_images_is_the_resized_one_bit_for_bit(name):
    whole, small = load_model(name)[0], load_model(name, image_size=80)[0]
    with attach(whole, "resize", "grid=10"):
        assert torch.equal(whole(images(2, side=112)), small(shrunk(images(2, side=112), 80)))
