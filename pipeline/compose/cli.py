"""Composes params.yaml from conf/, byte for byte as `dvc exp run` does.

    python -m pipeline.compose [KEY=VALUE | GROUP=OPTION ...]    write params.yaml
    python -m pipeline.compose --check    list the keys of params.yaml that are invalid (exit code 1) or differ (exit code 3)
    python -m pipeline.compose --adopt    make the values of params.yaml the configuration in conf/

Edit conf/, not params.yaml: each `dvc exp run` composes it again. After `dvc exp apply`, params.yaml holds the experiment's
values and differs from conf/; --adopt writes them into conf/.
"""

import argparse
import sys

from pipeline.compose.adopt import adopt
from pipeline.compose.composition import compose_params, load_params, parse_params
from pipeline.compose.leaves import diff_leaves, flatten
from pipeline.core.console import printable
from pipeline.core.entrypoint import report_errors
from pipeline.core.files import atomic_write
from pipeline.core.paths import PARAMS

DIFFERS = 3  # exit code of --check


def print_differences() -> int:
    """Print how params.yaml differs from what conf/ composes; return the exit code."""
    differences = diff_leaves(flatten(load_params()), flatten(parse_params(compose_params())))
    if not differences:
        print("params.yaml is what conf/ composes.")
        return 0
    print("params.yaml differs from what conf/ composes:")
    for key, (current, composed) in differences.items():
        print(printable(f"  {key}: {current} here, {composed} from conf/"))
    print("To use the values of conf/: make params. To keep these values: python -m pipeline.compose --adopt")
    return DIFFERS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.compose", description="Compose params.yaml from conf/.")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="list the keys that are invalid or differ from conf/")
    mode.add_argument("--adopt", action="store_true", help="write the values that differ from conf/ into conf/")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, such as train.epochs=2 or train/method=lora")
    arguments = parser.parse_args()
    with report_errors("compose"):
        if arguments.check:
            sys.exit(print_differences())
        if arguments.adopt:
            print(printable(adopt()))
            return
        text = compose_params(*arguments.overrides)
        with atomic_write(PARAMS) as temporary:
            temporary.write_text(text, encoding="utf-8")
        print("Wrote params.yaml.")
