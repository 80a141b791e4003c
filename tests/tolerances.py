"""How far apart two floats may be that are the same number, and why: the bounds that tests share.

Two ways to compute one number - another kernel, batch or number of threads - add the same terms in another order. A sum
of n terms is then off by at most n eps times the sum of their magnitudes, with eps = 2^-52 = 2.2e-16 in float64 and
2^-23 = 1.2e-7 in float32 (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 4.2).

Bit for bit (`torch.equal`) compares only what the same kernels gave for the same shapes on the same number of threads,
rows that were copied, or whole numbers below 2^24. No training is compared that way with one in other shapes: Adam's
first step is a gradient's sign, and that of a gradient that is 0 but for roundings (those of the keys' biases, which
softmax does not see) is anything.
"""

SUM64 = 1e-12
"""Relative, float64. One sum of up to 4500 terms of one sign: 4500 eps. A loss over words or pixels."""

GRADIENT64 = 1e-10
"""Share of a gradient's norm, float64. An entry is a chain of sums, of up to 10^5 terms together on the tests' models
(4 images of 65 tokens, 32 to 128 channels): 2e-11, and as much again for terms that cancel. The largest that was seen
is 1e-12 (DTEM through captions); a mean over a part where one over the whole is meant is off by 2e-3 at least."""

TINY32 = {"rtol": 1e-4, "atol": 2e-5}
"""Logits or features of a tiny model (2 to 4 blocks, up to 128 channels, values about 1), float32, by other kernels or
in another batch. A product adds up to 128 terms, 1.5e-5 at worst and sqrt(128) eps = 1.3e-6 as roundings fall; four
blocks of four products in a row come to 5e-6, with a factor of 4 for how far a norm layer stretches them."""

BLOCK32 = {"rtol": 1e-5, "atol": 1e-5}
"""The same of one block, or of one product: 4 sqrt(128) eps = 5e-6."""
