"""What the user should know about the split before anything is trained: small splits, lost rows, ignored text."""

import re
from collections.abc import Callable

import numpy as np

from pipeline.config.params import Format
from pipeline.format.cluster_size import large_clusters, max_cluster_rows
from pipeline.format.duplicates import DuplicateSearch
from pipeline.format.split import Split

MIN_TEST, MIN_VALIDATION = 50, 20  # rows
MAX_DROPPED = 0.1  # share of the rows
MAX_EARLIER_TURNS = 0.1  # share of the test rows
EXAMPLES = 2
SHARED_TEXTS = 3
FEW_CLUSTERS = 20  # in a test set
EXAMPLE_CHARACTERS = 160
# Scripts without spaces between words: Thai, Lao, Burmese, Khmer, Japanese and Chinese.
UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
SAMPLE_ROWS = 1000
# Rows that must all change for the better, and none for the worse, for p < 0.05 (two-sided sign test: 2 · 0.5^6 = 0.03).
ROWS_TO_SHOW = 6


def find_warnings(split: Split, search: DuplicateSearch, options: Format, leakage: dict[str, float]) -> list[str]:
    """Sentences about the split, each with the key to change."""
    checks: tuple[Callable[[], str | None], ...] = (
        lambda: _dropped_warning(split, options),
        lambda: _test_warning(split),
        lambda: _few_clusters_warning(split),
        lambda: _validation_warning(split),
        lambda: _large_cluster_warning(split, search, options),
        lambda: _earlier_turns_warning(leakage),
        lambda: _unspaced_warning(split),
    )
    texts = sorted(search.shared_texts, key=lambda part: -part.rows)
    shared = [
        f"{part.rows:,} of {len(split.rows):,} rows share the text “{shorten(part.text)}”, so only their other words are "
        "compared"
        for part in texts[:SHARED_TEXTS]
    ]
    if len(texts) > SHARED_TEXTS:
        shared.append(f"{len(texts) - SHARED_TEXTS:,} more such texts are not compared")
    turns = [f"Most rows have the turn “{shorten(turn)}”; it is not compared" for turn in sorted(search.shared_turns)]
    return [*(text for check in checks if (text := check())), *shared, *turns]


def _dropped_warning(split: Split, options: Format) -> str | None:
    near = [drop for drop in split.dropped.values() if drop.near is not None]
    if len(near) <= MAX_DROPPED * len(split.rows):
        return None
    if all(drop.reason == "near_held_out" for drop in near):
        advice = "format.near.strategy=cluster keeps them, and near-duplicates in one split"
    else:
        advice = "they repeat rows of your test set"
    return (
        f"{len(near):,} of {len(split.rows):,} rows ({len(near) / len(split.rows):.0%}) are dropped as near-duplicates "
        f"of validation or test rows: {advice}; format.near.threshold={options.near.threshold:g} decides what is near, "
        "format.near.enabled=false compares for equality only"
    )


def _test_warning(split: Split) -> str | None:
    rows = split.counts()["test"]
    if rows >= MIN_TEST:
        return None
    if rows < ROWS_TO_SHOW:
        meaning = "no difference between two models can be significant (p < 0.05)"
    else:
        meaning = (
            f"at least {ROWS_TO_SHOW} answers ({ROWS_TO_SHOW / rows:.0%}) must get better, and none worse, for a significant "
            "difference (p < 0.05)"
        )
    advice = "" if split.has_own_test else ", or raise format.test_fraction"
    return f"The test set has only {_count(rows, 'row')}: {meaning}. Add rows{advice}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _validation_warning(split: Split) -> str | None:
    rows = split.counts()["validation"]
    if rows >= MIN_VALIDATION:
        return None
    return (
        f"The validation set has only {_count(rows, 'row')}: the choice of the best weights "
        "(train.early_stopping) depends on chance. Add rows, or raise format.validation_fraction"
    )


