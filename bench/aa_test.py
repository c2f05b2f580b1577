"""A/A test: how often the verdict calls equal models different, and how often it finds real differences.

    python -m bench.aa_test [--pairs 2000] [--rows 150] [--resamples 2000]

A/A pairs: each of two models answers every question with one of the same 8 candidate answers, drawn at random, so that all
differences are noise. The pairs are tested as `compare` does, over all metrics together, and at most 5% may be called different.
Then differences of known size, in exact match and in a mean, are tested; how many are found is printed beside the theoretical
power of McNemar's exact test and of a test of normal differences.
"""

import argparse
import itertools
import math
import random
from collections.abc import Iterator
from pathlib import Path
from statistics import NormalDist

import numpy as np

from pipeline.compare.verdicts import compare_statistics
from pipeline.scoring.answer_scores import score_answer
from pipeline.scoring.metrics import ALL_METRICS, Prediction, metrics_of
from pipeline.scoring.significance import ALPHA, WITHIN_NOISE, mcnemar, paired_test
from pipeline.synthetic.dialogues import generate_dialogues, read_knowledge

KNOWLEDGE = Path("data/knowledge/conditions.yaml")
REPLACED = (0.0, 0.0, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3)  # share of replaced words in each candidate answer
ONLY_BASE, ONLY_OTHER = 0.05, 0.2  # share of rows that only one model answers correctly
SHIFT = 2.8  # difference of the means, in standard errors: found four times in five


def generate_candidates(rows: int, seed: int) -> list[list[Prediction]]:
    """For each of `rows` questions, one prediction for each rate of REPLACED."""
    rng = random.Random(seed)
    dialogues = generate_dialogues(read_knowledge(KNOWLEDGE), 4 * rows, seed)
    references = list(dict.fromkeys(row["Doctor"] for row in dialogues))[:rows]
    vocabulary = " ".join(references).split()

    def prediction(id: int, reference: str, answer: str) -> Prediction:
        return {
            "id": id,
            "reference": reference,
            "tokens": len(reference.split()) + 1,
            "bytes": len(reference.encode()),
            "prediction": answer,
            "loss": rng.lognormvariate(0, 0.5),
            **score_answer(answer, reference),
        }

    def answer(reference: str, rate: float) -> str:
        return " ".join(rng.choice(vocabulary) if rng.random() < rate else word for word in reference.split())

    candidates = []
    for id, reference in enumerate(references):
        answers = [answer(reference, rate) for rate in REPLACED]
        candidates.append([prediction(id, reference, text) for text in answers])
    return candidates


def count_different(pairs: int, rows: int, resamples: int, seed: int = 0) -> int:
    """How many of the A/A pairs the overall verdict calls different."""
    candidates = generate_candidates(rows, seed)
    tested = [name for name, metric in metrics_of(candidates[0]).items() if metric.kind == "tested"]
    statistics = {
        name: np.stack([ALL_METRICS[name].statistics(predictions) for predictions in candidates]) for name in tested
    }
    generator, row_indices, different = np.random.default_rng(seed), np.arange(len(candidates)), 0
    for pair in range(pairs):
        choices = generator.integers(len(REPLACED), size=(2, len(candidates)))
        base, other = ({name: values[row_indices, choice] for name, values in statistics.items()} for choice in choices)
        different += compare_statistics(base, other, tested, resamples, seed=pair).verdict != WITHIN_NOISE
    return different


def binomial_probabilities(n: int, p: float) -> Iterator[float]:
    """Yield the probabilities of 0 to n successes."""
    for k in range(n + 1):
        yield math.exp(
            math.lgamma(n + 1)
            - math.lgamma(k + 1)
            - math.lgamma(n - k + 1)
            + k * math.log(p)
            + (n - k) * math.log1p(-p)
        )


def upper_bound(successes: int, total: int, confidence: float = 0.99) -> float:
    """The greatest probability with which at most `successes` of `total` are still as likely as 1 - confidence (Clopper and
    Pearson 1934).

    >>> round(upper_bound(0, 100), 4), round(upper_bound(5, 100, 0.975), 4)
    (0.045, 0.1128)
    """
    low, high = successes / total, 1 - 1e-12
    for _ in range(60):
        middle = (low + high) / 2
        at_most = sum(itertools.islice(binomial_probabilities(total, middle or 1e-12), successes + 1))
        low, high = (middle, high) if at_most > 1 - confidence else (low, middle)
    return high


def mcnemar_power(rows: int) -> float:
    """The probability that McNemar's exact test finds the constructed difference."""
    discordant = ONLY_BASE + ONLY_OTHER
    power = 0.0
    for n, probability_n in enumerate(binomial_probabilities(rows, discordant)):
        for gained, probability in enumerate(binomial_probabilities(n, ONLY_OTHER / discordant)):
            p = min(1.0, 2 * sum(math.comb(n, k) for k in range(min(gained, n - gained) + 1)) / 2**n)
            power += probability_n * probability * (p < ALPHA)
    return power


def count_found_by_mcnemar(pairs: int, rows: int, seed: int = 0) -> int:
    """How often McNemar's exact test finds that difference."""
    generator, significant = np.random.default_rng(seed), 0
    for _ in range(pairs):
        draws = generator.random(rows)
        base, other = draws < ONLY_BASE, (draws >= ONLY_BASE) & (draws < ONLY_BASE + ONLY_OTHER)
        significant += mcnemar(base, other) < ALPHA
    return significant


def mean_power() -> float:
    """The power of a two-sided test of normal differences with a mean SHIFT standard errors from 0."""
    normal = NormalDist()
    edge = normal.inv_cdf(1 - ALPHA / 2)
    return normal.cdf(SHIFT - edge) + normal.cdf(-SHIFT - edge)


def count_found_by_randomization(pairs: int, rows: int, resamples: int, seed: int = 0) -> int:
    """How often approximate randomization finds that difference."""
    generator, significant = np.random.default_rng(seed), 0
    for pair in range(pairs):
        base = generator.normal(size=rows)
        other = base + generator.normal(SHIFT / math.sqrt(rows), 1, size=rows)
        statistics = (np.stack([values, np.ones(rows)], axis=1) for values in (base, other))
        significant += paired_test(*statistics, ALL_METRICS["f1"], resamples, seed=pair).p_randomisation < ALPHA
    return significant


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.aa_test", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=2000, help="pairs of models")
    parser.add_argument("--rows", type=int, default=150, help="test rows of a pair")
    parser.add_argument("--resamples", type=int, default=2000)
    args = parser.parse_args(arguments)
    pairs, rows, resamples = args.pairs, args.rows, args.resamples
    print(f"Share of {pairs:,} pairs called different at the 5% level ({rows:,} test rows, {resamples:,} resamples)")
    count = count_different(pairs, rows, resamples)
    print(f"equal models, any metric          {count / pairs:>7.1%}  (99% upper bound {upper_bound(count, pairs):.1%})")
    power = count_found_by_mcnemar(pairs, rows) / pairs
    print(
        f"exact match {ONLY_BASE:.0%} against {ONLY_OTHER:.0%}        {power:>7.1%}  (expected {mcnemar_power(rows):.1%})"
    )
    power = count_found_by_randomization(pairs, rows, resamples) / pairs
    print(f"means {SHIFT} standard errors apart   {power:>7.1%}  (expected {mean_power():.1%})")


if __name__ == "__main__":
    main()
