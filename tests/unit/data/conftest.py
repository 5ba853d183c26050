from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def public_file():
    """Real public data, in ``shared/data`` in or beside the repository; it is no part of the project."""

    def find(name):
        for root in (REPOSITORY, REPOSITORY.parent):
            if (root / "shared" / "data" / name).is_file():
                return root / "shared" / "data" / name
        pytest.skip(f"{name} is not here")

    return find
