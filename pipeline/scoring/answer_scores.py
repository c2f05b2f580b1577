"""Scores of one generated answer against its reference answer, and of how repetitive it is.

Exact match and F1 are those of SQuAD v1.1 (Rajpurkar et al. 2016, evaluate-v1.1.py): lower case, without punctuation and
articles. BLEU and chrF are sacrebleu's, from 0 to 100; BLEU of a single answer uses effective order, as sacrebleu
recommends: it stops at the longest n-gram that the answer has. ROUGE is rouge-score's F-measure with stemming. All but
BLEU and chrF are fractions from 0 to 1. Metrics of all answers together are in metrics.py.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version

from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

ROUGE_TYPES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
ROUGE_SIGNATURE = f"fmeasure|stemmer:yes|tokenizer:default|version:{version('rouge-score')}"
_rouge = RougeScorer(list(ROUGE_TYPES), use_stemmer=True)
_bleu, _chrf = BLEU(effective_order=True), CHRF()


def normalize_answer(answer: str) -> str:
    """SQuAD's normalization: lower case, no ASCII punctuation, no English articles, single spaces.

    >>> normalize_answer("The  flu, an infection!")
    'flu infection'
    """
    unpunctuated = "".join(char for char in answer.lower() if char not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", unpunctuated).split())


def exact_match(prediction: str, reference: str) -> float:
    return float(normalize_answer(prediction) == normalize_answer(reference))


def f1(prediction: str, reference: str) -> float:
    """The harmonic mean of token precision and recall; 0 if no token is shared, also for two empty texts."""
    predicted, expected = normalize_answer(prediction).split(), normalize_answer(reference).split()
    shared = (Counter(predicted) & Counter(expected)).total()
    if shared == 0:
        return 0.0
    precision, recall = shared / len(predicted), shared / len(expected)
    return 2 * precision * recall / (precision + recall)


def distinct_n(answer: str, n: int) -> float:
    """The number of distinct word n-grams of an answer divided by the number of all (distinct-n, Li et al. 2016,
    arXiv:1510.03055); 1 for an answer without n-grams, which repeats nothing.

    >>> distinct_n("rest and rest and rest", 1), distinct_n("rest and rest and rest", 2), distinct_n("", 1)
    (0.4, 0.5, 1.0)
    """
    words = answer.split()
    ngrams = list(zip(*(words[i:] for i in range(n)), strict=False))
    return len(set(ngrams)) / len(ngrams) if ngrams else 1.0


def is_looping(tokens: Sequence[object]) -> bool:
    """Whether an answer ends in a phrase of at least two tokens repeated three times (Holtzman et al. 2020,
    arXiv:1904.09751).

    >>> is_looping("so drink some water and rest and rest and rest".split()), is_looping("very very well".split())
    (True, False)
    """
    return any(
        tokens[-size:] == tokens[-2 * size : -size] == tokens[-3 * size : -2 * size]
        for size in range(2, len(tokens) // 3 + 1)
    )


def score_answer(prediction: str, reference: str) -> dict[str, float]:
    """All scores of one answer, by metric name."""
    rouge = _rouge.score(reference, prediction)
    return {
        "exact_match": exact_match(prediction, reference),
        "f1": f1(prediction, reference),
        "bleu": float(_bleu.sentence_score(prediction, [reference]).score),
        "chrf": float(_chrf.sentence_score(prediction, [reference]).score),
        **{name: float(rouge[name].fmeasure) for name in ROUGE_TYPES},
        "distinct_1": distinct_n(prediction, 1),
        "distinct_2": distinct_n(prediction, 2),
    }
