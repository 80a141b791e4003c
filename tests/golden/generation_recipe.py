"""Deterministic weights and inputs behind the generation goldens (numpy only; written for this project).

weights(shapes, offset) -> {name: float32 array} for the parameters of one module; `shapes` stand in manifest.json.
noise(shape, offset)    -> float32 standard normal array.
picture(shape, offset)  -> float32 (B, N, C) tokens of an h x w grid that are alike when near: blurred noise.
"""

import numpy as np

SEED = 31200


def rng(offset):
    return np.random.Generator(np.random.PCG64(SEED + offset))


def weights(shapes, offset):
    g, out = rng(offset), {}
    for name in sorted(shapes):  # plain string order
        shape = tuple(shapes[name])
        z = g.standard_normal(size=shape)
        if name.endswith("weight") and len(shape) == 1:  # gain of a norm
            w = 1.0 + 0.1 * z
        elif name.endswith("weight"):  # linear, convolution, embedding: 1.2 / sqrt(inputs)
            w = 1.2 * z / np.sqrt(np.prod(shape[1:]))
        else:
            w = 0.1 * z
        out[name] = w.astype(np.float32)
    return out


def noise(shape, offset):
    return rng(offset).standard_normal(size=tuple(shape)).astype(np.float32)


def picture(batch, h, w, channels, offset):
    g = rng(offset)
    f = g.standard_normal((batch, h, w, channels))
    for axis in (1, 2):
        for _ in range(2):  # binomial blur, periodic
            f = 0.25 * np.roll(f, 1, axis) + 0.5 * f + 0.25 * np.roll(f, -1, axis)
    f = f / f.std() + 0.3 * g.standard_normal((batch, h, w, channels))
    return f.reshape(batch, h * w, channels).astype(np.float32)
