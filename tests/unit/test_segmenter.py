"""Segmenter: its cost at published shapes, and its decoder against the formulas written out."""

import math

import pytest
import torch

from suite import attach
from suite.backbones.segmenter import MaskTransformer, build_segmenter
from suite.measure.flops import count_flops, count_module, smooth_image


@pytest.fixture(scope="module")
def seg_small():
    """Seg-S-Mask/16 with 150 classes at 512 pixels."""
    torch.manual_seed(0)
    return build_segmenter(image_size=512, patch_size=16, width=384, depth=12, heads=6, num_classes=150).eval()


def normalisations(tokens: list[int], width: int) -> int:
    """5 per element of every LayerNorm, which the published figures count and this suite does not."""
    return 5 * width * sum(tokens)


# r -> encoder GFLOPs and tokens that leave it, as published figures count them
PUBLISHED = {0: (31.80, 1025), 16: (28.30, 833), 32: (24.81, 641), 48: (21.52, 449), 64: (18.44, 257)}


@pytest.mark.slow
@pytest.mark.parametrize("r", PUBLISHED)
@torch.inference_mode()
def test_the_encoder_costs_what_is_published(seg_small, r):
    with attach(seg_small, "tome", f"r={r}") as handle:
        counted = count_flops(seg_small)
        entering = [trace.entering for trace in handle.trace]
        leaving = handle.token_counts
    expected, tokens = PUBLISHED[r]
    assert leaving[-1] == tokens
    norms = normalisations([*entering, *leaving, leaving[-1]], 384)
    assert (counted.total + norms) / 1e9 == pytest.approx(expected, rel=0.005)
    assert not counted.disputed


@torch.inference_mode()
def test_the_decoder_costs_what_its_closed_form_says_and_the_whole_what_is_published(seg_small):
    image = smooth_image(512)
    decoder = count_module(seg_small.decoder, *seg_small.decoder_inputs(image))
    width, classes, patches = 384, 150, 1024
    n = patches + classes
    closed = 2 * (12 * n * width**2 + 2 * n**2 * width) + 2 * patches * width**2 + classes * width**2
    closed += classes * patches * width
    assert decoder == closed
    norms = normalisations([2 * 2 * n + n], width) + 5 * classes * patches
    assert (decoder + norms) / 1e9 == pytest.approx(6.67, rel=0.005)
    total = count_flops(seg_small).total + decoder
    assert total / 1e9 == pytest.approx(38.40, rel=0.005)  # as mmsegmentation counts, without normalisations


@torch.inference_mode()
def test_after_the_decoder_fewer_tokens_make_the_decoder_cheaper(seg_small):
    image = smooth_image(512)
    costs = {}
    for mode in ("before_decoder", "after_decoder"):
        seg_small.restore = mode
        with attach(seg_small, "tome", "merge=0.5"):
            costs[mode] = count_module(seg_small.decoder, *seg_small.decoder_inputs(image))
    seg_small.restore = "before_decoder"
    n, width = 512 + 150, 384
    closed = 2 * (12 * n * width**2 + 2 * n**2 * width) + 2 * 512 * width**2 + 150 * width**2 + 150 * 512 * width
    assert costs["after_decoder"] == closed < costs["before_decoder"]


@torch.inference_mode()
def test_the_decoder_is_the_formula_written_out():
    torch.manual_seed(0)
    decoder = MaskTransformer(12, 4, depth=1, width=8, heads=2).eval().double()
    for parameter in decoder.parameters():
        parameter.copy_(torch.randn_like(parameter))
    x = torch.randn(1, 5, 12, dtype=torch.float64)

    def norm(rows, layer):
        centred = rows - rows.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + layer.eps).sqrt() * layer.weight + layer.bias

    def linear(rows, layer):
        return rows @ layer.weight.T + layer.bias

    block = decoder.blocks[0]
    z = torch.cat([linear(x[0], decoder.proj_dec), decoder.cls_emb[0]])
    q, k, v = linear(norm(z, block.norm1), block.attn.qkv).split(8, dim=1)
    heads = []
    for h in (slice(0, 4), slice(4, 8)):
        logits = q[:, h] @ k[:, h].T / math.sqrt(4)
        heads.append(logits.softmax(-1) @ v[:, h])
    z = z + linear(torch.cat(heads, dim=1), block.attn.proj)
    hidden = linear(norm(z, block.norm2), block.mlp.fc1)
    z = z + linear(0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2))), block.mlp.fc2)
    z = norm(z, decoder.decoder_norm)
    patches, classes = z[:5] @ decoder.proj_patch, z[5:] @ decoder.proj_classes
    cosines = (patches @ classes.T) / patches.norm(dim=1)[:, None] / classes.norm(dim=1)[None]
    torch.testing.assert_close(decoder(x)[0], norm(cosines, decoder.mask_norm))


@torch.inference_mode()
def test_frozen_patches_skip_the_blocks_of_the_decoder():
    torch.manual_seed(0)
    decoder = MaskTransformer(8, 3, heads=2).eval()
    x, frozen = torch.randn(1, 4, 8), torch.randn(1, 2, 8)
    scores = decoder(x, frozen)
    torch.testing.assert_close(scores[:, :4], decoder(x))
    shallow = MaskTransformer(8, 3, depth=0, heads=2).eval()
    shallow.load_state_dict({k: v for k, v in decoder.state_dict().items() if "blocks" not in k})
    read = torch.nn.functional.normalize(shallow.decoder_norm(shallow.proj_dec(frozen)) @ shallow.proj_patch, dim=-1)
    z = torch.cat([decoder.proj_dec(x), decoder.cls_emb], dim=1)
    for block in decoder.blocks:
        z = block(z)
    classes = torch.nn.functional.normalize(decoder.decoder_norm(z)[:, 4:] @ decoder.proj_classes, dim=-1)
    torch.testing.assert_close(scores[:, 4:], decoder.mask_norm(read @ classes.transpose(1, 2)))


@torch.inference_mode()
def test_class_scores_are_enlarged_to_the_image(seg_small):
    images = torch.randn(1, 3, 512, 512)
    grid = seg_small.grid_logits(images)
    assert grid.shape == (1, 150, 32, 32)
    enlarged = torch.nn.functional.interpolate(grid, (512, 512), mode="bilinear", align_corners=False)
    assert torch.equal(seg_small(images), enlarged)
    assert (seg_small.window, seg_small.num_classes) == ((512, 512), 150)
