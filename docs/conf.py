"""Builds docs/ as a site: make docs, or sphinx-build -W --keep-going -n -b html docs docs/_build/html."""

from typing import Any

project = "Fine-tuning pipeline"
extensions = ["myst_parser"]
exclude_patterns = ["_build"]

myst_heading_anchors = 3  # headings down to ### can be linked to, by the anchors that GitHub gives them

html_theme = "furo"
html_title = project
html_copy_source = False
html_show_sourcelink = False


# Pages outside docs/, which GitHub links to as they are → the pages that include them here, or the file itself.
OUTSIDE = {
    "../README.md": "path:../README.md",
    "../ARCHITECTURE.md": "architecture.md",
    "../CONTRIBUTING.md": "contributing.md",
    "../CHANGELOG.md": "changelog.md",
}


def link_pages_outside_docs(app: Any, page: str, source: list[str]) -> None:
    """Redirect the links to Markdown files outside docs/, which MyST does not resolve."""
    for target, replacement in OUTSIDE.items():
        source[0] = source[0].replace(f"]({target})", f"]({replacement})")


def setup(app: Any) -> None:
    app.connect("source-read", link_pages_outside_docs)
