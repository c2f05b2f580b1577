"""Composes params.yaml from conf/, byte for byte as `dvc exp run` does.

    python -m pipeline.compose            write params.yaml
    python -m pipeline.compose --check    say which keys of params.yaml are wrong (exit code 1) or differ from conf/ (exit code 3)
    python -m pipeline.compose --adopt    write the differing values into conf/config.yaml

Edit conf/, not params.yaml: `dvc exp run` composes anew each time. After `dvc exp apply`, params.yaml rightly
differs; --adopt makes its values the new configuration.
"""

import argparse
import sys

from pipeline.compose.adopt import adopt
from pipeline.compose.composition import compose_params, current_params, parse_params
from pipeline.compose.leaves import diff_leaves, flatten
from pipeline.core.entrypoint import report_errors
from pipeline.core.files import atomic_write
from pipeline.core.paths import PARAMS

DIFFERS = 3  # exit code


def print_differences() -> int:
    """Say how params.yaml differs from conf/; the exit code."""
    differing = diff_leaves(flatten(current_params()), flatten(parse_params(compose_params())))
    if not differing:
        print("params.yaml is what conf/ composes.")
        return 0
    print("params.yaml differs from what conf/ composes:")
    for key, (here, there) in differing.items():
        print(f"  {key}: {here} here, {there} by conf/")
    print("To have conf/ again: make params. To keep these values: python -m pipeline.compose --adopt")
    return DIFFERS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.compose", description="Compose params.yaml from conf/.")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--check", action="store_true", help="say which keys are wrong or differ from conf/")
    how.add_argument("--adopt", action="store_true", help="write the differing values into conf/config.yaml")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, such as train.epochs=2")
    arguments = parser.parse_args()
    with report_errors("compose"):
        if arguments.check:
            sys.exit(print_differences())
        if arguments.adopt:
            print(adopt())
            return
        text = compose_params(*arguments.overrides)
        with atomic_write(PARAMS) as temporary:
            temporary.write_text(text, encoding="utf-8")
        print("params.yaml written.")
