import pytest


@pytest.fixture
def public_file(shared_file):
    """Real public data, as ``shared_file`` finds it in ``shared/data``."""
    return lambda name: shared_file(f"data/{name}")
