from pathlib import Path

import pytest

from tests.machine import lacking
from tests.object_store import object_store, s3_server

__all__ = ["object_store", "s3_server"]  #: fixtures

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def shared_file():
    """A file or directory by its path in ``shared``, in or next to the repository; it is not part of the project.

    A clone without it skips the tests that read it. CI has it, so there its absence is a failure.
    """

    def find(name):
        places = [root / "shared" / name for root in (REPOSITORY, REPOSITORY.parent)]
        return next(filter(Path.exists, places), None) or lacking(f"shared/{name} in or next to this clone")

    return find
