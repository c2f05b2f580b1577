"""What is measured of a model's predictions, as sums over the examples.

Every measure is a function of sums of per-example statistics: a mean of (value, 1), the loss of (nats, tokens), BLEU
and chrF of sacrebleu's counts. So what resampling.py needs, the measure of ten thousand other draws of the test rows, is
one matrix product. A measure's statistics are (rows, k) in float64, and its value takes sums (…, k) to (…).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from sacrebleu.metrics import BLEU, CHRF

from pipeline.errors import DataError
from pipeline.scoring.answer_scores import ROUGE_SIGNATURE

# Raised whenever the same answers would get other figures: then predictions and metrics of before compare with no later.
VERSION = 2

_bleu, _chrf = BLEU(force=True), CHRF()  # force: no warning about answers that end in " ."
ORDERS = 4  # of BLEU's n-grams
LARGEST = 709.0  # exp of more overflows
FINISHED = {"stop": 1.0, "length": 0.0}
Prediction = dict[str, Any]
Array = np.ndarray


@dataclass(frozen=True)
class Metric:
    name: str
    statistics: Callable[[list[Prediction]], Array]
    """(rows, k); DataError where a row lacks what is measured"""
    value: Callable[[Array], Array]
    """sums (…, k) → (…)"""
    higher_is_better: bool | None
    """None: neither"""
    kind: Literal["tested", "derived", "descriptive"]
    """tested: it says how good the answers are, and is of the family that p-values are corrected for. derived: it says
    what a tested one says, on another scale. descriptive: it says what the answers are like"""
    title: str
    meaning: str
    fields: tuple[str, ...]
    """what a prediction must have for it"""
    single: Callable[[Array], Array] | None = None
    """in the place of value, for one example: BLEU's effective order"""

    def each(self, statistics: Array) -> Array:
        """The value of every example by itself: (rows, k) → (rows,)."""
        return (self.single or self.value)(statistics)


def numeric_column(rows: list[Prediction], name: str) -> Array:
    """One number a row, (rows,); DataError if a row has none, or none that is finite."""
    values = np.array([_number(row.get(name)) for row in rows])
    if not np.isfinite(values).all():
        row = rows[int(np.argmin(np.isfinite(values)))]
        found = repr(row[name]) if name in row else "missing"
        raise DataError(
            f"the prediction of test row {row.get('id')}: {name} is {found}; expected a number. "
            "Evaluate the model anew: dvc repro -f evaluate"
        )
    return values


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else np.nan


def _texts(rows: list[Prediction]) -> tuple[list[str], list[str]]:
    """(predictions, references)"""
    for row in rows:
        lacking = [name for name in ("prediction", "reference") if not isinstance(row.get(name), str)]
        if lacking:
            raise DataError(
                f"the prediction of test row {row.get('id')} has no {' and no '.join(lacking)}. "
                "Evaluate the model anew: dvc repro -f evaluate"
            )
    return [row["prediction"] for row in rows], [row["reference"] for row in rows]


def _bleu_statistics(rows: list[Prediction]) -> Array:
    """(rows, 10): answer's length, reference's length, n-grams right of 1 to 4 words, n-grams of 1 to 4 words"""
    predictions, references = _texts(rows)
    return np.array(_bleu._extract_corpus_statistics(predictions, [references]), dtype=np.float64)


