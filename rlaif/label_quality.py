"""What a set of labels is worth, measured without any truth, and the gate before the preference model.

Source: position bias and its sign as in Lee et al. (arXiv 2309.00267), appendix B.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rlaif.config import Gate
from rlaif.errors import GateError
from rlaif.labelling import log_odds, sigmoid
from rlaif.records import Preference, Status


@dataclass(kw_only=True)
class LabelQuality:
    """Running measures over preferences; memory does not grow with their number.

    A *flip* is a pair whose winner changes with the order; it favours the slot that won twice. The *slot bias* is the
    mean of (l1 - l2)/2, log-odds towards slot A (l2 un-swapped).
    """

    num_labels: int = 0
    num_by_status: dict[str, int] = field(default_factory=dict)
    num_judged: int = 0
    num_flips: int = 0
    num_flips_to_a: int = 0
    num_longer_preferred: float = 0.0
    num_unequal_length: int = 0
    sum_gap: float = 0.0
    sum_bias: float = 0.0

    def add(self, label: Preference) -> None:
        self.num_labels += 1
        self.num_by_status[label.status] = self.num_by_status.get(label.status, 0) + 1
        if label.prob is None:
            return
        self._add_length(label)
        for first, second in zip(label.judgements[::2], label.judgements[1::2], strict=True):
            l1, l2 = log_odds(first), log_odds(second)
            self.num_judged += 1
            self.num_flips += (l1 > 0) != (l2 > 0)
            self.num_flips_to_a += l1 > 0 >= l2
            self.sum_gap += abs(sigmoid(l1) - sigmoid(l2))
            self.sum_bias += (l1 - l2) / 2

    def _add_length(self, label: Preference) -> None:
        assert label.prob is not None
        difference = len(label.token_ids_1) - len(label.token_ids_2)
        if difference:
            self.num_unequal_length += 1
            self.num_longer_preferred += label.prob if difference > 0 else 1 - label.prob

    def metrics(self) -> Mapping[str, float]:
        """``label/quality/...``; a share over nothing is 0."""
        judged, labels = max(self.num_judged, 1), max(self.num_labels, 1)
        unusable = self.num_labels - self.num_by_status.get(Status.OK, 0) - self.num_by_status.get(Status.TIE, 0)
        return {
            "label/quality/flip_rate": self.num_flips / judged,
            "label/quality/flips_to_slot_a": self.num_flips_to_a / max(self.num_flips, 1),
            "label/quality/order_gap": self.sum_gap / judged,
            "label/quality/slot_bias": self.sum_bias / judged,
            "label/quality/tie_rate": self.num_by_status.get(Status.TIE, 0) / labels,
            "label/quality/invalid_rate": unusable / labels,
            "label/quality/longer_preferred": self.num_longer_preferred / max(self.num_unequal_length, 1),
        }


def measure(labels: Iterable[Preference]) -> LabelQuality:
    quality = LabelQuality()
    for label in labels:
        quality.add(label)
    return quality


def check_gate(metrics: Mapping[str, float], gate: Gate) -> None:
    """Raise GateError naming every missed limit that is not overridden."""
    limits = {"flip_rate": gate.max_flip_rate, "invalid_rate": gate.max_invalid_rate}
    missed = [
        f"{name} is {metrics[f'label/quality/{name}']:.3f}, above labelling.gate.max_{name}={limit}"
        for name, limit in limits.items()
        if metrics[f"label/quality/{name}"] > limit and name not in gate.override
    ]
    if missed:
        raise GateError(
            "the labels are not good enough to fit a preference model: "
            + "; ".join(missed)
            + "; improve the labeller, or pass by name with labelling.gate.override=["
            + ", ".join(m.split(" ", 1)[0] for m in missed)
            + "]"
        )
