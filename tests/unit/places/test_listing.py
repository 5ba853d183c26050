"""Patterns match what the standard library's do; the rest is tested with sources, locally and in object storage."""

import glob
import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.places.listing import common_folder, matching
from tests.growth import must_end

NAMES = ["a.csv", "b.csv", ".h.csv", "d/a.csv", "d/e/a.csv", "d/.h/a.csv", "x[1].csv", "a b/c.csv", "ab"]
PARTS = st.sampled_from(
    ["*", "**", "?.csv", "*.csv", "d", "e", "[ab]*", "[!a].csv", "x[[]1].csv", ".*", "a*", "link", "no"]
)


@given(st.lists(PARTS, min_size=1, max_size=4))
def test_patterns_match_as_those_of_glob(tmp_path_factory, parts):
    root = tmp_path_factory.getbasetemp() / "tree"
    if not root.exists():
        for name in NAMES:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
        (root / "link").symlink_to(root / "d")
        (root / "broken").symlink_to(root / "none")
    pattern = "/".join([str(root), *parts])
    files = [entry.name for entry in matching(pattern) if entry.kind == "file"]
    # ``**`` of `glob` follows links to directories; here it never does, as in a directory that is read.
    expected = {file for file in glob.glob(pattern, recursive=True) if Path(file).is_file()}  # noqa: PTH207
    assert files == sorted(file for file in expected if "/link" not in file or file in files)


@pytest.mark.parametrize(("part", "num"), [("**", 12), ("**", 2000), ("**/*", 12), ("**/d/**", 12)])
def test_any_number_of_ways_to_a_file_are_followed_once(tmp_path, part, num):
    """There are more of them than can be counted."""
    deep = tmp_path.joinpath(*itertools.repeat("d", 24))
    deep.mkdir(parents=True)
    (deep / "x.csv").touch()
    with must_end():
        found = matching("/".join([str(tmp_path), *[part] * num, "x.csv"]))
    assert [entry.name for entry in found] == [f"{deep}/x.csv"]


def test_a_place_without_a_file_in_it_matches_nothing():
    assert matching("s3://*") == []


def test_the_common_folder_of_urls_is_one():
    assert common_folder(["s3://b/x/y/1", "s3://b/x/2"]) == "s3://b/x"
    assert common_folder(["s3://b/1", "s3://b/2"]) == "s3://b"
    assert common_folder(["x/y/1", "x/2"]) == "x"
