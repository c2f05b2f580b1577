"""Plots the learning rate over the optimizer steps, before any training.

    python -m pipeline.schedule                                       the schedule of conf/
    python -m pipeline.schedule train/schedule=step train.epochs=3    with Hydra's overrides, as for `dvc exp run -S`
    python -m pipeline.schedule --all                                 all schedules in one plot, each with its option's values

conf/, overrides and data/tokenized → a table of steps and learning rates, metrics/schedule.svg (--out: another path; a PNG if
it ends in .png). The number of steps is that of a training on the current data/tokenized, or train.max_steps. The schedule
`plateau` depends on validation losses that are not known yet: it is plotted as if no evaluation after the first improved.
"""

import argparse
from pathlib import Path
from typing import Any

import matplotlib
import pyarrow.parquet as pq

import pipeline.core.interruption  # noqa: F401
from pipeline.compose.composition import compose_params, parse_params
from pipeline.config.params import Params, Train
from pipeline.config.validation import validate_params
from pipeline.core.entrypoint import report_errors, require_params
from pipeline.core.files import atomic_write
from pipeline.core.paths import CONF, METRICS, TOKENIZED
from pipeline.errors import ConfigError
from pipeline.train.schedules import PlateauRate, rate_function, steps_per_epoch, total_steps

matplotlib.use("svg")
from matplotlib import pyplot as plt

TRAIN_ROWS = TOKENIZED / "train.parquet"
PLOT = METRICS / "schedule.svg"
TABLE_ROWS = 11  # the first step, the last, and evenly spaced ones between
Curve = list[float]  # the learning rate of every optimizer step


def compose_valid_params(overrides: list[str]) -> Params:
    """The parameters that conf/ and the overrides compose. Raises ConfigError if they are not valid."""
    return validate_params(parse_params(compose_params(*overrides)))


def count_train_rows(options: Train) -> int:
    """Tokenized rows to train on; 0 if there are none yet. Raises ConfigError if the number of steps depends on them."""
    if TRAIN_ROWS.exists():
        return int(pq.read_metadata(TRAIN_ROWS).num_rows)
    if options.max_steps:
        return 0
    raise ConfigError(
        f"{TRAIN_ROWS} does not exist, so the number of steps is unknown: run dvc repro tokenize, or set train.max_steps=…"
    )


def learning_rates(options: Train, rows: int, processes: int = 1) -> Curve:
    """The learning rate of every step of a training on `rows` rows, distributed over `processes`."""
    steps = total_steps(options, rows, processes)
    rate = rate_function(options, steps)
    eval_steps = options.eval_steps or steps_per_epoch(options, rows, processes) or steps
    curve = []
    for step in range(steps):
        if isinstance(rate, PlateauRate) and step and step % eval_steps == 0:
            rate.observe(1.0)
        curve.append(options.learning_rate * rate(step))
    return curve


def rate_table(curve: Curve) -> list[str]:
    """The learning rates of some steps, as lines of a table.

    >>> rate_table([0.0, 0.5, 1.0])
    ['  step  learning rate', '     1              0', '     2            0.5', '     3              1']
    """
    last = len(curve) - 1
    steps = sorted({round(last * row / (TABLE_ROWS - 1)) for row in range(TABLE_ROWS)})
    return [f"{'step':>6}  learning rate", *(f"{step + 1:>6,}  {curve[step]:>13.4g}" for step in steps)]


def write_plot(curves: dict[str, Curve], path: Path) -> None:
    """Plot the curves together, as SVG unless `path` ends in .png. Equal curves give equal bytes."""
    style: Any = {"svg.hashsalt": "schedule", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10}
    with plt.rc_context(style):
        figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
        for name, curve in curves.items():
            axes.plot(range(1, len(curve) + 1), curve, label=name, linewidth=1.6)
        axes.set_xlabel("optimizer step")
        axes.set_ylabel("learning rate")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
        with atomic_write(path) as temporary:
            if path.suffix == ".png":
                figure.savefig(temporary, format="png", dpi=150)
            else:
                figure.savefig(temporary, format="svg", metadata={"Date": None, "Creator": None})
        plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.schedule", description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="plot all schedules together")
    parser.add_argument("--out", type=Path, default=PLOT, help=f"path of the plot, .svg or .png (default: {PLOT})")
    parser.add_argument(
        "overrides", nargs="*", help="Hydra overrides, such as train/schedule=linear train.max_steps=100"
    )
    arguments = parser.parse_args()
    with report_errors("schedule"):
        require_params()
        params = compose_valid_params(arguments.overrides)
        rows, processes = count_train_rows(params.train), params.compute.world_size
        curve = learning_rates(params.train, rows, processes)
        print("\n".join(rate_table(curve)))
        curves: dict[str, Curve] = {params.train.schedule.kind: curve}
        if arguments.all:
            names = sorted(path.stem for path in (CONF / "train/schedule").glob("*.yaml"))
            trains = {
                name: compose_valid_params([*arguments.overrides, f"train/schedule={name}"]).train for name in names
            }
            curves = {name: learning_rates(train, rows, processes) for name, train in trains.items()}
        write_plot(curves, arguments.out)
        print(f"{', '.join(curves)} → {arguments.out}")


if __name__ == "__main__":
    main()
