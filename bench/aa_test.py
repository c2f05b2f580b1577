"""Whether a verdict can be trusted: how often equal models are called different, and real differences are found.

    python -m bench.aa_test [--pairs 2000] [--rows 150] [--resamples 2000]

A/A pairs: each of two models answers each question by one of the same 8 answers, drawn by chance, so whatever differs
is noise. They are judged as `compare` judges, over all its metrics together, and at most 5% may be called different.
Then differences of known size, as exact match and as a mean, against the power that theory gives McNemar's exact test
and a test of normal differences.
"""

import argparse
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
CANDIDATES = 8  # answers to each question, from equal to the reference to a third of its words replaced
RATES = (0.0, 0.0, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3)
ONLY_BASE, ONLY_OTHER = 0.05, 0.2  # of the rows, right by one model alone
SHIFT = 2.8  # of a mean, in standard errors: found four times in five


def answers(rows: int, seed: int) -> list[list[Prediction]]:
    """CANDIDATES predictions for each of so many questions."""
    chance = random.Random(seed)
    references = list(
        dict.fromkeys(row["Doctor"] for row in generate_dialogues(read_knowledge(KNOWLEDGE), 4 * rows, seed))
    )[:rows]
    vocabulary = " ".join(references).split()
    found = []
    for id, reference in enumerate(references):
        texts = [
            " ".join(chance.choice(vocabulary) if chance.random() < rate else word for word in reference.split())
            for rate in RATES
        ]
        about = {
            "id": id,
            "reference": reference,
            "tokens": len(reference.split()) + 1,
            "bytes": len(reference.encode()),
        }
        found.append(
            [
                {**about, "prediction": text, "loss": chance.lognormvariate(0, 0.5), **score_answer(text, reference)}
                for text in texts
            ]
        )
    return found


def different(pairs: int, rows: int, resamples: int, seed: int = 0) -> int:
    """How many of the A/A pairs the overall verdict calls different."""
    candidates = answers(rows, seed)
    tested = [name for name, measure in metrics_of(candidates[0]).items() if measure.kind == "tested"]
    statistics = {name: np.stack([ALL_METRICS[name].statistics(each) for each in candidates]) for name in tested}
    generator, places, found = np.random.default_rng(seed), np.arange(len(candidates)), 0
    for pair in range(pairs):
        drawn = generator.integers(CANDIDATES, size=(2, len(candidates)))
        base, other = ({name: each[places, choice] for name, each in statistics.items()} for choice in drawn)
        found += compare_statistics(base, other, tested, resamples, seed=pair).verdict != WITHIN_NOISE
    return found


def binomial(n: int, p: float) -> Iterator[float]:
    """The probabilities of 0 to n."""
    for k in range(n + 1):
        yield math.exp(
            math.lgamma(n + 1)
            - math.lgamma(k + 1)
            - math.lgamma(n - k + 1)
            + k * math.log(p)
            + (n - k) * math.log1p(-p)
        )


def upper_bound(found: int, of: int, confidence: float = 0.99) -> float:
    """The greatest probability by which no more than `found` would be at least as likely as 1 - confidence (Clopper and
    Pearson 1934).

    >>> round(upper_bound(0, 100), 4), round(upper_bound(5, 100, 0.975), 4)
    (0.045, 0.1128)
    """
    low, high = found / of, 1 - 1e-12
    for _ in range(60):
        middle = (low + high) / 2
        at_most = sum(each for each, _ in zip(binomial(of, middle or 1e-12), range(found + 1), strict=False))
        low, high = (middle, high) if at_most > 1 - confidence else (low, middle)
    return high


def mcnemar_power(rows: int) -> float:
    """The probability that McNemar's exact test finds the made difference."""
    discordant = ONLY_BASE + ONLY_OTHER
    power = 0.0
    for n, of_n in enumerate(binomial(rows, discordant)):
        for gained, probability in enumerate(binomial(n, ONLY_OTHER / discordant)):
            p = min(1.0, 2 * sum(math.comb(n, k) for k in range(min(gained, n - gained) + 1)) / 2**n)
            power += of_n * probability * (p < ALPHA)
    return power


def mcnemar_found(pairs: int, rows: int, seed: int = 0) -> int:
    generator, found = np.random.default_rng(seed), 0
    for _ in range(pairs):
        drawn = generator.random(rows)
        base, other = drawn < ONLY_BASE, (drawn >= ONLY_BASE) & (drawn < ONLY_BASE + ONLY_OTHER)
        found += mcnemar(base, other) < ALPHA
    return found


def mean_power() -> float:
    """The power of a two-sided test of normal differences whose mean is SHIFT standard errors from 0."""
    normal = NormalDist()
    edge = normal.inv_cdf(1 - ALPHA / 2)
    return normal.cdf(SHIFT - edge) + normal.cdf(-SHIFT - edge)


def mean_found(pairs: int, rows: int, resamples: int, seed: int = 0) -> int:
    """How often approximate randomisation finds that mean."""
    generator, found = np.random.default_rng(seed), 0
    for pair in range(pairs):
        base = generator.normal(size=rows)
        other = base + generator.normal(SHIFT / math.sqrt(rows), 1, size=rows)
        statistics = (np.stack([each, np.ones(rows)], axis=1) for each in (base, other))
        found += paired_test(*statistics, ALL_METRICS["f1"], resamples, seed=pair).p_randomisation < ALPHA
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--rows", type=int, default=150)
    parser.add_argument("--resamples", type=int, default=2000)
    given = parser.parse_args(arguments)
    pairs, rows, resamples = given.pairs, given.rows, given.resamples
    print(f"{pairs:,} pairs of {rows:,} test rows, {resamples:,} resamples; called different at 5%:")
    found = different(pairs, rows, resamples)
    print(f"equal models, over all metrics    {found / pairs:>7.1%}   99% upper bound {upper_bound(found, pairs):.1%}")
    found = mcnemar_found(pairs, rows)
    print(
        f"exact match {ONLY_BASE:.0%} / {ONLY_OTHER:.0%}              {found / pairs:>7.1%}   theory {mcnemar_power(rows):.1%}"
    )
    found = mean_found(pairs, rows, resamples)
    print(f"mean {SHIFT} standard errors apart    {found / pairs:>7.1%}   theory {mean_power():.1%}")


if __name__ == "__main__":
    main()
