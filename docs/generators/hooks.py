"""mkdocs calls these: pages that live elsewhere in the tree join the site, and generated parts take their places."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import configuration  # mkdocs puts this folder on the path
import house
import links
import quoted
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
GENERATED = {
    "house": house.house,
    "departures": quoted.departures,
    "loops": quoted.loops,
    "plain_ppo": quoted.plain_ppo,
    "configuration": configuration.reference,
}
MARKER = re.compile(r"<!-- generated: (\w+)[^>]*-->")


def on_files(files: Files, config: Any) -> Files:
    """The README is the first page; other files keep their place in the tree."""
    files.append(File.generated(config, "index.md", abs_src_path=str(ROOT / "README.md")))
    for pattern in links.ELSEWHERE:
        for path in sorted(ROOT.glob(pattern)):
            files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    whole = MARKER.sub(lambda match: GENERATED[match[1]](), markdown)
    return links.site_links(page.file.src_uri, whole)
