"""Where a job can be sent, before anything is."""

from __future__ import annotations

import contextlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.submit import submit
from rlaif.errors import UserError

NO_ADDRESSES = [
    *(
        "http://[",
        "http://[::1",
        "http://[v]:1",
        "http://a\0b:1",
        "http://\ud800:1",
        "http://h:1/\0",
        "http://h:1/\ud800",
    ),
    *(
        "http://h:99999",
        "http://h:x",
        "http://h:-1",
        "http://" + "x" * 300,
        "http://h..h",
        "ray://h:1",
        "os://h:1",
        "://",
    ),
    *("http://", "http://\u2100", "", "x"),
]


@pytest.mark.parametrize("url", NO_ADDRESSES)
def test_what_is_no_address_is_refused_and_not_kept(monkeypatch, url):
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    with pytest.raises(UserError) as refusal:
        submit.connect(url)
    assert str(refusal.value).startswith("--address ") and "8265" in str(refusal.value)
    assert "RAY_API_SERVER_ADDRESS" not in os.environ


@given(
    st.text(st.sampled_from("htp:/[]@%?#.é\0\n\ud800１-x9 "), max_size=12), st.sampled_from(["", "http://", "https://"])
)
def test_no_address_escapes(text, scheme):
    class Refused:
        """No network: only what is asked of it counts."""

        @staticmethod
        def create_connection(address, timeout):
            address[0].encode("idna")  # as sockets do
            raise OSError("refused")

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(UserError):
        patch.setattr(submit, "socket", Refused)
        submit.connect(scheme + text)
