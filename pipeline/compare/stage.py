"""Compares the base model with the fine-tuned model and tests whether their differences are significant.

    python -m pipeline.compare     data/predictions/{base,finetuned}.jsonl, the metrics of the other stages
                                   → metrics/compare.json, metrics/report.html, metrics/answers.csv,
                                     metrics/verdicts.csv, metrics/model_card.md

metrics/report.html shows the verdicts, the training curves, what each stage did to the rows, and each prompt with its
reference and both answers.
metrics/details/compare.json has the verdicts for other programs; verdicts.csv has every computed value.
"""

import logging
import textwrap
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.compare.csv_files import write_csv
from pipeline.compare.data_summary import DataSummary, summarize_data
from pipeline.compare.environments import describe_environments
from pipeline.compare.report import draw_curves, format_delta, format_interval, format_number, format_p, render_template
from pipeline.compare.tables import MODELS, pair_predictions, paired_answers_table, verdicts_table
from pipeline.compare.verdicts import (
    Comparison,
    align_predictions,
    compare_predictions,
    method_note,
    require_metrics_version,
    verdict_sentence,
)
from pipeline.config.params import Params
from pipeline.core.console import preview, printable
from pipeline.core.entrypoint import stage
from pipeline.core.files import atomic_write, damaged_error, read_jsonl
from pipeline.core.metrics import details_path, read_metrics, write_metrics
from pipeline.core.paths import BASE, FINETUNED, METRICS, PREDICTIONS, TRAIN_HISTORY
from pipeline.errors import DataError
from pipeline.scoring.metrics import Prediction
from pipeline.scoring.significance import BETTER, WORSE

log = logging.getLogger(__name__)

HEADLINE = {"verdicts.better": "overall.better", "verdicts.worse": "overall.worse"}
HEADER = ("", "base", "finetuned", "change", "95% interval of change", "p", "verdict")
NO_VERDICT_NOTE = "Metrics without a verdict restate a tested metric on another scale, or are descriptive."
MEDICAL_DATA = (
    "data/knowledge/conditions.yaml",
    "ruslanmv/ai-medical-chatbot",
)  # what conf/data's medical options read


def read_evaluation(name: str) -> tuple[dict[str, Any], list[Prediction]]:
    """(metrics, predictions) that evaluate wrote for a model.

    Raises DataError if they do not belong together or another version of the metrics scored them.
    """
    metrics, rows = read_metrics(f"evaluate/{name}"), read_jsonl(PREDICTIONS / f"{name}.jsonl")
    require_metrics_version(metrics, name)
    if metrics.get("rows") != len(rows):
        raise DataError(
            f"{PREDICTIONS / name}.jsonl has {len(rows):,} rows, but {details_path(f'evaluate/{name}')} reports "
            f"{metrics.get('rows')}: the file is incomplete or from another run. Evaluate the model again: "
            "dvc repro -s -f evaluate"
        )
    return metrics, rows


def comparison_summary(comparison: Comparison) -> dict[str, Any]:
    """The metrics of the stage: for each metric both values, their difference with its interval, and p and verdict if tested."""
    summary: dict[str, Any] = {}
    for name, metric_comparison in comparison.metrics.items():
        paired = metric_comparison.paired
        values = {
            "base": paired.base,
            "finetuned": paired.other,
            "delta": paired.delta,
            "low": paired.low,
            "high": paired.high,
            "p": metric_comparison.p_corrected,
            "verdict": metric_comparison.verdict,
        }
        summary[name] = {key: value for key, value in values.items() if value is not None}
    verdicts = [metric_comparison.verdict for metric_comparison in comparison.metrics.values()]
    summary["overall"] = {
        "verdict": comparison.verdict,
        "rows": comparison.rows,
        "tests": len(comparison.family),
        **{verdict: verdicts.count(verdict) for verdict in (BETTER, WORSE)},
        "resamples": comparison.resamples,
        "seed": comparison.seed,
    }
    return summary


def write_report(
    pairs: list[dict[str, Any]],
    comparison: Comparison,
    stage_metrics: dict[str, Any],
    summary: DataSummary,
    curves: dict[str, Any],
    max_examples: int,
) -> None:
    """Write all outputs of the stage; the page shows the first `max_examples` pairs."""
    for name, table in (("answers.csv", paired_answers_table(pairs)), ("verdicts.csv", verdicts_table(comparison))):
        with atomic_write(METRICS / name) as temporary:
            write_csv(table, temporary)
    values = {
        "comparison": comparison,
        "verdict_sentence": verdict_sentence(comparison),
        "method_note": method_note(comparison),
        "caution": caution(stage_metrics["data"]),
        "summary": summary,
        **stage_metrics,
    }
    examples = {"pairs": pairs[:max_examples], "total": len(pairs)}
    page = render_template("pipeline.compare", "report.html.j2", curves=curves, **examples, **values)
    card = printable(render_template("pipeline.compare", "model_card.md.j2", **values))
    for name, text in (("report.html", page), ("model_card.md", card)):
        with atomic_write(METRICS / name) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    write_metrics("compare", comparison_summary(comparison), HEADLINE)


