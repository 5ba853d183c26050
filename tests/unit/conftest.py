import os
from pathlib import Path

import pytest

from tests.object_store import object_store, s3_server

__all__ = ["object_store", "s3_server"]  #: fixtures

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def shared_file():
    """A file or directory by its path in ``shared``, in or next to the repository; it is not part of the project.

    A clone without it skips the tests that read it. CI has it, so there its absence is a failure.
    """

    def find(name):
        for root in (REPOSITORY, REPOSITORY.parent):
            if (root / "shared" / name).exists():
                return root / "shared" / name
        if os.environ.get("CI"):
            pytest.fail(f"shared/{name} must be there in CI")
        pytest.skip(f"shared/{name} is neither in nor next to this clone; it is not part of the project")

    return find
