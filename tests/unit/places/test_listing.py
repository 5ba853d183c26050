"""Patterns match what the standard library's do; the rest is tested with sources, locally and in object storage."""

import glob
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from rlaif.places.listing import common_folder, matching

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


def test_the_common_folder_of_urls_is_one():
    assert common_folder(["s3://b/x/y/1", "s3://b/x/2"]) == "s3://b/x"
    assert common_folder(["s3://b/1", "s3://b/2"]) == "s3://b"
    assert common_folder(["x/y/1", "x/2"]) == "x"
