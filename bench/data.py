"""What the data stages take: seconds and memory of fetch, clean, format and tokenize, beside other ways to do it.

    python -m bench.data                                  256,916 generated rows of the real data's lengths
    python -m bench.data --rows-from my.jsonl --columns '{question: Title, answer: Reply}'
    python -m bench.data --curve                          10,000 to 1,000,000 rows → docs/data_curve.png

The stages run as processes of their own in a copy of the project, in a temporary folder. Two rates are taken in the
same run: that of the tutorial's code on the first of the rows, and that of the bare Rust tokenizer.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from bench.baselines import bare_tokenizer_rate, tutorial_rate
from bench.stages import ROOT, STAGES, Measured, checkout, run_stages

KNOWLEDGE, PLOT = ROOT / "data/knowledge/conditions.yaml", ROOT / "docs/data_curve.png"
CURVE = (10_000, 30_000, 100_000, 300_000, 1_000_000)
COLUMNS = "{question: Description, answer: Doctor}"
REPEATS = 3  # of the bare tokenizer, of which the median counts
Curve = dict[int, list[Measured]]


def write_generated(path: Path, rows: int) -> None:
    """`rows` dialogues as a user would have them: a JSON Lines file."""
    from pipeline.synthetic.dialogues import read_knowledge
    from pipeline.synthetic.letters import generate_letters

    with path.open("w", encoding="utf-8") as file:
        for row in generate_letters(read_knowledge(KNOWLEDGE), rows, seed=0):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def measure(rows: int, options: argparse.Namespace, folder: Path) -> tuple[Path, list[Measured]]:
    """(the copy of the project, the four stages' measures) of `rows` rows."""
    project = checkout(folder / f"project{rows}", options.tokenizer)
    source = options.rows_from
    if source is None:
        source = folder / f"rows{rows}.jsonl"
        started = time.perf_counter()
        write_generated(source, rows)
        print(
            f"{rows:,} rows generated in {time.perf_counter() - started:.1f} s, {source.stat().st_size / 1e6:,.0f} MB"
        )
    overrides = [
        "data=file",
        f"data.path='{source.resolve()}'",
        f"data.columns={options.columns}",
        f"data.limit={rows}",
    ]
    return project, run_stages(project, overrides)


def table(measured: list[Measured]) -> str:
    lines = [
        f"{'stage':10}{'rows in':>12}{'seconds':>10}{'µs a row':>10}{'inside, s':>11}{'CPU, s':>9}{'peak, GB':>10}"
    ]
    lines += [
        f"{each.stage:10}{each.rows:12,}{each.seconds:10.2f}{1e6 * each.seconds / each.rows:10.1f}"
        f"{each.inside:11.2f}{each.cpu:9.2f}{each.peak / 1e9:10.2f}"
        for each in [*measured, total(measured)]
    ]
    return "\n".join(lines)


def total(measured: list[Measured]) -> Measured:
    """All stages one after the other: rows are those that fetch was given, the peak is the greatest."""
    seconds, inside, cpu = (sum(getattr(each, name) for each in measured) for name in ("seconds", "inside", "cpu"))
    return Measured("total", seconds, inside, cpu, max(each.peak for each in measured), measured[0].rows)


def comparisons(project: Path, measured: list[Measured], options: argparse.Namespace) -> str:
    """The tutorial's rate and the bare tokenizer's beside the stages', each as a ratio."""
    import pyarrow.parquet as pq

    names = yaml.safe_load(options.columns)
    first = pq.read_table(project / "data/raw/rows.parquet").slice(0, options.tutorial_rows).to_pylist()
    theirs = tutorial_rate(first, names["question"], names["answer"], options.tokenizer)
    ours = measured[0].rows / total(measured).seconds
    bare = bare_tokenizer_rate(_formatted(project), project / "models/base", REPEATS)
    tokenize = measured[-1].rows / measured[-1].inside
    return "\n".join(
        (
            f"{'the four stages, processes started':40}{ours:9,.0f} rows/s",
            f"{f'the tutorial, on {len(first):,} rows':40}{theirs:9,.0f} rows/s: the stages do {ours / theirs:.1f} times as many",
            f"{'tokenize, inside the process':40}{tokenize:9,.0f} rows/s",
            f"{f'the bare Rust tokenizer, median of {REPEATS}':40}{bare:9,.0f} rows/s: tokenize does {tokenize / bare:.0%} of it",
        )
    )


def _formatted(project: Path) -> list[dict[str, str]]:
    """What the tokenize stage reads."""
    from pipeline.core.files import read_jsonl

    return [row for split in ("train", "validation") for row in read_jsonl(project / f"data/formatted/{split}.jsonl")]


def curve_table(curve: Curve) -> str:
    """Rows → seconds of each stage and of all, µs a row, the greatest peak of memory."""
    lines = [f"{'rows':>10}" + "".join(f"{stage + ', s':>13}" for stage in (*STAGES, "total")) + "  µs a row  peak, GB"]
    for rows, measured in curve.items():
        whole = total(measured)
        seconds = "".join(f"{each.seconds:13.2f}" for each in (*measured, whole))
        lines.append(f"{rows:10,}{seconds}{1e6 * whole.seconds / rows:10.1f}{whole.peak / 1e9:10.2f}")
    return "\n".join(lines)


def plot(curve: Curve, path: Path) -> None:
    """Time and memory of each stage by the number of rows, both axes logarithmic: what is linear is a slope of one."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for number, stage in enumerate(STAGES):
        axes[0].plot(list(curve), [measured[number].seconds for measured in curve.values()], "o-", label=stage)
        axes[1].plot(list(curve), [measured[number].peak / 1e9 for measured in curve.values()], "o-", label=stage)
    for axis, title in zip(axes, ("seconds", "peak memory, GB"), strict=True):
        axis.set(xscale="log", yscale="log", xlabel="rows", title=title)
        axis.grid(alpha=0.3)
        axis.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.data", description="Time and memory of the data stages.")
    parser.add_argument("--rows", type=int, default=256_916, help="of the hub's ai-medical-chatbot by default")
    parser.add_argument("--tokenizer", type=Path, default=ROOT / "models/nano", help="a model folder")
    parser.add_argument("--rows-from", type=Path, help="a file of your own; its first --rows rows")
    parser.add_argument("--columns", default=COLUMNS, help="data.columns: its question and answer")
    parser.add_argument("--tutorial-rows", type=int, default=3000, help="the tutorial's code runs on so many")
    parser.add_argument("--curve", type=int, nargs="*", metavar="ROWS", help=f"several sizes, by default {CURVE}")
    parser.add_argument("--plot", type=Path, default=PLOT, help="where the curve is drawn")
    options: Any = parser.parse_args(given)
    return options


def main(given: list[str] | None = None) -> None:
    options = arguments(given)
    with tempfile.TemporaryDirectory() as temporary:
        if options.curve is None:
            project, measured = measure(options.rows, options, Path(temporary))
            print(table(measured))
            print(comparisons(project, measured, options))
            return
        curve: Curve = {}
        for rows in options.curve or CURVE:
            with tempfile.TemporaryDirectory(dir=temporary) as folder:  # a million rows fill gigabytes: one at a time
                curve[rows] = measure(rows, options, Path(folder))[1]
        print(curve_table(curve))
        plot(curve, options.plot)
        print(f"→ {options.plot}")


if __name__ == "__main__":
    main()
