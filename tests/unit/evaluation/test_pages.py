"""Every page that the project writes forbids what it does not need: scripts, and whatever is elsewhere."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from rlaif.config.schema import Config
from rlaif.evaluation.audit.sheet import reading_page
from rlaif.evaluation.report import write_report
from rlaif.storage.run_dir import RunDir

ROOT = Path(__file__).parents[3]
EXPECTED = {"default-src": "'none'", "style-src": "'unsafe-inline'", "base-uri": "'none'", "form-action": "'none'"}


class Head(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))


def policy(text: str) -> dict[str, str]:
    """Of a page that declares one before anything that it could concern."""
    tags = Head(text).tags
    kinds = [attributes.get("http-equiv") for _, attributes in tags]
    place = kinds.index("Content-Security-Policy")
    assert {tag for tag, _ in tags[:place]} <= {"html", "head", "meta"}
    content = tags[place][1]["content"]
    assert content is not None
    return dict(rule.strip().split(" ", 1) for rule in content.split(";"))


def test_an_audits_page_allows_styles_only() -> None:
    assert policy(reading_page([])) == EXPECTED


def test_a_report_allows_styles_only(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path, Config(run_dir=str(tmp_path)))
    run_dir.write_manifest()
    run_dir.close()
    write_report(tmp_path)
    assert policy((tmp_path / "report.html").read_text()) == EXPECTED


def test_the_documentations_first_page_takes_nothing_from_elsewhere() -> None:
    assert policy((ROOT / "docs" / "static" / "index.html").read_text()) == {"default-src": "'none'"}


def test_every_template_of_a_page_has_the_common_head() -> None:
    templates = [path for path in (ROOT / "rlaif").rglob("*.jinja") if "<html" in path.read_text()]
    assert len(templates) == 2
    assert all('{% include "head.html.jinja" %}' in path.read_text() for path in templates)
