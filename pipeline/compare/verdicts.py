"""Two models' predictions of the same test rows, measure by measure, with what can be said of the difference."""

from collections import Counter
from typing import Any, NamedTuple

import numpy as np

from pipeline.errors import DataError
from pipeline.scoring.metrics import ALL_METRICS, VERSION, Metric, Prediction, metrics_of
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

SHOWN = 3  # ids in an error
AGAIN = "Evaluate both on the present test set: dvc repro -f evaluate"
FACTS = ("prompt", "reference", "bytes")  # of a test row, not of a model


class MetricComparison(NamedTuple):
    measure: Metric
    paired: PairedResult
    p_mcnemar: float | None  # of exact match alone
    p: float | None  # Holm-corrected over the family; None outside of it
    verdict: str | None  # the same


class Comparison(NamedTuple):
    measures: dict[str, MetricComparison]
    verdict: str
    rows: int
    resamples: int
    seed: int

    @property
    def family(self) -> list[str]:
        """The measures that the p-values are corrected for."""
        return [name for name, judged in self.measures.items() if judged.verdict is not None]


def compare_predictions(base: list[Prediction], other: list[Prediction], resamples: int, seed: int) -> Comparison:
    """Judge `other` by `base`: rows as `align_predictions` gives them."""
    measures = metrics_of(base)
    if set(measures) != set(metrics_of(other)):
        differing = ", ".join(sorted(set(measures) ^ set(metrics_of(other))))
        raise DataError(f"only one of the two was measured by {differing}. Evaluate both alike: dvc repro -f evaluate")
    statistics = [{name: measure.statistics(rows) for name, measure in measures.items()} for rows in (base, other)]
    return compare_statistics(statistics[0], statistics[1], tested_family(measures, base, other), resamples, seed)


def compare_statistics(
    base: dict[str, np.ndarray], other: dict[str, np.ndarray], tested: list[str], resamples: int, seed: int
) -> Comparison:
    """Judge by statistics, measure by measure; `tested` is the family.

    Exact match is tested by McNemar's exact test, all others by approximate randomisation. The paired bootstrap gives the
    intervals, and a p-value that is told and decides nothing: near 0.05 it is that of a one-sided test.
    """
    measures = [ALL_METRICS[name] for name in base]
    results = dict(
        zip(
            base,
            paired_tests(measures, list(base.values()), [other[name] for name in base], resamples, seed),
            strict=True,
        )
    )
    exact = {name: mcnemar(base[name][:, 0], other[name][:, 0]) for name in base if name == "exact_match"}
    p_values = [exact.get(name, results[name].p_randomisation) for name in tested]
    adjusted = dict(zip(tested, holm(p_values), strict=True))
    verdicts = {
        name: verdict(results[name], p, ALL_METRICS[name].higher_is_better, len(tested)) for name, p in adjusted.items()
    }
    judged = {
        name: MetricComparison(ALL_METRICS[name], result, exact.get(name), adjusted.get(name), verdicts.get(name))
        for name, result in results.items()
    }
    rows = len(next(iter(base.values())))
    return Comparison(judged, overall_verdict(verdicts.values()), rows, resamples, seed)


def tested_family(measures: dict[str, Metric], base: list[Prediction], other: list[Prediction]) -> list[str]:
    """The names of the tested measures. Between different tokenizers a token is no unit: the loss is that per byte."""
    one_tokenizer = [row.get("tokens") for row in base] == [row.get("tokens") for row in other]
    names = [name for name, measure in measures.items() if measure.kind == "tested"]
    return names if one_tokenizer else ["loss_per_byte" if name == "loss" else name for name in names]


def align_predictions(base: list[Prediction], other: list[Prediction], names: tuple[str, str]) -> list[Prediction]:
    """The rows of `other` in the order of `base`'s; DataError, by the names of the two, unless they are the same test rows."""
    for rows, name in ((base, names[0]), (other, names[1])):
        twice = [id for id, count in Counter(row.get("id") for row in rows).items() if count > 1]
        if twice:
            raise DataError(f"{name} answered test rows more than once: id {_some(twice)}. {AGAIN}")
        lacking = [row.get("id") for row in rows if not str(row.get("reference") or "").strip()]
        if lacking:
            raise DataError(f"{name}: test rows without a reference to compare with: id {_some(lacking)}. {AGAIN}")
    by_id = {row.get("id"): row for row in other}
    ids = {row.get("id") for row in base}
    there, here = ids - set(by_id), set(by_id) - ids
    if there or here:
        only = [
            f"{len(alone):,} by {name} alone (id {_some(sorted(alone, key=str))})"
            for alone, name in ((there, names[0]), (here, names[1]))
            if alone
        ]
        raise DataError(
            f"{names[0]} answered {len(base):,} test rows and {names[1]} {len(other):,}, and they are not the same rows: "
            f"{', '.join(only)}. {AGAIN}"
        )
    for row in base:
        differing = [name for name in FACTS if row.get(name) != by_id[row.get("id")].get(name)]
        if differing:
            raise DataError(
                f"{names[0]} and {names[1]} are not the same rows: test row {row.get('id')} has another {differing[0]} in each. "
                + AGAIN
            )
    return [by_id[row.get("id")] for row in base]


def _some(ids: list[Any]) -> str:
    return ", ".join(str(id) for id in ids[:SHOWN]) + (", …" if len(ids) > SHOWN else "")


def require_metrics_version(metrics: dict[str, Any], name: str) -> None:
    """DataError unless the metrics of evaluate, of that name, were computed as this code computes them."""
    found = metrics.get("version", 1)
    if found != VERSION:
        raise DataError(
            f"{name} was measured by version {found} of the metrics, and this is version {VERSION}: the same answers would get "
            "other figures. Evaluate it anew: dvc repro -f evaluate"
        )


def verdict_sentence(comparison: Comparison, base: str = "the base model", other: str = "the fine-tuned model") -> str:
    """The verdict of all measures together, in words."""
    found, tests = Counter(comparison.measures[name].verdict for name in comparison.family), len(comparison.family)
    several, only = tests > 1, comparison.measures[comparison.family[0]].measure.title.lower()
    words = {
        BETTER: f"{other} is better than {base}"
        + (f": by {found[BETTER]} of {tests} metrics, worse by none" if several else f" by {only}"),
        WORSE: f"{other} is worse than {base}"
        + (f": by {found[WORSE]} of {tests} metrics, better by none" if several else f" by {only}"),
        MIXED: f"{other} is better than {base} by {found[BETTER]} of {tests} metrics, and worse by {found[WORSE]}",
        WITHIN_NOISE: f"{other} and {base} differ within noise, by "
        + (f"each of {tests} metrics" if several else only),
        TOO_FEW: f"too few test rows to tell {other} from {base}: {comparison.rows}, at least {min_rows(tests)} are needed",
    }[comparison.verdict]
    return words[0].upper() + words[1:] + "."


def method_note(comparison: Comparison) -> str:
    """What the verdict rests on, in words."""
    tests = len(comparison.family)
    exact = " (exact match: McNemar's exact test)" if "exact_match" in comparison.family else ""
    level = f"Holm-corrected to 5% over {tests} metrics together" if tests > 1 else "at 5%"
    return (
        f"{comparison.rows:,} test rows; approximate randomisation{exact}, {level}; 95% intervals by bootstrap; "
        f"{comparison.resamples:,} resamples, seed {comparison.seed}."
    )
