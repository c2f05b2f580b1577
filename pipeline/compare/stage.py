"""Compares the base model with the fine-tuned model and tests whether their differences are significant.

    python -m pipeline.compare     data/predictions/{base,finetuned}.jsonl, the metrics of the other stages
                                   → metrics/compare.json, metrics/report.html, metrics/answers.csv,
                                     metrics/verdicts.csv, metrics/model_card.md

metrics/report.html shows the verdicts, the training curves, and each prompt with its reference and both answers.
compare.json is a summary for `dvc metrics diff`; verdicts.csv has every computed value.
"""

import logging
import textwrap
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.compare.report import draw_curves, format_delta, format_interval, format_number, format_p, render_template
from pipeline.compare.verdicts import (
    Comparison,
    MetricComparison,
    align_predictions,
    compare_predictions,
    method_note,
    require_metrics_version,
    verdict_sentence,
)
from pipeline.config.params import Params
from pipeline.core.entrypoint import stage
from pipeline.core.files import atomic_write, damaged_error, read_json, read_jsonl, write_json
from pipeline.core.paths import BASE, FINETUNED, METRICS, PREDICTIONS, TRAIN_HISTORY
from pipeline.errors import DataError
from pipeline.scoring.metrics import Prediction

log = logging.getLogger(__name__)

MODELS = ("base", "finetuned")
PAIR_FIELDS = (
    "id",
    "prompt",
    "reference",
    "tokens",
    "bytes",
)  # shared by both predictions; not tokens if the tokenizers differ
HEADER = ("", "base", "finetuned", "change", "95% interval of change", "p", "verdict")
NO_VERDICT_NOTE = "Metrics without a verdict restate a tested metric on another scale, or are descriptive."
CLOSING_NOTES = (
    f"Report: {METRICS}/report.html (open it in a browser). All answers: {METRICS}/answers.csv",
    "A model's answers can be wrong, even when they read well. Answers about health are not medical advice.",
)


def read_evaluation(name: str) -> tuple[dict[str, Any], list[Prediction]]:
    """(metrics, predictions) that evaluate wrote for a model.

    Raises DataError if they do not belong together or another version of the metrics scored them.
    """
    path = METRICS / "evaluate" / f"{name}.json"
    metrics, rows = read_json(path), read_jsonl(PREDICTIONS / f"{name}.jsonl")
    require_metrics_version(metrics, name)
    if metrics.get("rows") != len(rows):
        raise DataError(
            f"{PREDICTIONS / name}.jsonl has {len(rows):,} rows, but {path} reports {metrics.get('rows')}: "
            "the file is incomplete or from another run. Evaluate the model again: dvc repro -f evaluate"
        )
    return metrics, rows


def pair_predictions(base: list[Prediction], finetuned: list[Prediction]) -> list[dict[str, Any]]:
    """One row per test row: its own fields, then `base` and `finetuned` with each model's answer and scores."""
    pairs = []
    for base_row, finetuned_row in zip(base, finetuned, strict=True):
        shared = {
            name: base_row[name]
            for name in PAIR_FIELDS
            if name in base_row and base_row[name] == finetuned_row.get(name)
        }
        base_fields, finetuned_fields = (
            {name: value for name, value in row.items() if name not in shared} for row in (base_row, finetuned_row)
        )
        pairs.append({**shared, "base": base_fields, "finetuned": finetuned_fields})
    return pairs


def comparison_summary(comparison: Comparison) -> dict[str, Any]:
    """compare.json: for each metric both values, their difference with its interval, and p and verdict if tested."""
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
    summary["overall"] = {
        "verdict": comparison.verdict,
        "rows": comparison.rows,
        "tests": len(comparison.family),
        "resamples": comparison.resamples,
        "seed": comparison.seed,
    }
    return summary


def verdicts_table(comparison: Comparison) -> pd.DataFrame:
    """verdicts.csv: every computed value, one row per metric. Cells that do not apply are empty."""
    run = {"rows": comparison.rows, "resamples": comparison.resamples, "seed": comparison.seed}
    return pd.DataFrame(
        [{"metric": name, **_verdict_cells(result), **run} for name, result in comparison.metrics.items()]
    )


