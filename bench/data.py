"""Time and memory of the data stages (fetch, clean, format, tokenize), beside other ways to do the same work.

    python -m bench.data                                  256,916 generated rows with the real data's lengths
    python -m bench.data --rows-from my.jsonl --columns '{question: Title, answer: Reply}'
    python -m bench.data --curve                          10,000 to 1,000,000 rows → docs/data_curve.png

Each stage runs in its own process, in a copy of the project in a temporary folder. The rate of the tutorial's code on the first
rows and the rate of the bare Rust tokenizer are measured in the same run.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import yaml

from bench.baselines import bare_tokenizer_rate, tutorial_rate
from bench.stages import ROOT, STAGES, StageRun, checkout, run_stages

KNOWLEDGE, PLOT = ROOT / "data/knowledge/conditions.yaml", ROOT / "docs/data_curve.png"
SIZES = (10_000, 30_000, 100_000, 300_000, 1_000_000)  # of --curve
COLUMNS = "{question: Description, answer: Doctor}"
REPEATS = 3  # of the bare tokenizer; the median counts
Curve = dict[int, list[StageRun]]


def write_generated_rows(path: Path, rows: int) -> None:
    """Write `rows` dialogues as a JSON Lines file, as a user may have it."""
    from pipeline.synthetic.dialogues import read_knowledge
    from pipeline.synthetic.letters import generate_letters

    with path.open("w", encoding="utf-8") as file:
        for row in generate_letters(read_knowledge(KNOWLEDGE), rows, seed=0):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def measure(rows: int, options: argparse.Namespace, folder: Path) -> tuple[Path, list[StageRun]]:
    """(the copy of the project, the runs of the four stages) for `rows` rows."""
    project = checkout(folder / f"project{rows}", options.tokenizer)
    source = options.rows_from
    if source is None:
        source = folder / f"rows{rows}.jsonl"
        started = time.perf_counter()
        write_generated_rows(source, rows)
        print(
            f"{rows:,} rows generated in {time.perf_counter() - started:.1f} s, {source.stat().st_size / 1e6:,.0f} MB"
        )
    overrides = [
        "data=file",
        f"data.path='{source.resolve()}'",
        f"data.columns={options.columns}",
        f"data.limit={rows}",
        "clean/preset=medical",
    ]
    return project, run_stages(project, overrides)


def table(runs: list[StageRun]) -> str:
    lines = [
        f"{'stage':10}{'rows in':>12}{'seconds':>10}{'µs per row':>12}{'inside, s':>11}{'CPU, s':>9}{'peak, GB':>10}"
    ]
    lines += [
        f"{run.stage:10}{run.rows:12,}{run.seconds:10.2f}{1e6 * run.seconds / run.rows:12.1f}"
        f"{run.inside:11.2f}{run.cpu:9.2f}{run.peak / 1e9:10.2f}"
        for run in [*runs, total(runs)]
    ]
    return "\n".join(lines)


def total(runs: list[StageRun]) -> StageRun:
    """All stages together: the rows that fetch read, the sum of the times, the greatest peak."""
    seconds, inside, cpu = (sum(getattr(run, name) for run in runs) for name in ("seconds", "inside", "cpu"))
    return StageRun("total", seconds, inside, cpu, max(run.peak for run in runs), runs[0].rows)


def comparisons(project: Path, runs: list[StageRun], options: argparse.Namespace) -> str:
    """The rates of the tutorial and of the bare tokenizer, each with the ratio to the stages' rate."""
    import pyarrow.parquet as pq

    columns, base = yaml.safe_load(options.columns), project / "models/base"
    has_config = (options.tokenizer / "tokenizer_config.json").exists()
    first = pq.read_table(project / "data/raw/rows.parquet").slice(0, options.tutorial_rows).to_pylist()
    tutorial = tutorial_rate(first, columns["question"], columns["answer"], options.tokenizer if has_config else base)
    stages = runs[0].rows / total(runs).seconds
    bare = bare_tokenizer_rate(_formatted_rows(project), base, REPEATS)
    tokenize = runs[-1].rows / runs[-1].inside
    lines = (
        ("the four stages, with process start", stages, ""),
        (f"the tutorial, on {len(first):,} rows", tutorial, f": the stages are {stages / tutorial:.1f} times as fast"),
        ("tokenize, inside the process", tokenize, ""),
        (f"the bare Rust tokenizer, median of {REPEATS}", bare, f": tokenize reaches {tokenize / bare:.0%} of it"),
    )
    return "\n".join(f"{name:40}{rate:9,.0f} rows/s{comparison}" for name, rate, comparison in lines)


def _formatted_rows(project: Path) -> list[dict[str, str]]:
    """The rows that the tokenize stage reads."""
    from pipeline.core.files import read_jsonl

    return [row for split in ("train", "validation") for row in read_jsonl(project / f"data/formatted/{split}.jsonl")]


def curve_table(curve: Curve) -> str:
    """One line for each number of rows: seconds of each stage and of all, µs per row, greatest peak memory."""
    header = "".join(f"{stage + ', s':>13}" for stage in (*STAGES, "total"))
    lines = [f"{'rows':>10}{header}  µs per row  peak, GB"]
    for rows, runs in curve.items():
        all_stages = total(runs)
        seconds = "".join(f"{run.seconds:13.2f}" for run in [*runs, all_stages])
        lines.append(f"{rows:10,}{seconds}{1e6 * all_stages.seconds / rows:12.1f}{all_stages.peak / 1e9:10.2f}")
    return "\n".join(lines)


def plot(curve: Curve, path: Path) -> None:
    """Draw time and memory of each stage by the number of rows. Both axes are logarithmic, so linear cost has slope one."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for number, stage in enumerate(STAGES):
        axes[0].plot(list(curve), [runs[number].seconds for runs in curve.values()], "o-", label=stage)
        axes[1].plot(list(curve), [runs[number].peak / 1e9 for runs in curve.values()], "o-", label=stage)
    for axis, title in zip(axes, ("seconds", "peak memory, GB"), strict=True):
        axis.set(xscale="log", yscale="log", xlabel="rows", title=title)
        axis.grid(alpha=0.3)
        axis.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.data", description="Time and memory of the data stages.")
    parser.add_argument("--rows", type=int, default=256_916, help="default: those of ai-medical-chatbot on the hub")
    parser.add_argument("--tokenizer", type=Path, default=ROOT / "models/nano", help="a folder with tokenizer.json")
    parser.add_argument("--rows-from", type=Path, help="a data file of your own; its first --rows rows are read")
    parser.add_argument("--columns", default=COLUMNS, help="data.columns: its question and answer")
    parser.add_argument("--tutorial-rows", type=int, default=3000, help="rows for the tutorial's code")
    parser.add_argument("--curve", type=int, nargs="*", metavar="ROWS", help=f"several sizes; default: {SIZES}")
    parser.add_argument("--plot", type=Path, default=PLOT, help="file to draw the curve to")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        if options.curve is None:
            project, runs = measure(options.rows, options, Path(temporary))
            print(table(runs))
            print(comparisons(project, runs, options))
            return
        curve: Curve = {}
        for rows in options.curve or SIZES:
            with tempfile.TemporaryDirectory(
                dir=temporary
            ) as folder:  # a million rows fill gigabytes: keep only one size
                curve[rows] = measure(rows, options, Path(folder))[1]
        print(curve_table(curve))
        plot(curve, options.plot)
        print(f"→ {options.plot}")


if __name__ == "__main__":
    main()
