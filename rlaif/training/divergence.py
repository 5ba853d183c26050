"""Training that computes NaN or infinity: what is skipped, and what ends it."""

from __future__ import annotations

from rlaif.errors import DivergenceError


class SkippedSteps:
    """Counts the optimizer steps that were skipped because their gradient was not finite."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.num = 0

    def add(self, step: int, loss: float) -> None:
        """``step`` was skipped, its loss was ``loss``. Raises DivergenceError when that is one too many."""
        self.num += 1
        if self.num > self._limit:
            raise diverged(
                f"the gradient of optimizer step {step} is not finite (its loss is {loss:g}); "
                f"{self.num} steps were skipped, and max_skipped_steps allows {self._limit}"
            )


def diverged(what: str) -> DivergenceError:
    """The error that ends training because of ``what``."""
    return DivergenceError(f"{what}; look at the learning rate, the dtype, and the weights that training began with")
