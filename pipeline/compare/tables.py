"""The tables that compare writes: the test rows with both models' answers, and the verdicts."""

from typing import Any

import pandas as pd

from pipeline.compare.verdicts import Comparison, MetricComparison
from pipeline.scoring.metrics import Prediction

MODELS = ("base", "finetuned")
PAIR_FIELDS = (
    "id",
    "prompt",
    "reference",
    "tokens",
    "bytes",
)  # shared by both predictions; not tokens if the tokenizers differ


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
    flat = [
        {
            **{name: value for name, value in pair.items() if name not in MODELS},
            **{f"{model}.{name}": value for model in MODELS for name, value in pair[model].items()},
        }
        for pair in pairs
    ]
    return pd.DataFrame(flat, dtype=object)  # the values as they are: pandas' text type has no lone surrogates
