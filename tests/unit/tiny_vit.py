"""A tiny real Vision Transformer with an initialisation of timm's and noise, and pictures of noise for it."""

import torch
from timm.models.vision_transformer import VisionTransformer

SHAPE = {"img_size": 32, "patch_size": 4, "embed_dim": 32, "depth": 4, "num_heads": 2, "num_classes": 10}


def make_model(seed=0, **options):
    torch.manual_seed(seed)
    model = VisionTransformer(**{**SHAPE, **options}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def images(batch=3, side=32, seed=1):
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(seed))
