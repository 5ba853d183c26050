"""The documentation site: ``make docs`` builds it with Sphinx into ``site/``, without the network.

Pages stay where readers of the repository find them, so the source directory is the repository's root. Their relative
links work there and on the site; a link to a file that is no page, such as a benchmark's result, gets a copy of it.
"""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from docs.generators import configuration, house, quoted

ROOT = Path(__file__).parents[1]

project = "rlaif"
extensions = ["myst_parser"]
root_doc = "README"

#: the sidebar; every page is in it
NAVIGATION = {
    "Guide": [
        "docs/guide/your_own",
        "docs/guide/constitution",
        "docs/guide/labels",
        "docs/guide/preference_model",
        "docs/guide/reinforcement",
        "docs/guide/concurrent",
        "docs/guide/suites",
        "docs/guide/audit",
        "docs/guide/results",
    ],
    "Running it": ["docs/operations", "docs/security", "cluster/README", "docs/configuration"],
    "Understanding it": ["docs/method", "docs/architecture", "docs/decisions", "benchmarks/README"],
    "Changing it": ["docs/extending", "CONTRIBUTING"],
}
include_patterns = ["README.md", "CONTRIBUTING.md", "benchmarks/README.md", "cluster/README.md", "docs/**.md"]
FOLDERS = {"docs", "benchmarks", "cluster"}  # others, such as environments and runs, are not even searched
exclude_patterns = [path.name for path in ROOT.iterdir() if path.is_dir() and path.name not in FOLDERS]

myst_heading_anchors = 3  # the anchors that GitHub makes
highlight_language = "bash"  # blocks without a language hold what is typed into a shell

html_theme = "furo"
html_title = "rlaif"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_extra_path = ["static/index.html"]
html_copy_source = False
html_use_index = False
html_show_copyright = False

GENERATED = {
    "house": house.house,
    "departures": quoted.departures,
    "loops": quoted.loops,
    "plain_ppo": quoted.plain_ppo,
    "configuration": configuration.reference,
}
MARKER = re.compile(r"<!-- generated: (\w+)[^>]*-->")


def fill(app, docname, source):
    """Generated parts take their places, and the first page gets the navigation."""
    source[0] = MARKER.sub(lambda match: GENERATED[match[1]](), source[0])
    if docname == root_doc:
        source[0] += "".join(toctree(caption, pages) for caption, pages in NAVIGATION.items())


def toctree(caption, pages):
    return "\n".join(["", "```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```", ""])


POLICY = "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:"


def shut_doors(app, pagename, templatename, context, doctree):
    """Pages take nothing from other servers."""
    context["metatags"] = (
        context.get("metatags", "") + f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    )


def open_results(app, pagename, templatename, context, doctree):
    """A link to a result opens it in the browser; Sphinx would have the browser save it."""
    if "body" in context:
        context["body"] = context["body"].replace(' download=""', "")


def setup(app):
    app.connect("source-read", fill)
    app.connect("html-page-context", shut_doors)
    app.connect("html-page-context", open_results)