def read_stage_metrics() -> dict[str, Any]:
    """The metrics of the stages before, by the names that the templates use."""
    return {
        **{name: read_metrics(name) for name in ("clean", "format", "tokenize", "train")},
        **{name: read_metrics(f"fetch/{name}") for name in ("data", "model")},
    }


def read_history(path: Path) -> pd.DataFrame:
    """A table that the train stage wrote. Raises DataError if it is damaged."""
    try:
        return pd.read_csv(path, sep="\t")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise damaged_error(path, error) from None


def format_metrics_table(comparison: Comparison) -> list[str]:
    """The comparison as lines for the console, one per metric."""
    rows = [
        (
            name,
            format_number(result.paired.base),
            format_number(result.paired.other),
            format_delta(result.paired.delta),
            format_interval(result.paired.low, result.paired.high),
            format_p(result.p_corrected),
            result.verdict or "",
        )
        for name, result in comparison.metrics.items()
    ]
    lines = [
        f"{name:<19} {base:>9} {tuned:>10} {change:>10}  {interval:<22} {p:>7}  {verdict}".rstrip()
        for name, base, tuned, change, interval, p, verdict in [HEADER, *rows]
    ]
    return lines if len(comparison.family) == len(comparison.metrics) else [*lines, NO_VERDICT_NOTE]


def format_example(pairs: list[dict[str, Any]]) -> list[str]:
    """The first test row with both answers, as lines for the console; nothing for plain text, which has no answers."""
    pair = next((pair for pair in pairs if "prediction" in pair["base"]), None)
    if pair is None:
        return []
    texts = {
        "prompt": pair["prompt"],
        "reference": pair["reference"],
        "base": pair["base"]["prediction"],
        "finetuned": pair["finetuned"]["prediction"],
    }
    lines = [f"{name:<12} {preview(text)}" for name, text in texts.items()]
    return [f"Example (test row {pair['id']}):", *lines, ""]


def caution(data: dict[str, Any]) -> str:
    """What to keep in mind about the answers, given the metrics of fetch@data."""
    general = "A model's answers can be wrong, even when they read well."
    return f"{general} Answers about health are not medical advice." if data["name"] in MEDICAL_DATA else general


def environment_warnings(base: dict[str, Any], finetuned: dict[str, Any]) -> list[str]:
    """A warning if the answers were generated in different environments, given the metrics of both evaluations."""
    differences = describe_environments({"base": base.get("environment"), "finetuned": finetuned.get("environment")})
    if not differences:
        return []
    return [
        f"The two models answered in different environments: {differences}. Rounding differs between environments, so a few "
        "answers can differ for this reason alone. To evaluate both in this one: dvc repro -s -f evaluate && dvc repro"
    ]


def closing_notes(summary: DataSummary, data: dict[str, Any]) -> list[str]:
    """The last lines on the console: how many warnings there were, where the results are, a caution."""
    count = len(summary.warnings)
    warnings = [f"{count} warning{'s' if count > 1 else ''} about this run: see {METRICS}/report.html"] if count else []
    results = f"Report: {METRICS}/report.html (open it in a browser). All answers: {METRICS}/answers.csv"
    return [*warnings, results, caution(data)]


@stage("compare")
def main(params: Params) -> None:
    (base_metrics, base), (finetuned_metrics, finetuned) = (read_evaluation(name) for name in MODELS)
    finetuned = align_predictions(base, finetuned, MODELS)
    log.info(f"Comparing {BASE} and {FINETUNED} on {len(base):,} test rows")
    comparison = compare_predictions(base, finetuned, params.compare.resamples, params.compare.seed)
    pairs = pair_predictions(base, finetuned)
    stage_metrics = {"signature": base_metrics.get("signature", {}), **read_stage_metrics()}
    training, validation = (read_history(TRAIN_HISTORY / name) for name in ("history.tsv", "validation.tsv"))
    summary = summarize_data(stage_metrics)
    summary.warnings.extend(environment_warnings(base_metrics, finetuned_metrics))
    write_report(pairs, comparison, stage_metrics, summary, draw_curves(training, validation), params.compare.examples)
    verdict = [verdict_sentence(comparison), *textwrap.wrap(method_note(comparison), 100)]
    log.info("\n".join(["", *format_metrics_table(comparison), "", *verdict, ""]))
    log.info("\n".join([*format_example(pairs), *closing_notes(summary, stage_metrics["data"])]))
