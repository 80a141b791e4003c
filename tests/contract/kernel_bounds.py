"""What every method's forward would ask of a GPU beside the unreduced model's, at most.

Counted on DeiT-S in bf16 at batch 256, the second forward of its shape (`suite.measure.trace`). A bound is what is
reached: whoever reaches less writes it here, and whoever needs more says in the commit what for. `docs/methods.md`
shows them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bound:
    """launches: of a reducing block beyond the unreduced one's, which are 10; where no block reduces, of the image and
    its embedding. moved: bytes, over the unreduced model's
    times the ratio of multiply-accumulates. host_reads: of a reducing block."""

    launches: float
    moved: float
    host_reads: int = 0


BOUNDS = {
    ("atc", "keep=0.7"): Bound(694.00, 1.47),
    ("adamerge", "r=13"): Bound(98.00, 2.40, host_reads=1),
    ("ats", "keep=0.7"): Bound(54.00, 1.26, host_reads=1),
    ("cubist_merge", "keep=0.7"): Bound(120.00, 1.13),
    ("cubist_merge", "lines=2"): Bound(120.00, 1.12),
    ("dct", "r=13"): Bound(6.00, 1.28),
    ("diffrate", "r=13"): Bound(35.83, 1.25),
    ("dpcknn", "keep=0.7"): Bound(57.67, 1.27),
    ("dpcknn", "r=13"): Bound(57.92, 1.86),
    ("dtem", "r=13"): Bound(26.92, 1.15),
    ("dtps", "keep=0.7"): Bound(38.00, 1.13),
    ("dynamicvit", "keep=0.7"): Bound(19.00, 1.08),
    ("etps", "keep=0.7"): Bound(31.00, 1.11),
    ("evit", "keep=0.7"): Bound(17.00, 1.07),
    ("evit", "r=13"): Bound(17.00, 1.19),
    ("g2tm", "tau=0.9"): Bound(162.00, 1.07, host_reads=1),
    ("gtp", "r=13"): Bound(33.17, 1.97),
    ("heuristic", "keep=0.7"): Bound(4.00, 1.03),
    ("hynap", "r=13"): Bound(47.92, 1.88),
    ("kmedoids", "keep=0.7"): Bound(76.00, 1.49),
    ("kmedoids", "r=13"): Bound(167.42, 2.79),
    ("mat", "r=13"): Bound(32.92, 1.25),
    ("mctf", "r=16"): Bound(66.55, 1.86),
    ("mctf", "r=0.35@3,6,9"): Bound(67.33, 1.30),
    ("nap", "keep=0.7"): Bound(28.67, 1.22),
    ("nap", "r=13"): Bound(28.17, 1.72),
    ("patchmerger", "keep=0.7"): Bound(14.67, 1.13),
    ("pitome", "r=13"): Bound(32.42, 1.25),
    ("pomt", "r=56"): Bound(22.00, 1.09),
    ("ppt", "r=13"): Bound(51.33, 1.07),
    ("ppt", "r=50@3,6,9"): Bound(50.67, 1.11),
    ("prune_and_merge", "keep=0.6"): Bound(9.00, 1.14),
    ("random", "r=13"): Bound(9.58, 1.08),
    ("random", "keep=0.7"): Bound(11.33, 1.03),
    ("representation_shift", "keep=0.7"): Bound(10.00, 1.08),
    ("resize", "side=160"): Bound(3.00, 1.11),
    ("saint", "tau=0.75"): Bound(50.50, 2.53, host_reads=1),
    ("sinkhorn", "keep=0.7"): Bound(26.67, 1.22),
    ("sit", "keep=0.7"): Bound(18.67, 1.14),
    ("tofu", "r=13"): Bound(26.00, 1.18),
    ("tome", "r=13"): Bound(27.83, 1.19),
    ("tome_kth", "r=13"): Bound(31.83, 1.18),
    ("tome_random", "r=13"): Bound(32.42, 1.22),
    ("topk", "keep=0.7"): Bound(12.00, 1.05),
    ("topk", "r=13"): Bound(12.00, 1.17),
    ("uniform", "keep=0.7"): Bound(2.00, 1.03),
    ("uniform", "r=13"): Bound(2.00, 1.08),
    ("zero_tprune", "keep=0.7"): Bound(98.67, 2.60),
}