def _large_cluster_warning(split: Split, search: DuplicateSearch, options: Format) -> str | None:
    if options.split == "row" or options.near.strategy == "drop":
        return None
    large = large_clusters(search.components.labels, options.near.max_cluster_rows).labels
    rows = int(np.isin(search.components.labels, large).sum())
    if rows <= MAX_DROPPED * len(split.rows):
        return None
    limit = max_cluster_rows(len(split.rows), options.near.max_cluster_rows)
    return (
        f"{rows:,} of {len(split.rows):,} rows are in clusters of more than {limit:,} equal or near rows ({len(large):,} of "
        "them), which go to the training set only, so the test set has no such question (format.near.max_cluster_rows)"
    )


def _few_clusters_warning(split: Split) -> str | None:
    test = split.indices("test")
    clusters = len(np.unique(split.clusters[test]))
    if clusters >= FEW_CLUSTERS or 2 * clusters > len(test):
        return None
    return (
        f"The {len(test):,} test rows form only {_count(clusters, 'cluster')} of equal or near rows, so they "
        f"show less than {len(test):,} different questions would"
    )


def _earlier_turns_warning(leakage: dict[str, float]) -> str | None:
    if (share := leakage.get("earlier_turns", 0.0)) <= MAX_EARLIER_TURNS:
        return None
    return (
        f"{share:.0%} of the test questions are earlier turns of training dialogues; if the rows are parts of the same "
        "dialogues, keep these together with format.group=COLUMN"
    )


def _unspaced_warning(split: Split) -> str | None:
    step = max(1, len(split.rows) // SAMPLE_ROWS)
    sample = split.rows[::step]
    unspaced = sum(2 * len(UNSPACED.findall(row.question)) > len(row.question) for row in sample)
    if 2 * unspaced <= len(sample):
        return None
    return (
        "Most questions are in a script without spaces between words, so only equal questions are found: the test set may "
        "contain near-duplicates of training questions"
    )


def near_examples(split: Split, search: DuplicateSearch) -> list[tuple[str, str]]:
    """Pairs of near texts, shortened: of dropped rows, or else of the largest clusters."""
    pairs = [(index, drop.near) for index, drop in split.dropped.items() if drop.near is not None]
    labels, counts = np.unique(search.components.labels, return_counts=True)
    largest = labels[np.argsort(-counts, kind="stable")][:50]
    for label in largest[counts[np.searchsorted(labels, largest)] > 1]:
        members = np.flatnonzero(search.components.labels == label)[:50]
        pairs += [(int(index), int(search.components.linked_to[index])) for index in members]
    examples: dict[tuple[str, str], None] = {}
    seen: set[int] = set()
    for one, other in pairs:
        cluster = int(search.components.labels[one])
        if cluster not in seen and (texts := _linking_texts(split, search, one, other)):
            seen.add(cluster)
            examples[texts] = None
        if len(examples) == EXAMPLES:
            break
    return list(examples)


def _linking_texts(split: Split, search: DuplicateSearch, one: int, other: int) -> tuple[str, str] | None:
    """The texts by which two rows are near, shortened; None if they are the same."""
    for field in search.compared:
        for first in field.texts_of(np.array([one])):
            for second in field.texts_of(np.array([other])):
                texts = tuple(search.text_at(field, split.rows, int(index)) for index in (first, second))
                if (
                    texts[0].split() != texts[1].split()
                    and field.search.find_near(np.array([first]), np.array([second]))[0] >= 0
                ):
                    return shorten(texts[0]), shorten(texts[1])
    return None


def shorten(text: str) -> str:
    """The text on one line, cut in the middle if it is long.

    >>> shorten("How  are\\nyou?"), len(shorten("x" * 999))
    ('How are you?', 160)
    """
    line = " ".join(text.split())
    if len(line) <= EXAMPLE_CHARACTERS:
        return line
    half = (EXAMPLE_CHARACTERS - 3) // 2
    return f"{line[: EXAMPLE_CHARACTERS - 3 - half]} … {line[-half:]}"


def describe_moved(split: Split) -> str | None:
    """How many rows `balance` moved, for the log; None if it moved none."""
    rows = split.rows_moved()
    if not rows:
        return None
    return (
        f"{_count(rows, 'row')} in {_count(len(split.moved), 'cluster')} were moved to another split than "
        "their hash selects, so that each split has about its share; more rows may change this"
    )