def _verdict_cells(metric_comparison: MetricComparison) -> dict[str, Any]:
    paired = metric_comparison.paired
    return {
        "kind": metric_comparison.metric.kind,
        **_interval_cells("base", *paired.base_interval),
        **_interval_cells("finetuned", *paired.other_interval),
        **_interval_cells("delta", paired.delta, paired.low, paired.high),
        "wins": paired.wins,
        "ties": paired.ties,
        "losses": paired.losses,
        "p_bootstrap": paired.p_bootstrap,
        "p_randomisation": paired.p_randomisation,
        "p_mcnemar": metric_comparison.p_mcnemar,
        "p_corrected": metric_comparison.p_corrected,
        "verdict": metric_comparison.verdict,
    }


def _interval_cells(name: str, value: float, low: float | None, high: float | None) -> dict[str, float | None]:
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def paired_answers_table(pairs: list[dict[str, Any]]) -> pd.DataFrame:
    """answers.csv: the pairs as a flat table with columns prompt, reference, base.prediction, finetuned.prediction, …"""
    return pd.json_normalize(pairs)


def write_report(
    pairs: list[dict[str, Any]],
    comparison: Comparison,
    stage_metrics: dict[str, Any],
    curves: dict[str, Any],
    max_examples: int,
) -> None:
    """Write all outputs of the stage; the page shows the first `max_examples` pairs."""
    for name, table in (("answers.csv", paired_answers_table(pairs)), ("verdicts.csv", verdicts_table(comparison))):
        with atomic_write(METRICS / name) as temporary:
            table.to_csv(temporary, index=False)
    values = {
        "comparison": comparison,
        "verdict_sentence": verdict_sentence(comparison),
        "method_note": method_note(comparison),
        **stage_metrics,
    }
    examples = {"pairs": pairs[:max_examples], "total": len(pairs)}
    page = render_template("pipeline.compare", "report.html.j2", curves=curves, **examples, **values)
    card = render_template("pipeline.compare", "model_card.md.j2", **values)
    for name, text in (("report.html", page), ("model_card.md", card)):
        with atomic_write(METRICS / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    write_json(METRICS / "compare.json", comparison_summary(comparison))


def read_stage_metrics() -> dict[str, Any]:
    """The metrics of the stages before, by the names that the templates use."""
    return {
        **{name: read_json(METRICS / f"{name}.json") for name in ("clean", "format", "tokenize", "train")},
        "data": read_json(METRICS / "fetch" / "data.json"),
        "model": read_json(METRICS / "fetch" / "model.json"),
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
    lines = [f"{name:<12} {textwrap.shorten(text, 110, placeholder=' …')}" for name, text in texts.items()]
    return [f"Example (test row {pair['id']}):", *lines, ""]


@stage("compare")
def main(params: Params) -> None:
    (base_metrics, base), (_, finetuned) = (read_evaluation(name) for name in MODELS)
    finetuned = align_predictions(base, finetuned, MODELS)
    log.info(f"Comparing {BASE} and {FINETUNED} on {len(base):,} test rows")
    comparison = compare_predictions(base, finetuned, params.compare.resamples, params.compare.seed)
    pairs = pair_predictions(base, finetuned)
    stage_metrics = {"signature": base_metrics.get("signature", {}), **read_stage_metrics()}
    training, validation = (read_history(TRAIN_HISTORY / name) for name in ("history.tsv", "validation.tsv"))
    write_report(pairs, comparison, stage_metrics, draw_curves(training, validation), params.compare.examples)
    verdict = [verdict_sentence(comparison), *textwrap.wrap(method_note(comparison), 100)]
    log.info("\n".join(["", *format_metrics_table(comparison), "", *verdict, ""]))
    log.info("\n".join([*format_example(pairs), *CLOSING_NOTES]))
