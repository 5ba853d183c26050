"""Whatever a file or an override holds, the only error is the project's own, and it is one line for each mistake."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlaif.config.files import dump_config, load_config
from rlaif.config.keys import known_keys
from rlaif.constitution.principles import load_constitution
from rlaif.constitution.public_files import PUBLIC_SUFFIXES
from rlaif.errors import ConfigError

KEYS = sorted(known_keys())
MANY = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SYNTAX = [
    "- ",
    ": ",
    "\n",
    "  ",
    "{",
    "}",
    "[",
    "]",
    "&a ",
    "*a",
    "<<: ",
    "'",
    '"',
    "#",
    "|",
    ">",
    "!!int ",
    "? ",
    "\t",
]
TOKENS = ["~", "seed", "data", "votes", "principles", "null", "2024-13-45", "1e5", ".inf", "\ufeff", "é", "---"]
YAML = st.lists(st.sampled_from([*SYNTAX, *TOKENS]) | st.text(max_size=4), max_size=30).map("".join)
SHAPE_KEYS = ["prompt", "edit_request", "critic", "revision", "criteria", "guidelines", "constitutions", "principles"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(SHAPE_KEYS) | st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


def own_errors_only(action) -> None:
    try:
        action()
    except ConfigError as error:
        assert str(error).strip()


@MANY
@given(text=YAML)
def test_any_yaml(tmp_path, text):
    path = tmp_path / "a.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    own_errors_only(lambda: load_config(path))
    own_errors_only(lambda: load_constitution(str(path)))


@MANY
@given(key=st.sampled_from(KEYS) | st.text(max_size=12), value=YAML | st.text(max_size=12))
def test_any_override(tmp_path, key, value):
    path = tmp_path / "a.yaml"
    path.write_text("")
    own_errors_only(lambda: load_config(path, [f"{key}={value}"]))


@MANY
@given(value=st.text(min_size=1, max_size=30))
def test_any_text_is_a_run_directory_and_survives_the_stored_configuration(tmp_path, value):
    path = tmp_path / "a.yaml"
    path.write_text("")
    for config in (load_config(path, [f"run_dir={value}"]), load_config(path, [], {"run_dir": value})):
        stored = tmp_path / "stored.yaml"
        stored.write_text(dump_config(config), encoding="utf-8")
        assert load_config(stored) == config
    assert config.run_dir == value


@MANY
@given(content=JSON)
def test_any_json_constitution(tmp_path, content):
    path = tmp_path / "c.json"
    path.write_text(json.dumps(content))
    own_errors_only(lambda: load_constitution(str(path)))


@pytest.mark.parametrize("suffix", PUBLIC_SUFFIXES)
@MANY
@given(raw=st.binary(max_size=60) | YAML.map(lambda text: text.encode("utf-8", errors="replace")))
def test_any_bytes_as_a_constitution(tmp_path, suffix, raw):
    path = tmp_path / f"c{suffix}"
    path.write_bytes(raw)
    own_errors_only(lambda: load_constitution(str(path)))
