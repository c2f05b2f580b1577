"""Compares two models on the same test rows, metric by metric, and tests whether the differences are significant."""

from collections import Counter
from typing import Any, NamedTuple

from pipeline.errors import DataError
from pipeline.scoring.metrics import ALL_METRICS, VERSION, Array, Metric, Prediction, metrics_of
from pipeline.scoring.significance import (
    BETTER,
    MIXED,
    TOO_FEW,
    WITHIN_NOISE,
    WORSE,
    PairedResult,
    holm,
    mcnemar,
    min_rows,
    overall_verdict,
    paired_tests,
    verdict,
)

MAX_IDS_LISTED = 3  # in an error message
RERUN_HINT = "Evaluate both on the current test set: dvc repro -s -f evaluate"
TEST_ROW_FIELDS = ("prompt", "reference", "bytes")  # independent of the model, so equal for both


class MetricComparison(NamedTuple):
    metric: Metric
    paired: PairedResult
    p_mcnemar: float | None  # for exact match only
    p_corrected: float | None  # Holm-corrected over the family; None if the metric is not tested
    verdict: str | None  # None if the metric is not tested


class Comparison(NamedTuple):
    metrics: dict[str, MetricComparison]
    verdict: str
    rows: int
    resamples: int
    seed: int

    @property
    def family(self) -> list[str]:
        """The tested metrics: p-values are corrected over all of them together."""
        return [name for name, metric_comparison in self.metrics.items() if metric_comparison.verdict is not None]


def compare_predictions(base: list[Prediction], other: list[Prediction], resamples: int, seed: int) -> Comparison:
    """Compare `other` with `base`, with the rows in the same order (see `align_predictions`).

    Raises DataError if one of them lacks a metric of the other.
    """
    metrics = metrics_of(base)
    if set(metrics) != set(metrics_of(other)):
        differing = ", ".join(sorted(set(metrics) ^ set(metrics_of(other))))
        raise DataError(
            f"only one of the two models has scores for {differing}. "
            "Evaluate both with the same settings: dvc repro -s -f evaluate"
        )
    base_statistics, other_statistics = (
        {name: metric.statistics(rows) for name, metric in metrics.items()} for rows in (base, other)
    )
    return compare_statistics(base_statistics, other_statistics, tested_family(metrics, base, other), resamples, seed)


def compare_statistics(
    base: dict[str, Array], other: dict[str, Array], tested: list[str], resamples: int, seed: int
) -> Comparison:
    """Compare two models by the statistics (rows, k) of each metric; `tested` names the family of tested metrics.

    Exact match is tested with McNemar's exact test, all other metrics with approximate randomization. The paired bootstrap
    gives the intervals. Its p-value is reported but does not decide the verdict: near 0.05 it equals that of a one-sided test.
    """
    metrics = [ALL_METRICS[name] for name in base]
    paired = paired_tests(metrics, list(base.values()), [other[name] for name in base], resamples, seed)
    results = dict(zip(base, paired, strict=True))
    exact = {name: mcnemar(base[name][:, 0], other[name][:, 0]) for name in base if name == "exact_match"}
    p_values = [exact.get(name, results[name].p_randomisation) for name in tested]
    corrected = dict(zip(tested, holm(p_values), strict=True))
    verdicts = {
        name: verdict(results[name], p, ALL_METRICS[name].higher_is_better, len(tested))
        for name, p in corrected.items()
    }
    metric_comparisons = {
        name: MetricComparison(ALL_METRICS[name], result, exact.get(name), corrected.get(name), verdicts.get(name))
        for name, result in results.items()
    }
    rows = len(next(iter(base.values())))
    return Comparison(metric_comparisons, overall_verdict(verdicts.values()), rows, resamples, seed)


def tested_family(metrics: dict[str, Metric], base: list[Prediction], other: list[Prediction]) -> list[str]:
    """The names of the tested metrics.

    Loss per token is not comparable between different tokenizers, so loss per byte takes its place there.
    """
    same_tokenizer = [row.get("tokens") for row in base] == [row.get("tokens") for row in other]
    names = [name for name, metric in metrics.items() if metric.kind == "tested"]
    return names if same_tokenizer else ["loss_per_byte" if name == "loss" else name for name in names]


