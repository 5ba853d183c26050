"""The logistic function: from log-odds to a probability."""

from __future__ import annotations

import math

import numpy as np


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def sigmoids(x: np.ndarray) -> np.ndarray:
    """``sigmoid`` of every element; the last bit may differ from it."""
    probs: np.ndarray = np.exp(-np.logaddexp(0, -x))
    return probs
