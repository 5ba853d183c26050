"""Tests that need a GPU: ``pytest -m gpu tests/gpu``. They are left out unless that marker asks for them, because a
test that is skipped is a failure in CI, and CI has no GPU. Asked for on a machine without one, they are skipped and say
so.
"""

from __future__ import annotations

import pytest
import torch

from tests.machine import lacking


@pytest.fixture(autouse=True)
def gpu() -> str:
    """The name of the first GPU."""
    if not torch.cuda.is_available():
        lacking(f"GPU that torch {torch.__version__} finds")
    return torch.cuda.get_device_name(0)
