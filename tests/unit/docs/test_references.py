"""What pages refer to is there: files of the tree, files of a run, configuration keys, metrics, links and anchors."""

import re
from functools import cache
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from docs import conf
from rlaif.config.keys import known_keys
from rlaif.config.schema import Config
from tests.unit.docs.pages import PAGES, ROOT, Piece, anchors, links, pieces, spans
from tests.unit.docs.shell import PLACEHOLDER, TOP

FILE = re.compile(r"[\w./*{}-]+/?$")
SUFFIXES = (".py", ".md", ".yaml", ".yml", ".toml", ".lock", ".json", ".jsonl", ".html", ".csv", ".sqlite", ".parquet")
ELSEWHERE = ("RUN_DIR/", "DIR/", "runs/", "models/", "labels/", "site/", "~/", "/")
KEY = re.compile(r"[a-z_]+(\.[a-z_]+)+$")
SETTING = re.compile(r"([a-z_]+(?:\.[a-z_]+)*)=(\S*)$")


@cache
def sources() -> str:
    files = [path for folder in ("rlaif", "actors") for path in sorted((ROOT / folder).rglob("*"))]
    return "\n".join(path.read_text(encoding="utf-8") for path in files if path.suffix in (".py", ".jinja", ".yaml"))


def reference_problem(text: str) -> str | None:
    """What is wrong with a code span that looks like a file, a metric, a key or a setting; None when nothing is."""
    if " " in text or "://" in text or text.startswith(("hf:", "--")):
        return None
    if setting := SETTING.match(text):
        return _setting_problem(setting[1], setting[2])
    section = text.split(".")[0]
    if KEY.match(text) and section in Config.model_fields and not text.endswith(SUFFIXES):
        return None if text in set(known_keys()) else "no such configuration key"
    return _file_problem(text) if FILE.match(text) and ("/" in text or text.endswith(SUFFIXES)) else None


def _file_problem(text: str) -> str | None:
    if text.startswith(TOP):
        return None if any(ROOT.glob(text.rstrip("/"))) else "no such file in the tree"
    if text.startswith((*ELSEWHERE, ".venv/")) or PLACEHOLDER.match(text.split("/")[0]) or (ROOT / text).exists():
        return None
    # a file that a run writes, or a metric (which stages put their own name before)
    return None if text.rstrip("/").removeprefix("reinforce/") in sources() else "neither a file nor a metric"


def _setting_problem(key: str, value: str) -> str | None:
    if key not in set(known_keys()):
        return "no such configuration key"
    if not value or PLACEHOLDER.match(value):
        return None
    tree = yaml.safe_load(value)
    for name in reversed(key.split(".")):
        tree = {name: tree}
    try:
        Config.model_validate(tree)
    except ValidationError as error:
        return f"no such value: {error.errors()[0]['msg']}"
    return None


def link_problem(page: Path, target: str) -> str | None:
    """What is wrong with a link on ``page``; None when nothing is. The web is not asked."""
    if target.startswith(("https://", "http://")):
        return None
    file, _, anchor = target.partition("#")
    path = (page.parent / file).resolve() if file else page
    if not path.exists():
        return f"no {path}"
    if anchor and anchor not in anchors(path.read_text(encoding="utf-8")):
        return f"no heading #{anchor}"
    return None


@pytest.mark.parametrize("span", pieces(spans), ids=str)
def test_a_reference_is_there(span: Piece):
    wrong = reference_problem(span.text)
    assert wrong is None, f"{span.place}: `{span.text}`: {wrong}"


@pytest.mark.parametrize("link", pieces(links), ids=str)
def test_a_link_leads_somewhere(link: Piece):
    wrong = link_problem(ROOT / link.file, link.text)
    assert wrong is None, f"{link.place}: {link.text}: {wrong}"


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("rlaif/nowhere.py", "no such file"),
        ("benchmarks/results/none.json", "no such file"),
        ("nowhere.jsonl", "neither"),
        ("kl/nothing", "neither"),
        ("labelling.gates.max_flip_rate", "no such configuration key"),
        ("labelling.gate.max_flip=0.5", "no such configuration key"),
        ("labelling.gate.override=[flips]", "no such value"),
        ("generator.engine=tgi", "no such value"),
    ],
)
def test_a_wrong_reference_is_seen(text, cause):
    assert cause in (reference_problem(text) or "")


@pytest.mark.parametrize(
    "text",
    [
        "rlaif/tasks/",
        "metrics.jsonl",
        "kl/sqrt",
        "reinforce/kl/sqrt",
        "labelling.gate",
        "labeller.autoscale.enabled=true",
        "RUN_DIR/audit/key.json",
        "data.red_team=FILE",
    ],
)
def test_a_right_reference_passes(text):
    assert reference_problem(text) is None


def test_a_broken_link_is_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# The title\n\n```\n# no heading\n```\n")
    assert "no " in (link_problem(page, "none.md") or "")
    assert "no heading" in (link_problem(page, "#no-heading") or "")
    assert link_problem(page, "#the-title") is None
    assert link_problem(page, "page.md#the-title") is None


def test_every_page_is_in_the_navigation_of_the_site():
    shown = [conf.root_doc, *(page for pages in conf.NAVIGATION.values() for page in pages)]
    assert sorted(shown) == sorted(page.relative_to(ROOT).with_suffix("").as_posix() for page in PAGES)
