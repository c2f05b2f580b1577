"""How near one answer comes to its reference, and whether it repeats itself.

Exact match and F1 are SQuAD v1.1's (Rajpurkar et al. 2016; its evaluate-v1.1.py): lower case, without punctuation and
articles. BLEU and chrF are sacrebleu's, from 0 to 100; of one answer, BLEU stops at the longest n-gram that it has
(effective order), as sacrebleu advises. ROUGE is rouge-score's F-measure with stemming. All but BLEU and chrF are
fractions from 0 to 1. What holds for all answers together is in measures.py.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version

from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF

ROUGE_TYPES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
ROUGE_SIGNATURE = f"fmeasure|stemmer:yes|tokenizer:default|version:{version('rouge-score')}"
_rouge = RougeScorer(list(ROUGE_TYPES), use_stemmer=True)
_bleu, _chrf = BLEU(effective_order=True), CHRF()


def normalize_answer(answer: str) -> str:
    """SQuAD's normal form: lower case, no ASCII punctuation, no English articles, single spaces.

    >>> normalize_answer("The  flu, an infection!")
    'flu infection'
    """
    bare = "".join(char for char in answer.lower() if char not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def exact_match(prediction: str, reference: str) -> float:
    return float(normalize_answer(prediction) == normalize_answer(reference))


def f1(prediction: str, reference: str) -> float:
    """The harmonic mean of token precision and recall; 0 where they share none, so for two empty answers too."""
    predicted, expected = normalize_answer(prediction).split(), normalize_answer(reference).split()
    shared = (Counter(predicted) & Counter(expected)).total()
    if shared == 0:
        return 0.0
    precision, recall = shared / len(predicted), shared / len(expected)
    return 2 * precision * recall / (precision + recall)


def distinct_n(answer: str, n: int) -> float:
    """The share of an answer's n-grams of words that differ from all before (distinct-n, Li et al. 2016,
    arXiv:1510.03055); 1 for an answer too short to have one, which repeats nothing.

    >>> distinct_n("rest and rest and rest", 1), distinct_n("rest and rest and rest", 2), distinct_n("", 1)
    (0.4, 0.5, 1.0)
    """
    words = answer.split()
    grams = list(zip(*(words[i:] for i in range(n)), strict=False))
    return len(set(grams)) / len(grams) if grams else 1.0


def is_looping(tokens: Sequence[object]) -> bool:
    """Whether an answer ends in a phrase of at least two tokens, three times over (Holtzman et al. 2020, arXiv:1904.09751).

    >>> is_looping("so drink some water and rest and rest and rest".split()), is_looping("very very well".split())
    (True, False)
    """
    return any(
        tokens[-size:] == tokens[-2 * size : -size] == tokens[-3 * size : -2 * size]
        for size in range(2, len(tokens) // 3 + 1)
    )


def score_answer(prediction: str, reference: str) -> dict[str, float]:
    """The scores of one answer."""
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
