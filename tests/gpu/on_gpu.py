"""What the tests on a GPU share: methods with a rate, and a tiny model with pictures whose decisions are not close."""

from contextlib import contextmanager

import torch

from suite.reducers import list_reducers, make_reducer, reducer_class
from tests.unit.tiny_vit import images, make_model

METHODS = [name for name in list_reducers() if name != "none"]
FIXED = [name for name in METHODS if not reducer_class(name).input_dependent]
RATES = {"r": "r=6", "keep": "keep=0.7", "side": "side=16", "lines": "lines=2", "tau": "tau=0"}


def rate_of(name):
    """One that the method takes."""
    return RATES[reducer_class(name).rates[0]]


def model_and_images(batch=4):
    """On the CPU, in float32; 65 tokens. Of a seed with which no decision is changed by noise of 3e-6 in the images."""
    return make_model(seed=3), images(batch, seed=4)


def reducer_of(name):
    """With the same weights every time."""
    torch.manual_seed(0)
    return make_reducer(name)


@contextmanager
def host_reads(mode):
    """Context in which a read of the device by the host is an error, or a warning ("warn")."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
