"""Links that work in the repository, rewritten for the site, where docs/ is the root and the README is the index."""

from __future__ import annotations

import posixpath
import re

#: published besides docs/, where a reader of the repository finds them
ELSEWHERE = ("CONTRIBUTING.md", "benchmarks/README.md", "benchmarks/results/*", "cluster/*")
LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)\s]*)?\))")


def site_links(page: str, markdown: str) -> str:
    """``markdown`` of the site's ``page`` with its relative links rewritten."""
    return LINK.sub(lambda match: f"{match[1]}{site_link(page, match[2])}{match[3]}", markdown)


def site_link(page: str, link: str) -> str:
    if ":" in link:
        return link
    target = posixpath.normpath(posixpath.join(posixpath.dirname(_in_tree(page)), link))
    return posixpath.relpath(_on_site(target), posixpath.dirname(page) or ".")


def _in_tree(page: str) -> str:
    if page == "index.md":
        return "README.md"
    outside = page == "CONTRIBUTING.md" or page.startswith(("benchmarks/", "cluster/"))
    return page if outside else f"docs/{page}"


def _on_site(path: str) -> str:
    return "index.md" if path == "README.md" else path.removeprefix("docs/")
