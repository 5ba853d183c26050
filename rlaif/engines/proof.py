"""Do an engine and the learner compute the same with the same weights?

That the weights are the same is proven by checksums, exactly (``checksums``). What they cannot show is that they are
*used* in the same way: another rotary base, another scaling, a wrong epsilon, a damaged cache. So the engine also
computes what the learner has computed with them, for some hundred tokens that the policy sampled or for some dialogues'
scores, and the two must differ little on average.

How little follows from the number format, because both sides are right and still differ by what they round. Logits of
real models reach 16 to 40.

- bfloat16 has 8 significant bits, so a logit between 16 and 32 is a multiple of 1/8. Each side rounds its own, by 1/32
  on average, after layers that have each rounded what they pass on. SmolLM2-135M, whose logits reach 37, differs by
  0.04 to 0.05 on average between two correct ways to compute it, and at single tokens by 0.4, which is why no single
  one decides. The limit is 1/8.
- float32 has 24 significant bits: a logit between 16 and 32 is a multiple of 2e-6, and the same model differs by 3e-6.
  The limit of 1e-3 leaves room for kernels that round what they multiply to tensor-float.

With a rotary base of a fifth of its own the same model differs by 0.20, with an epsilon of 1e-2 in its norms by 0.26;
half the base (0.10) hides in bfloat16's rounding, over sequences as short as these. So does the step before: at a
learning rate of 1e-6, it differs by 0.048 and no more than equal weights do. The checksums are there for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from rlaif.config.section import Dtype
from rlaif.errors import WeightSyncError
from rlaif.interfaces import WeightsHeader

MEAN_DIFFERENCE: dict[Dtype, float] = {"float32": 1e-3, "bfloat16": 0.125}


def mean_difference(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> float:
    """Mean absolute difference over all values of all sequences."""
    pairs = [pair for rows in zip(ours, theirs, strict=True) for pair in zip(*rows, strict=True)]
    return fmean(abs(our - their) for our, their in pairs)


def check_probe(header: WeightsHeader, values: Sequence[Sequence[float]], dtype: Dtype) -> None:
    """Raises WeightSyncError unless an engine's ``values`` for the probe are the learner's, but for rounding."""
    difference, limit = mean_difference(values, header.probe.values), MEAN_DIFFERENCE[dtype]
    if not difference <= limit:  # NaN must fail, too
        num_values = sum(map(len, header.probe.values))
        raise WeightSyncError(
            f"weights {header.version} are loaded, but the engine and the learner do not compute the same with them: "
            f"{num_values} probed values differ by {difference:.2g} on average (at most {limit:g} in {dtype})"
        )
