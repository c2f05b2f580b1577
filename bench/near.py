"""Near-duplicate search: pipeline/format/near_duplicates.py beside MinHash libraries, and what each misses of a comparison of all pairs.

    python -m bench.near [--rows 4000] [--rows-from rows.jsonl --column Doctor]

The texts are answers and edited copies of them (a word in 50 to a word in 5 replaced), so that many pairs lie about the
threshold. A quarter is held out; asked is which of the others are near to one of these: word bigrams, Jaccard
similarity 0.7 or more. Brute force knows the truth. The libraries are no dependency of the project; those that are
installed (pip install datasketch rensa) are measured.
"""

import argparse
import json
import random
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from pipeline.format.near_duplicates import find_near_duplicates
from pipeline.records.text import words
from pipeline.synthetic.dialogues import generate_dialogues, read_knowledge

KNOWLEDGE = Path("data/knowledge/conditions.yaml")
THRESHOLD, MIN_WORDS, PERMUTATIONS, BANDS = 0.7, 8, 128, 16
Search = Callable[[list[str], list[str]], list[bool]]


def answers(rows: int, source: Path | None, column: str) -> list[str]:
    if source is None:
        found = [row[column] for row in generate_dialogues(read_knowledge(KNOWLEDGE), rows, seed=0)]
    else:
        with source.open(encoding="utf-8") as lines:
            found = [json.loads(line)[column] for line, _ in zip(lines, range(rows), strict=False)]
    return [text for text in dict.fromkeys(found) if len(words(text)) >= MIN_WORDS]


def edited(text: str, rate: float, vocabulary: list[str], chance: random.Random) -> str:
    return " ".join(chance.choice(vocabulary) if chance.random() < rate else word for word in words(text))


def sample(originals: list[str], seed: int) -> tuple[list[str], list[str]]:
    """(texts, references): originals and as many edited copies, a quarter of all as references."""
    chance = random.Random(seed)
    vocabulary = sorted({word for text in originals for word in words(text)})
    texts = originals + [edited(text, chance.uniform(0.02, 0.2), vocabulary, chance) for text in originals]
    chance.shuffle(texts)
    return texts[len(texts) // 4 :], texts[: len(texts) // 4]


def pairs(text: str) -> set[str]:
    return {" ".join(pair) for pair in pairwise(words(text))}


def brute_force(texts: list[str], references: list[str]) -> list[bool]:
    held = [pairs(text) for text in references]

    def is_near(one: set[str]) -> bool:
        return any((both := len(one & each)) >= THRESHOLD * (len(one) + len(each) - both) for each in held)

    return [is_near(pairs(text)) for text in texts]


def exact(texts: list[str], references: list[str]) -> list[bool]:
    return find_near_duplicates(texts, references, THRESHOLD, MIN_WORDS)


def with_datasketch(texts: list[str], references: list[str]) -> list[bool]:
    from datasketch import MinHash, MinHashLSH

    def hashed(text: str) -> MinHash:
        found = MinHash(num_perm=PERMUTATIONS)
        found.update_batch([pair.encode() for pair in pairs(text)])
        return found

    return by_minhash(texts, references, hashed, MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS))


def with_rensa(texts: list[str], references: list[str]) -> list[bool]:
    from rensa import RMinHash, RMinHashLSH

    def hashed(text: str) -> RMinHash:
        found = RMinHash(num_perm=PERMUTATIONS, seed=42)
        found.update(list(pairs(text)))
        return found

    index = RMinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS, num_bands=BANDS)
    return by_minhash(texts, references, hashed, index)


def by_minhash(texts: list[str], references: list[str], hashed: Callable[[str], Any], index: Any) -> list[bool]:
    """What an index of a library's MinHashes brings up, and its estimate of the similarity takes for near."""
    held = [hashed(text) for text in references]
    for number, each in enumerate(held):
        index.insert(number, each)

    def is_near(one: Any) -> bool:
        return any(one.jaccard(held[number]) >= THRESHOLD for number in index.query(one))

    return [is_near(hashed(text)) for text in texts]


SEARCHES: dict[str, Search] = {
    "brute force": brute_force,
    "pipeline.near": exact,
    "datasketch": with_datasketch,
    "rensa": with_rensa,
}


def measured(search: Search, texts: list[str], references: list[str]) -> tuple[float, list[bool]]:
    started = time.perf_counter()
    found = search(texts, references)
    return time.perf_counter() - started, found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=4000, help="rows to take answers from")
    parser.add_argument("--rows-from", type=Path, help="JSON Lines; default: generated dialogues")
    parser.add_argument("--column", default="Doctor")
    given = parser.parse_args()
    texts, references = sample(answers(given.rows, given.rows_from, given.column), seed=0)
    print(f"{len(texts):,} texts against {len(references):,} held out, Jaccard {THRESHOLD} of word bigrams")
    print(f"{'':<14}{'seconds':>9}{'near':>8}{'missed':>8}{'wrong':>8}{'recall':>8}")
    truth: list[bool] = []
    for name, search in SEARCHES.items():
        try:
            seconds, found = measured(search, texts, references)
        except ModuleNotFoundError as error:
            print(f"{name:<14}  not installed: pip install {error.name}")
            continue
        truth = truth or found
        missed = sum(is_near and not told for is_near, told in zip(truth, found, strict=True))
        wrong = sum(told and not is_near for is_near, told in zip(truth, found, strict=True))
        recall = 1 - missed / max(1, sum(truth))
        print(f"{name:<14}{seconds:>9.2f}{sum(found):>8,}{missed:>8,}{wrong:>8,}{recall:>8.1%}")


if __name__ == "__main__":
    main()
