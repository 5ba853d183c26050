"""mkdocs calls these: pages that live elsewhere in the tree join the site, and generated parts take their places."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

import configuration  # mkdocs puts this folder on the path
import house
import quoted
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
#: published besides docs/, where a reader of the repository finds them
ELSEWHERE = ("CONTRIBUTING.md", "benchmarks/README.md", "benchmarks/results/*", "cluster/*")
GENERATED = {
    "house": house.house,
    "departures": quoted.departures,
    "loops": quoted.loops,
    "plain_ppo": quoted.plain_ppo,
    "configuration": configuration.reference,
}
MARKER = re.compile(r"<!-- generated: (\w+)[^>]*-->")
LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)\s]*)?\))")


def on_files(files: Files, config: Any) -> Files:
    """The README is the first page; other files keep their place in the tree."""
    files.append(File.generated(config, "index.md", abs_src_path=str(ROOT / "README.md")))
    for pattern in ELSEWHERE:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    uri = page.file.src_uri
    text = MARKER.sub(lambda match: GENERATED[match[1]](), markdown)
    return LINK.sub(lambda match: f"{match[1]}{_site_link(uri, match[2])}{match[3]}", text)


def _site_link(page: str, link: str) -> str:
    """A link as it is right in the repository, made right on the site, where docs/ is the root."""
    if ":" in link:
        return link
    target = posixpath.normpath(posixpath.join(posixpath.dirname(_in_tree(page)), link))
    return posixpath.relpath(_on_site(target), posixpath.dirname(page) or ".")


def _in_tree(uri: str) -> str:
    if uri == "index.md":
        return "README.md"
    return uri if uri.startswith(("benchmarks/", "cluster/")) or uri == "CONTRIBUTING.md" else f"docs/{uri}"


def _on_site(path: str) -> str:
    return "index.md" if path == "README.md" else path.removeprefix("docs/")
