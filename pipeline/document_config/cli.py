"""Writes the configuration reference: docs/configuration.md, and the comment on each key in conf/.

    python -m pipeline.document_config            write both
    python -m pipeline.document_config --check    list what is not current (exit code 1)

The texts are the docstrings in pipeline/config/; the defaults on the page are the values in conf/. Option files that you add
are left alone. In the files that come with the project, the comment after a key is replaced: write your own on a line above.
"""

import argparse
import sys
from pathlib import Path

from pipeline.core.entrypoint import report_errors
from pipeline.core.files import atomic_write
from pipeline.core.paths import CONF
from pipeline.document_config.comments import expected_comments, outdated_comments, write_comments
from pipeline.document_config.page import PAGE, render_page
from pipeline.errors import ConfigError


def outdated_files() -> dict[Path, str]:
    """File → its current text, for the page and the files in conf/ that are not current."""
    current = {}
    for path, comments in expected_comments().items():
        text = path.read_text(encoding="utf-8")
        if outdated_comments(text, comments):
            current[path] = write_comments(text, comments)
    page = render_page()
    if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page:
        current[PAGE] = page
    return current


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.document_config", description="Write docs/configuration.md and the comments in conf/."
    )
    parser.add_argument("--check", action="store_true", help="list what is not current (exit code 1)")
    arguments = parser.parse_args()
    with report_errors("document_config"):
        if not (CONF / "config.yaml").exists():
            raise ConfigError("conf/config.yaml is not here: run this in the project's root")
        files = outdated_files()
        for path, text in files.items():
            if arguments.check:
                print(f"{path} is not current: python -m pipeline.document_config")
                continue
            with atomic_write(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
            print(f"{path} written.")
        if not files:
            print("docs/configuration.md and the comments in conf/ are current.")
    sys.exit(bool(arguments.check and files))


if __name__ == "__main__":
    main()
