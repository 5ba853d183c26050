import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def public_file():
    """Real public data, in ``shared/data`` in or next to the repository; it is not part of the project.

    A clone without it skips the tests that read it. CI has it, so there its absence is a failure.
    """

    def find(name):
        for root in (REPOSITORY, REPOSITORY.parent):
            if (root / "shared" / "data" / name).is_file():
                return root / "shared" / "data" / name
        if os.environ.get("CI"):
            pytest.fail(f"shared/data/{name} must be there in CI")
        pytest.skip(f"shared/data/{name} is neither in nor next to this clone; it is not part of the project")

    return find
