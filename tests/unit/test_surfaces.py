"""A few inputs for each surface; ``make fuzz`` tries many."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.surfaces import SURFACES


@pytest.mark.parametrize("name", SURFACES)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_nothing_escapes(name, data):
    SURFACES[name](data)
