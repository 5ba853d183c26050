"""The README and CONTRIBUTING stay short, what is generated is whole, and the site builds without a warning."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.generators import configuration, house, quoted
from rlaif.config.keys import section_type
from rlaif.config.schema import Config
from rlaif.config.section import Section
from rlaif.config.source import Source
from tests.unit.docs.pages import PAGES, ROOT

MAX_WORDS, MAX_LINES = 1200, 60


def test_the_readme_is_a_page():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= MAX_WORDS  # as wc -w counts


def test_contributing_is_a_page():
    assert len((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()) <= MAX_LINES


# --------------------------------------------------------------------------------------------------- the house
def rooms_on_disk(package: str) -> set[str]:
    entries = [path for path in (ROOT / package).iterdir() if not path.name.startswith(("_", "."))]
    return {path.stem for path in entries if path.suffix == ".py" or (path / "__init__.py").is_file()}


def drawn_rooms(picture: str) -> list[str]:
    return re.findall(r'text-anchor="middle">([^<]+)</text>', picture)


@pytest.fixture
def wings():
    return house.wings((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_picture_has_every_room_of_the_contracts_and_on_disk(wings):
    assert [wing.package for wing in wings] == ["actors", "rlaif"]
    for wing in wings:
        assert set(wing.rooms) == rooms_on_disk(wing.package)
    drawn = drawn_rooms(house.picture(wings))
    assert sorted(drawn) == sorted(room for wing in wings for room in wing.rooms)
    for wing in wings:
        for room in wing.rooms:
            assert f"`{wing.package}/{room}` | {house.purpose(wing.package, room)[:5]}" in house.table(wings)


def test_a_room_that_is_no_longer_in_the_contract_leaves_the_picture(wings):
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    fewer = house.wings(text.replace('    "evaluation | sizes",\n', ""))
    assert "evaluation" in drawn_rooms(house.picture(wings))
    assert "evaluation" not in drawn_rooms(house.picture(fewer))


def test_rooms_that_share_a_floor_stand_at_one_height():
    wing = house.Wing(package="p", floors=(("top",), ("left", "right")))
    heights = re.findall(r'<rect x="[\d.]+" y="(\d+)"', house.picture([wing]))
    assert heights[0] < heights[1] == heights[2]


def test_layers_are_read_as_import_linter_writes_them():
    text = """
    [[tool.importlinter.contracts]]
    type = "layers"
    containers = ["p"]
    layers = ["a | b", "(c) : d"]
    """
    (wing,) = house.wings(text)
    assert wing.floors == (("a", "b"), ("c", "d"))


# ------------------------------------------------------------------------------------------ what pages generate
def fields_of(section: type[Section], places: str):
    for name in section.model_fields:
        inner = section_type(section, name)
        if inner is None or inner is Source:
            yield places, name
        if inner is not None:
            yield from fields_of(inner, f"{places}.{name}".lstrip("."))


def test_the_configuration_reference_has_every_key():
    tables = {}
    for part in configuration.reference().split("## ")[1:]:
        title, _, rows = part.partition("\n")
        for place in re.findall(r"`([\w.]+)`", title) or [""]:
            tables.setdefault(place, set()).update(re.findall(r"^\| `(\w+)`", rows, re.MULTILINE))
    missing = [(place, name) for place, name in fields_of(Config, "") if name not in tables.get(place, set())]
    assert not missing


def test_a_value_is_described_by_its_kind_and_bounds():
    text = configuration.reference()
    assert "| `rounds` | whole number, at least 1, at most 4 | `2` |" in text
    assert "`ppo`, `rloo`, `grpo`" in text
    assert "| `lexicon` | text, or null | `null` |" in text


def test_every_departure_is_quoted():
    text = quoted.departures()
    for path in sorted((ROOT / "rlaif").rglob("*.py")):
        header = path.read_text(encoding="utf-8").split('"""')[1:2]
        if header and re.search(r"^Depart", header[0], re.MULTILINE):
            assert f"### `{path.relative_to(ROOT)}`" in text
    assert "\n1. " in text
    assert "``" not in text


def test_the_loops_and_the_plain_ppo_are_quoted():
    text = quoted.loops()
    column = len(re.search(r"^Loop .*(?=unblocked by)", text, re.MULTILINE)[0])
    for loop in ("roll_out", "score", "learn", "publish", "compare", "label", "refit"):
        (row,) = re.findall(rf"^{loop} .*", text, re.MULTILINE)
        assert row[column - 2 : column] == "  " and row[column] != " ", "the columns of the table are out of line"
    assert "def plain_ppo(" in quoted.plain_ppo()


# ------------------------------------------------------------------------------------------------------ the site
#: runs Sphinx without a network
SPHINX = "import socket, sys; socket.socket.connect = None; from sphinx.cmd.build import main; sys.exit(main())"
FETCHED = re.compile(
    r'<(?:script|img|iframe)[^>]* src="(?:https?:)?//|'
    r'<link[^>]* rel="(?:stylesheet|preconnect)"[^>]* href="(?:https?:)?//|'
    r"""(?:url\(|@import )["']?(?:https?:)?//"""
)
BROKEN = ("none.md", "docs/method.md#no-heading", "#no-heading", "benchmarks/results/none.json")


def options() -> list[str]:
    """The options that the Makefile gives to Sphinx."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return re.search(r"^docs: .venv/ready\n\t.*/sphinx-build (.*) -c docs . site$", makefile, re.MULTILINE)[1].split()


def build(source: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SPHINX, *options(), "-c", str(ROOT / "docs"), str(source), str(site)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def sphinx() -> None:
    if not os.environ.get("CI"):  # there nothing may be skipped; requirements/gpu.lock is without the docs extra
        for name in ("sphinx", "myst_parser", "furo"):
            pytest.importorskip(name, reason=f"the site is built with the docs extra, which has {name}")


@pytest.fixture(scope="module")
def site(sphinx, tmp_path_factory) -> Path:
    site = tmp_path_factory.mktemp("site")
    built = build(ROOT, site)
    assert built.returncode == 0, built.stderr
    return site


def test_the_site_builds_without_a_warning_and_has_every_page(site):
    assert {"-n", "-W", "--keep-going"} <= set(options())
    for page in PAGES:
        text = (site / page.relative_to(ROOT).with_suffix(".html")).read_text(encoding="utf-8")
        assert "generated:" not in text, f"{page}: a marker was not replaced"
    assert "url=README.html" in (site / "index.html").read_text(encoding="utf-8")


def test_the_site_fetches_nothing(site):
    files = [path for suffix in ("html", "css") for path in site.rglob(f"*.{suffix}")]
    assert not [str(path) for path in files if FETCHED.search(path.read_text(encoding="utf-8"))]


def test_results_that_pages_link_to_are_part_of_the_site(site):
    page = (site / "docs/decisions.html").read_text(encoding="utf-8")
    (copied,) = set(re.findall(r'href="\.\./([^"]*/refresh_80_batches\.json)"', page))
    assert (site / copied).read_bytes() == (ROOT / "benchmarks/results/refresh_80_batches.json").read_bytes()


def test_a_broken_link_fails_the_build(sphinx, tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/method.md").write_text("# Method\n")
    (tmp_path / "README.md").write_text("# Title\n" + "".join(f"\n[x]({link})\n" for link in BROKEN))
    built = build(tmp_path, tmp_path / "site")
    assert built.returncode != 0
    for number, link in enumerate(BROKEN):
        target = link.rpartition("#")[2]
        assert re.search(rf"README.md:{3 + 2 * number}: WARNING: .*{target}", built.stderr), link