def _bleu_value(sums: Array, effective_order: bool = False) -> Array:
    """BLEU.compute_bleu with exp smoothing, over any number of axes."""
    length, expected = sums[..., 0], sums[..., 1]
    right, grams = sums[..., 2 : 2 + ORDERS], sums[..., 2 + ORDERS :]
    there = grams > 0
    halvings = np.cumsum(there & (right == 0), axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precisions = 100 * np.where(right > 0, right, 0.5**halvings) / np.where(there, grams, 1)
        brevity = np.where(length < expected, np.exp(1 - expected / length), 1.0)
        logs = np.where(there, np.log(precisions), 0.0 if effective_order else -np.inf)
        mean = logs.sum(axis=-1) / (np.maximum(there.sum(axis=-1), 1) if effective_order else ORDERS)
    return np.where((right > 0).any(axis=-1), brevity * np.exp(mean), 0.0)


def _chrf_statistics(rows: list[Prediction]) -> Array:
    """(rows, 18): for 1 to 6 characters the answer's n-grams, the reference's, and those that match"""
    predictions, references = _texts(rows)
    return np.array(_chrf._extract_corpus_statistics(predictions, [references]), dtype=np.float64)


def _chrf_value(sums: Array) -> Array:
    """CHRF's F-score (beta 2, effective order), over any number of axes."""
    answer, reference, right = (sums[..., i::3] for i in range(3))
    there = (answer > 0) & (reference > 0)
    orders = np.maximum(there.sum(axis=-1), 1)
    precision = (right / np.where(there, answer, 1) * there).sum(axis=-1) / orders
    recall = (right / np.where(there, reference, 1) * there).sum(axis=-1) / orders
    below = _chrf.beta**2 * precision + recall
    return 100 * (1 + _chrf.beta**2) * precision * recall / np.where(below > 0, below, 1)


def ratio(sums: Array) -> Array:
    return sums[..., 0] / sums[..., 1]


def exp_ratio(sums: Array) -> Array:
    return np.exp(np.minimum(ratio(sums), LARGEST))


def _mean_of(name: str) -> Callable[[list[Prediction]], Array]:
    return lambda rows: np.stack([numeric_column(rows, name), np.ones(len(rows))], axis=1)


def _finished(rows: list[Prediction]) -> Array:
    told = [{**row, "finished": FINISHED.get(row.get("finish_reason"))} for row in rows]
    return _mean_of("finished")(told)


def _nats_over(unit: str) -> Callable[[list[Prediction]], Array]:
    return lambda rows: np.stack(
        [numeric_column(rows, "loss") * numeric_column(rows, "tokens"), numeric_column(rows, unit)], axis=1
    )


def _mean(name: str, title: str, meaning: str, kind: str = "tested", higher_is_better: bool | None = True) -> Metric:
    return Metric(name, _mean_of(name), ratio, higher_is_better, kind, title, meaning, (name,))  # type: ignore[arg-type]


def _likelihood(name: str, unit: str, value: Callable[[Array], Array], kind: str, title: str, meaning: str) -> Metric:
    fields = ("loss", "tokens", unit)
    return Metric(name, _nats_over(unit), value, False, kind, title, meaning, fields)  # type: ignore[arg-type]


TEXTS = ("prediction", "reference")
ALL_METRICS: dict[str, Metric] = {
    measure.name: measure
    for measure in (
        _mean("exact_match", "Exact match", "share of answers equal to the reference, as SQuAD v1.1 compares"),
        _mean("f1", "Token F1", "words shared with the reference, SQuAD v1.1"),
        Metric(
            *("bleu", _bleu_statistics, _bleu_value, True, "tested"),
            *("BLEU", "n-grams of words shared over the whole test set, 0 to 100", TEXTS),
            lambda sums: _bleu_value(sums, effective_order=True),
        ),
        Metric(
            *("chrf", _chrf_statistics, _chrf_value, True, "tested"),
            *("chrF", "n-grams of characters shared over the whole test set, 0 to 100", TEXTS),
        ),
        _mean("rouge1", "ROUGE-1", "words shared, stemmed, F-measure"),
        _mean("rouge2", "ROUGE-2", "pairs of words shared, stemmed, F-measure"),
        _mean("rougeL", "ROUGE-L", "longest common subsequence, stemmed, F-measure"),
        _mean("rougeLsum", "ROUGE-Lsum", "the same line by line", "derived"),
        _mean("semantic", "Semantic similarity", "cosine of the embeddings of answer and reference"),
        _likelihood("loss", "tokens", ratio, "tested", "Held-out loss", "nats a token of the reference answers"),
        _likelihood("perplexity", "tokens", exp_ratio, "derived", "Perplexity", "exp of the held-out loss"),
        _likelihood(
            *("loss_per_byte", "bytes", ratio, "derived"),
            *("Loss per byte", "nats a byte of the reference answers; comparable whatever the tokenizer"),
        ),
        _likelihood(
            *("perplexity_per_byte", "bytes", exp_ratio, "derived", "Perplexity per byte", "exp of the loss per byte")
        ),
        _mean("new_tokens", "Answer length", "tokens, mean", "descriptive", None),
        Metric(
            *("finished", _finished, ratio, True, "descriptive"),
            *("Finished", "share of answers that the model itself ended", ("finish_reason",)),
        ),
        _mean("distinct_1", "Distinct words", "share of an answer's words that are new in it", "descriptive", None),
        _mean("distinct_2", "Distinct pairs", "share of its pairs of words that are new in it", "descriptive", None),
        _mean("looping", "Looping", "share of answers that end in a phrase three times over", "descriptive", False),
    )
}


def metrics_of(rows: list[Prediction]) -> dict[str, Metric]:
    """Those of MEASURES that these predictions have; of plain text, which is not asked, the loss alone.

    DataError if there are no rows.
    """
    if not rows:
        raise DataError(
            "there are no predictions; evaluate at least one test row: evaluate.limit, format.test_fraction"
        )
    there = {name for row in rows for name in row}
    return {name: measure for name, measure in ALL_METRICS.items() if there.issuperset(measure.fields)}


def summarize_predictions(rows: list[Prediction]) -> dict[str, Any]:
    """Each measure of the predictions, with what they were computed by."""
    measures = metrics_of(rows)
    values = {name: float(measure.value(measure.statistics(rows).sum(axis=0))) for name, measure in measures.items()}
    if "bleu" not in measures:
        return {"version": VERSION, **values}
    signature = {"bleu": str(_bleu.get_signature()), "chrf": str(_chrf.get_signature()), "rouge": ROUGE_SIGNATURE}
    return {"version": VERSION, **values, "signature": signature}