def align_predictions(base: list[Prediction], other: list[Prediction], names: tuple[str, str]) -> list[Prediction]:
    """The rows of `other` in the order of `base`; `names` are the names of the two models in error messages.

    Raises DataError unless both have the same test rows, each once and with a reference.
    """
    for rows, name in ((base, names[0]), (other, names[1])):
        _require_complete_rows(rows, name)
    by_id = {row.get("id"): row for row in other}
    ids = {row.get("id") for row in base}
    if ids != set(by_id):
        unmatched = [
            f"{len(extra):,} only in {name} (id {_format_ids(sorted(extra, key=str))})"
            for extra, name in ((ids - set(by_id), names[0]), (set(by_id) - ids, names[1]))
            if extra
        ]
        raise DataError(
            f"{names[0]} has {len(base):,} predictions and {names[1]} has {len(other):,}, "
            f"but not for the same test rows: {', '.join(unmatched)}. {RERUN_HINT}"
        )
    for row in base:
        differing = [name for name in TEST_ROW_FIELDS if row.get(name) != by_id[row.get("id")].get(name)]
        if differing:
            raise DataError(
                f"{names[0]} and {names[1]} do not have the same test rows: "
                f"row {row.get('id')} has a different {differing[0]} in each. {RERUN_HINT}"
            )
    return [by_id[row.get("id")] for row in base]


def _require_complete_rows(rows: list[Prediction], name: str) -> None:
    duplicates = [id for id, count in Counter(row.get("id") for row in rows).items() if count > 1]
    if duplicates:
        raise DataError(
            f"{name} has more than one prediction for the same test row: id {_format_ids(duplicates)}. {RERUN_HINT}"
        )
    unreferenced = [row.get("id") for row in rows if not str(row.get("reference") or "").strip()]
    if unreferenced:
        raise DataError(f"{name} has test rows without a reference: id {_format_ids(unreferenced)}. {RERUN_HINT}")


def _format_ids(ids: list[Any]) -> str:
    return ", ".join(str(id) for id in ids[:MAX_IDS_LISTED]) + (", …" if len(ids) > MAX_IDS_LISTED else "")


def require_metrics_version(metrics: dict[str, Any], name: str) -> None:
    """Raise DataError unless `metrics`, which evaluate wrote for the model `name`, have the version of this code."""
    version = metrics.get("version", 1)
    if version != VERSION:
        raise DataError(
            f"{name} was scored with version {version} of the metrics, but this code has version {VERSION}, which scores the "
            "same answers differently. Evaluate it again: dvc repro -s -f evaluate"
        )


def verdict_sentence(comparison: Comparison, base: str = "the base model", other: str = "the fine-tuned model") -> str:
    """The overall verdict as a sentence."""
    counts = Counter(comparison.metrics[name].verdict for name in comparison.family)
    tests = len(comparison.family)
    only_metric = comparison.metrics[comparison.family[0]].metric.title.lower() if tests == 1 else ""
    all_metrics = only_metric or f"all {tests} tested metrics"
    better, worse = (
        all_metrics if counts[name] == tests else f"{counts[name]} of {tests} tested metrics and {opposite} on none"
        for name, opposite in ((BETTER, WORSE), (WORSE, BETTER))
    )
    sentence = {
        BETTER: f"{other} is better than {base} on {better}",
        WORSE: f"{other} is worse than {base} on {worse}",
        MIXED: f"{other} is better than {base} on {counts[BETTER]} of {tests} tested metrics and worse on {counts[WORSE]}",
        WITHIN_NOISE: f"the difference between {other} and {base} is within noise on {all_metrics}",
        TOO_FEW: f"too few test rows to compare {other} with {base}: {comparison.rows}; at least {min_rows(tests)} are needed",
    }[comparison.verdict]
    return sentence[0].upper() + sentence[1:] + "."


def method_note(comparison: Comparison) -> str:
    """The tests, corrections and intervals behind the verdict, in words."""
    tests, rows = len(comparison.family), comparison.rows
    method = "approximate randomization"
    if "exact_match" in comparison.family:
        method = f"McNemar's exact test for exact match, {method} for the rest"
    correction = f"p-values Holm-corrected over {tests} metrics, " if tests > 1 else ""
    return (
        f"Tests on {rows:,} row{'s' if rows != 1 else ''}: {method}; {correction}significance level 5%. "
        f"Intervals: 95%, by bootstrap. {comparison.resamples:,} resamples, seed {comparison.seed}."
    )
