"""Near-duplicate search: pipeline/format/near_duplicates.py beside MinHash libraries, with the pairs that each misses.

    python -m bench.near [--rows 4000] [--rows-from rows.jsonl --column Doctor]

The texts are answers and edited copies of them (between a word in 50 and a word in 5 replaced), so that many pairs are close to
the threshold. A quarter of the texts is held out. Each search has to find which of the others are near-duplicates of a held-out
text: word bigrams with a Jaccard similarity of at least 0.7. Brute force gives the truth. The libraries are not dependencies of
the project; the installed ones are measured (pip install datasketch rensa).
"""

import argparse
import itertools
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.format.near_duplicates import find_near_duplicates
from pipeline.records.text import words
from pipeline.synthetic.dialogues import generate_dialogues, read_knowledge

KNOWLEDGE = Path("data/knowledge/conditions.yaml")
THRESHOLD, MIN_WORDS, PERMUTATIONS, BANDS = 0.7, 8, 128, 16
Search = Callable[[list[str], list[str]], list[bool]]


def read_answers(rows: int, source: Path | None, column: str) -> list[str]:
    if source is None:
        texts = [row[column] for row in generate_dialogues(read_knowledge(KNOWLEDGE), rows, seed=0)]
    else:
        with source.open(encoding="utf-8") as lines:
            texts = [json.loads(line)[column] for line in itertools.islice(lines, rows)]
    return [text for text in dict.fromkeys(texts) if len(words(text)) >= MIN_WORDS]


def replace_words(text: str, rate: float, vocabulary: list[str], rng: random.Random) -> str:
    return " ".join(rng.choice(vocabulary) if rng.random() < rate else word for word in words(text))


def sample(originals: list[str], seed: int) -> tuple[list[str], list[str]]:
    """(texts, references): the originals and an edited copy of each, shuffled; a quarter of them are references."""
    rng = random.Random(seed)
    vocabulary = sorted({word for text in originals for word in words(text)})
    texts = originals + [replace_words(text, rng.uniform(0.02, 0.2), vocabulary, rng) for text in originals]
    rng.shuffle(texts)
    return texts[len(texts) // 4 :], texts[: len(texts) // 4]


def bigrams(text: str) -> set[str]:
    return {" ".join(pair) for pair in itertools.pairwise(words(text))}


def brute_force(texts: list[str], references: list[str]) -> list[bool]:
    reference_sets = [bigrams(text) for text in references]

    def is_near(one: set[str]) -> bool:
        return any(
            (shared := len(one & other)) >= THRESHOLD * (len(one) + len(other) - shared) for other in reference_sets
        )

    return [is_near(bigrams(text)) for text in texts]


def pipeline_search(texts: list[str], references: list[str]) -> list[bool]:
    return find_near_duplicates(texts, references, THRESHOLD, MIN_WORDS)


def datasketch_search(texts: list[str], references: list[str]) -> list[bool]:
    from datasketch import MinHash, MinHashLSH

    def minhash(text: str) -> MinHash:
        signature = MinHash(num_perm=PERMUTATIONS)
        signature.update_batch([pair.encode() for pair in bigrams(text)])
        return signature

    return minhash_search(texts, references, minhash, MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS))


def rensa_search(texts: list[str], references: list[str]) -> list[bool]:
    from rensa import RMinHash, RMinHashLSH

    def minhash(text: str) -> RMinHash:
        signature = RMinHash(num_perm=PERMUTATIONS, seed=42)
        signature.update(list(bigrams(text)))
        return signature

    index = RMinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS, num_bands=BANDS)
    return minhash_search(texts, references, minhash, index)


def minhash_search(texts: list[str], references: list[str], minhash: Callable[[str], Any], index: Any) -> list[bool]:
    """The texts for which the index of a library finds a reference with an estimated similarity at or above the threshold."""
    signatures = [minhash(text) for text in references]
    for number, signature in enumerate(signatures):
        index.insert(number, signature)

    def is_near(signature: Any) -> bool:
        return any(signature.jaccard(signatures[number]) >= THRESHOLD for number in index.query(signature))

    return [is_near(minhash(text)) for text in texts]


SEARCHES: dict[str, Search] = {
    "brute force": brute_force,
    "pipeline": pipeline_search,
    "datasketch": datasketch_search,
    "rensa": rensa_search,
}


def timed(search: Search, texts: list[str], references: list[str]) -> tuple[float, list[bool]]:
    """(seconds, result) of a search."""
    started = time.perf_counter()
    is_near = search(texts, references)
    return time.perf_counter() - started, is_near


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.near", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=4000, help="rows to take answers from")
    parser.add_argument("--rows-from", type=Path, help="a JSON Lines file; default: generated dialogues")
    parser.add_argument("--column", default="Doctor", help="the column with the answers")
    args = parser.parse_args()
    texts, references = sample(read_answers(args.rows, args.rows_from, args.column), seed=0)
    print(f"{len(texts):,} texts against {len(references):,} held out, Jaccard {THRESHOLD} of word bigrams")
    print(f"{'':<14}{'seconds':>9}{'near':>8}{'missed':>8}{'wrong':>8}{'recall':>8}")
    truth: list[bool] = []
    for name, search in SEARCHES.items():
        try:
            seconds, found = timed(search, texts, references)
        except ModuleNotFoundError as error:
            print(f"{name:<14}  not installed: pip install {error.name}")
            continue
        truth = truth or found
        missed = sum(is_near and not is_found for is_near, is_found in zip(truth, found, strict=True))
        wrong = sum(is_found and not is_near for is_near, is_found in zip(truth, found, strict=True))
        recall = 1 - missed / max(1, sum(truth))
        print(f"{name:<14}{seconds:>9.2f}{sum(found):>8,}{missed:>8,}{wrong:>8,}{recall:>8.1%}")


if __name__ == "__main__":
    main()
