"""Draws the learning rate over the optimizer steps, before any training.

    python -m pipeline.schedule                                       as conf/ has it
    python -m pipeline.schedule train/schedule=step train.epochs=3    with Hydra's overrides, as `dvc exp run -S` takes them
    python -m pipeline.schedule --all                                 all schedules in one picture, each as its option has it

Prints a table of steps and rates, and where the picture is (SVG; PNG if --out says so). The number of steps is that of a
training on the present data/tokenized, or train.max_steps. The schedule `plateau` follows the validation loss, which
nobody knows yet: it is drawn as if no evaluation after the first brought an improvement.
"""

import argparse
from pathlib import Path

import matplotlib
import pyarrow.parquet as pq

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

ROWS = TOKENIZED / "train.parquet"
PICTURE = METRICS / "schedule.svg"
SHOWN = 11  # steps in the table: the first, the last, and some between
Curve = list[float]  # the learning rate of each optimizer step, from the first to the last


def params_with(overrides: list[str]) -> Params:
    """The parameters as conf/ and the overrides make them."""
    return validate_params(parse_params(compose_params(*overrides)))


def rows_there(options: Train) -> int:
    """Rows to train on, 0 if they are not tokenized yet; ConfigError if the number of steps depends on them."""
    if ROWS.exists():
        return pq.read_metadata(ROWS).num_rows
    if options.max_steps:
        return 0
    raise ConfigError(
        f"{ROWS} is not there, so the number of steps is not known: dvc repro tokenize, or give train.max_steps=…"
    )


def rate_curve(options: Train, rows: int, processes: int = 1) -> Curve:
    """The learning rates of a training on so many rows, which the processes share."""
    steps = total_steps(options, rows, processes)
    rate, between = (
        rate_function(options, steps),
        options.eval_steps or steps_per_epoch(options, rows, processes) or steps,
    )
    rates = []
    for step in range(steps):
        if isinstance(rate, PlateauRate) and step and step % between == 0:
            rate.observe(1.0)
        rates.append(options.learning_rate * rate(step))
    return rates


def table(rates: Curve) -> list[str]:
    """The rates of some steps, as text.

    >>> table([0.0, 0.5, 1.0])
    ['  step  learning rate', '     1              0', '     2            0.5', '     3              1']
    """
    last = len(rates) - 1
    steps = sorted({round(last * at / (SHOWN - 1)) for at in range(SHOWN)})
    return [f"{'step':>6}  learning rate", *(f"{step + 1:>6,}  {rates[step]:>13.4g}" for step in steps)]


def draw(curves: dict[str, Curve], path: Path) -> None:
    """Write the curves as one picture, SVG unless the path ends in .png; the same bytes for the same curves."""
    style = {"svg.hashsalt": "schedule", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10}
    with plt.rc_context(style):
        canvas, axes = plt.subplots(figsize=(8, 4), layout="constrained")
        for name, rates in curves.items():
            axes.plot(range(1, len(rates) + 1), rates, label=name, linewidth=1.6)
        axes.set_xlabel("optimizer step")
        axes.set_ylabel("learning rate")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
        with atomic_write(path) as temporary:
            if path.suffix == ".png":
                canvas.savefig(temporary, format="png", dpi=150)
            else:
                canvas.savefig(temporary, format="svg", metadata={"Date": None, "Creator": None})
        plt.close(canvas)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.schedule", description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="all schedules in one picture")
    parser.add_argument("--out", type=Path, default=PICTURE, help=f"the picture's path (default: {PICTURE})")
    parser.add_argument(
        "overrides", nargs="*", help="Hydra overrides, such as train/schedule=linear train.max_steps=100"
    )
    arguments = parser.parse_args()
    with report_errors("schedule"):
        require_params()
        params = params_with(arguments.overrides)
        options, processes = params.train, params.compute.world_size
        rows = rows_there(options)
        curves = {options.schedule.kind: rate_curve(options, rows, processes)}
        print("\n".join(table(curves[options.schedule.kind])))
        if arguments.all:
            names = sorted(path.stem for path in (CONF / "train/schedule").glob("*.yaml"))
            each = {name: params_with([*arguments.overrides, f"train/schedule={name}"]).train for name in names}
            curves = {name: rate_curve(options, rows, processes) for name, options in each.items()}
        draw(curves, arguments.out)
        print(f"{', '.join(curves)} → {arguments.out}")


if __name__ == "__main__":
    main()
