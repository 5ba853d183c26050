"""Generated inputs for every surface besides the readers: ``make fuzz``; NUM_INPUTS says how many for each, but for
measures of labels, of which five times as many are cheap."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.generation import inputs
from tests.surfaces import SURFACES

NUM_INPUTS = int(os.environ.get("NUM_INPUTS", "12000"))


@pytest.mark.parametrize("name", SURFACES)
def test_nothing_escapes_any_surface(name):
    num = 0

    @inputs(NUM_INPUTS * (5 if name == "label_quality" else 1))
    @given(data=st.data())
    def nothing_escapes(data):
        nonlocal num
        SURFACES[name](data)
        num += 1

    nothing_escapes()
    print(f"\n{name}: {num:,}")
