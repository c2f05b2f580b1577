"""How near an answer comes to its reference, one answer at a time and over all of them.

Exact match and F1 are SQuAD v1.1's (Rajpurkar et al. 2016; its evaluate-v1.1.py): lower case, without punctuation and
articles. BLEU is sacrebleu's, over the corpus, from 0 to 100; ROUGE is rouge-score's F-measure with stemming. All but
BLEU are fractions from 0 to 1.
"""

import re
import string
from collections import Counter
from importlib.metadata import version
from typing import Any

from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU

ROUGE_TYPES = ("rouge1", "rouge2", "rougeL")
ROUGE_SIGNATURE = f"fmeasure|stemmer:yes|tokenizer:default|version:{version('rouge-score')}"
_rouge = RougeScorer(list(ROUGE_TYPES), use_stemmer=True)


def normalised(answer: str) -> str:
    """SQuAD's normal form: lower case, no ASCII punctuation, no English articles, single spaces.

    >>> normalised("The  flu, an infection!")
    'flu infection'
    """
    bare = "".join(char for char in answer.lower() if char not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def exact_match(prediction: str, reference: str) -> float:
    return float(normalised(prediction) == normalised(reference))


def f1(prediction: str, reference: str) -> float:
    """The harmonic mean of token precision and recall; 0 where they share none, so for two empty answers too."""
    predicted, expected = normalised(prediction).split(), normalised(reference).split()
    shared = (Counter(predicted) & Counter(expected)).total()
    if shared == 0:
        return 0.0
    precision, recall = shared / len(predicted), shared / len(expected)
    return 2 * precision * recall / (precision + recall)


def score(prediction: str, reference: str) -> dict[str, float]:
    """The scores of one answer."""
    rouge = _rouge.score(reference, prediction)
    return {
        "exact_match": exact_match(prediction, reference),
        "f1": f1(prediction, reference),
        **{name: rouge[name].fmeasure for name in ROUGE_TYPES},
    }


def bleu(predictions: list[str], references: list[str]) -> tuple[float, str]:
    """(corpus BLEU, its signature)."""
    metric = BLEU()
    result = metric.corpus_score(predictions, [references])
    return result.score, str(metric.get_signature())


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The means of the rows' scores, and corpus BLEU, with what they were computed by."""
    corpus, signature = bleu([row["prediction"] for row in rows], [row["reference"] for row in rows])

    def mean(name: str) -> float:
        return sum(row[name] for row in rows) / len(rows)

    return {
        "exact_match": mean("exact_match"),
        "f1": mean("f1"),
        "bleu": corpus,
        **{name: mean(name) for name in ROUGE_TYPES},
        "new_tokens": mean("new_tokens"),
        "finished": sum(row["finish_reason"] == "stop" for row in rows) / len(rows),
        "signature": {"bleu": signature, "rouge": ROUGE_SIGNATURE},
    }
