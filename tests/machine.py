"""What a test needs of the machine that it runs on."""

import os
from typing import NoReturn

import pytest


def lacking(what: str) -> NoReturn:
    """Skip a test because this machine lacks ``what``. CI has everything, so there it fails: nothing is skipped."""
    if os.environ.get("CI"):
        pytest.fail(f"CI must have {what}")
    pytest.skip(f"there is no {what}")
