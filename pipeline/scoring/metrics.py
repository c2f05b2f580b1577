"""Metrics of a model's predictions, as functions of sums over the rows.

Each metric is computed from sums of per-row statistics: a mean from (value, 1), the held-out loss from (nats, tokens), BLEU
and chrF from sacrebleu's counts. So the metric of ten thousand resamples, which significance.py needs, is one matrix
product. A metric's statistics are a float64 array (rows, k), and its value maps sums (…, k) to (…).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from pipeline.errors import DataError
from pipeline.scoring.answer_scores import ROUGE_SIGNATURE

# Raise it with every change that gives the same answers other values: compare rejects metrics of another version.
VERSION = 2

Array = NDArray[np.float64]
Prediction = dict[str, Any]
"""one line of data/predictions/*.jsonl, described in pipeline/evaluate/stage.py"""
MetricKind = Literal["tested", "derived", "descriptive"]
"""tested: rates the answers; its p-value is corrected for all tested metrics together. derived: a tested metric on another
scale. descriptive: describes the answers without rating them"""

_bleu, _chrf = BLEU(force=True), CHRF()  # force: no warning about answers that end in " ."
MAX_NGRAM_ORDER = 4  # of BLEU
MAX_EXPONENT = 709.0  # exp of a larger one overflows
FINISHED = {"stop": 1.0, "length": 0.0}  # by finish_reason


@dataclass(frozen=True)
class Metric:
    name: str
    statistics: Callable[[list[Prediction]], Array]
    """the rows' statistics, (rows, k); raises DataError if a row lacks a field or holds an invalid value"""
    value: Callable[[Array], Array]
    """sums (…, k) → (…)"""
    higher_is_better: bool | None
    """None: neither direction is better"""
    kind: MetricKind
    title: str
    meaning: str
    fields: tuple[str, ...]
    """the fields of a prediction that the metric needs"""
    row_value: Callable[[Array], Array] | None = None
    """replaces value for single rows: BLEU with effective order"""

    def row_values(self, statistics: Array) -> Array:
        """The metric of each row alone: (rows, k) → (rows,)."""
        return (self.row_value or self.value)(statistics)


def numeric_column(rows: list[Prediction], name: str) -> Array:
    """The numbers in one field of the rows: (rows,). Raises DataError if one is missing or not finite."""
    values = np.array([_number(row.get(name)) for row in rows])
    if not np.isfinite(values).all():
        row = rows[int(np.argmin(np.isfinite(values)))]
        invalid = repr(row[name]) if name in row else "missing"
        raise DataError(
            f"the prediction of test row {row.get('id')}: {name} is {invalid}; expected a number. "
            "Evaluate the model again: dvc repro -s -f evaluate"
        )
    return values


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else np.nan


def _texts(rows: list[Prediction]) -> tuple[list[str], list[str]]:
    """(answers, reference answers)"""
    for row in rows:
        missing = [name for name in TEXTS if not isinstance(row.get(name), str)]
        if missing:
            raise DataError(
                f"the prediction of test row {row.get('id')} has no {' and no '.join(missing)}. "
                "Evaluate the model again: dvc repro -s -f evaluate"
            )
    return [row["prediction"] for row in rows], [row["reference"] for row in rows]


def _bleu_statistics(rows: list[Prediction]) -> Array:
    """(rows, 10): answer length, reference length, matching n-grams of 1 to 4 words, the answer's n-grams of 1 to 4 words"""
    answers, references = _texts(rows)
    return np.array(_bleu._extract_corpus_statistics(answers, [references]), dtype=np.float64)


def _bleu_value(sums: Array, effective_order: bool = False) -> Array:
    """sacrebleu's BLEU.compute_bleu with exp smoothing, vectorized over the leading axes."""
    length, reference_length = sums[..., 0], sums[..., 1]
    matches, totals = sums[..., 2 : 2 + MAX_NGRAM_ORDER], sums[..., 2 + MAX_NGRAM_ORDER :]
    has_ngrams = totals > 0
    halvings = np.cumsum(has_ngrams & (matches == 0), axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precisions = 100 * np.where(matches > 0, matches, 0.5**halvings) / np.where(has_ngrams, totals, 1)
        brevity_penalty = np.where(length < reference_length, np.exp(1 - reference_length / length), 1.0)
        logs = np.where(has_ngrams, np.log(precisions), 0.0 if effective_order else -np.inf)
        mean = logs.sum(axis=-1) / (np.maximum(has_ngrams.sum(axis=-1), 1) if effective_order else MAX_NGRAM_ORDER)
    return np.where((matches > 0).any(axis=-1), brevity_penalty * np.exp(mean), 0.0)


def _chrf_statistics(rows: list[Prediction]) -> Array:
    """(rows, 18): for each order from 1 to 6 characters, the answer's n-grams, the reference's, and the matching ones"""
    answers, references = _texts(rows)
    return np.array(_chrf._extract_corpus_statistics(answers, [references]), dtype=np.float64)


def _chrf_value(sums: Array) -> Array:
    """sacrebleu's CHRF._compute_f_score (beta 2, effective order), vectorized over the leading axes."""
    answer, reference, matches = (sums[..., i::3] for i in range(3))
    has_ngrams = (answer > 0) & (reference > 0)
    orders = np.maximum(has_ngrams.sum(axis=-1), 1)
    precision = (matches / np.where(has_ngrams, answer, 1) * has_ngrams).sum(axis=-1) / orders
    recall = (matches / np.where(has_ngrams, reference, 1) * has_ngrams).sum(axis=-1) / orders
    denominator = _chrf.beta**2 * precision + recall
    f_score: Array = 100 * (1 + _chrf.beta**2) * precision * recall / np.where(denominator > 0, denominator, 1)
    return f_score


def ratio(sums: Array) -> Array:
    quotients: Array = sums[..., 0] / sums[..., 1]
    return quotients


def exp_ratio(sums: Array) -> Array:
    exponentials: Array = np.exp(np.minimum(ratio(sums), MAX_EXPONENT))
    return exponentials


def _mean_statistics(name: str) -> Callable[[list[Prediction]], Array]:
    return lambda rows: np.stack([numeric_column(rows, name), np.ones(len(rows))], axis=1)


def _finished_statistics(rows: list[Prediction]) -> Array:
    finished = [{**row, "finished": FINISHED.get(str(row.get("finish_reason")))} for row in rows]
    return _mean_statistics("finished")(finished)


def _loss_statistics(unit: str) -> Callable[[list[Prediction]], Array]:
    """unit: the field to divide the summed nats by, tokens or bytes"""
    return lambda rows: np.stack(
        [numeric_column(rows, "loss") * numeric_column(rows, "tokens"), numeric_column(rows, unit)], axis=1
    )


def _mean(
    name: str, title: str, meaning: str, kind: MetricKind = "tested", higher_is_better: bool | None = True
) -> Metric:
    return Metric(name, _mean_statistics(name), ratio, higher_is_better, kind, title, meaning, (name,))


def _loss(name: str, unit: str, value: Callable[[Array], Array], kind: MetricKind, title: str, meaning: str) -> Metric:
    return Metric(name, _loss_statistics(unit), value, False, kind, title, meaning, ("loss", "tokens", unit))


TEXTS = ("prediction", "reference")
ALL_METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        _mean(
            "exact_match", "Exact match", "share of answers equal to the reference answer, normalized as in SQuAD v1.1"
        ),
        _mean("f1", "Token F1", "words shared with the reference answer, as in SQuAD v1.1"),
        Metric(
            *("bleu", _bleu_statistics, _bleu_value, True, "tested", "BLEU"),
            "word n-grams shared with the reference answers over the whole test set, 0 to 100",
            TEXTS,
            row_value=lambda statistics: _bleu_value(statistics, effective_order=True),
        ),
        Metric(
            *("chrf", _chrf_statistics, _chrf_value, True, "tested", "chrF"),
            "character n-grams shared with the reference answers over the whole test set, 0 to 100",
            TEXTS,
        ),
        _mean("rouge1", "ROUGE-1", "words shared with the reference answer, stemmed, F-measure"),
        _mean("rouge2", "ROUGE-2", "word pairs shared with the reference answer, stemmed, F-measure"),
        _mean("rougeL", "ROUGE-L", "longest common subsequence of words, stemmed, F-measure"),
        _mean("rougeLsum", "ROUGE-Lsum", "ROUGE-L computed line by line", "derived"),
        _mean("semantic", "Semantic similarity", "cosine similarity of the embeddings of answer and reference answer"),
        _loss("loss", "tokens", ratio, "tested", "Held-out loss", "nats per token of the reference answers"),
        _loss("perplexity", "tokens", exp_ratio, "derived", "Perplexity", "exp of the held-out loss"),
        _loss(
            *("loss_per_byte", "bytes", ratio, "derived", "Loss per byte"),
            "nats per byte of the reference answers, comparable across tokenizers",
        ),
        _loss("perplexity_per_byte", "bytes", exp_ratio, "derived", "Perplexity per byte", "exp of the loss per byte"),
        _mean("new_tokens", "Answer length", "mean number of tokens", "descriptive", None),
        Metric(
            *("finished", _finished_statistics, ratio, True, "descriptive", "Finished"),
            "share of answers that end with the end-of-text token",
            ("finish_reason",),
        ),
        _mean("distinct_1", "Distinct words", "distinct words as a share of an answer's words", "descriptive", None),
        _mean(
            "distinct_2",
            "Distinct word pairs",
            "distinct word pairs as a share of an answer's word pairs",
            "descriptive",
            None,
        ),
        _mean("looping", "Looping", "share of answers that end in a phrase repeated three times", "descriptive", False),
    )
}


def metrics_of(rows: list[Prediction]) -> dict[str, Metric]:
    """The metrics that can be computed from these predictions, by name. Plain text has no answers, only the losses.

    Raises DataError if there are no rows.
    """
    if not rows:
        raise DataError(
            "there are no predictions; evaluate at least one test row: evaluate.limit, format.test_fraction"
        )
    fields = {name for row in rows for name in row}
    return {name: metric for name, metric in ALL_METRICS.items() if fields.issuperset(metric.fields)}


def summarize_predictions(rows: list[Prediction]) -> dict[str, Any]:
    """The metrics of all predictions together, with the version of this module and the signatures of the libraries."""
    metrics = metrics_of(rows)
    values = {name: float(metric.value(metric.statistics(rows).sum(axis=0))) for name, metric in metrics.items()}
    if "bleu" not in metrics:
        return {"version": VERSION, **values}
    signature = {"bleu": str(_bleu.get_signature()), "chrf": str(_chrf.get_signature()), "rouge": ROUGE_SIGNATURE}
    return {"version": VERSION, **values, "signature": signature}
