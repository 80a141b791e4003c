"""What a reducer does in every block of a tiny real model."""

import torch
from timm.models.vision_transformer import VisionTransformer

from suite import attach
from suite.rates.rate import parse_rate
from suite.rates.schedule import resolve
from suite.reducers import make_reducer

SHAPE = {"img_size": 32, "patch_size": 4, "embed_dim": 32, "depth": 4, "num_heads": 2, "num_classes": 10}


def tiny(**options):
    torch.manual_seed(0)
    model = VisionTransformer(**{**SHAPE, **options}).eval()
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            gain = parameter.dim() == 1 and not name.endswith("bias")
            noise = torch.randn_like(parameter)
            parameter.copy_(1 + 0.1 * noise if gain else 0.2 * noise)
    return model


def images(batch=2):
    return torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def changes(model, name, rate, x=None, **options):
    """[(block's tokens before the hook, after it)] of a forward, and the handle."""
    handle, seen = attach(model, name, rate, **options), []
    hook = handle.reducer.register_forward_hook(lambda _, given, result: seen.append((given[1], result)))
    with handle:
        model(images() if x is None else x)
    hook.remove()
    return seen, handle


def groups(before, after, sample):
    """(row afterwards, rows before that it owns) of a sample's groups."""
    owner = after.steps[-1].index_map()[sample]
    return [(after.x[sample, place], before.x[sample, owner == place]) for place in range(after.count)]


def planned(name, rate, *, depth=12, tokens=197, num_prefix=1, **options):
    asked = None if rate is None else parse_rate(rate)
    return list(resolve(asked, make_reducer(name, **options), depth=depth, tokens=tokens, num_prefix=num_prefix).counts)


def steered(counts, numbers):
    """Make a LearnedCounts certain of numbers of patches."""
    with torch.no_grad():
        places = [counts.counts.tolist().index(number) for number in numbers]
        counts.logits.fill_(-40.0)
        counts.logits[torch.arange(len(places)), places] = 40.0
