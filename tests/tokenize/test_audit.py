"""pipeline/tokenize/audit.py: what is counted, and when it stops the run. The figures are counted by hand."""

from typing import Any

import numpy as np
import pytest

from pipeline.config.params import Gates, Tokenize
from pipeline.errors import DataError
from pipeline.tokenize.audit import Audit, Finding, epoch_stats, histogram, ordered, padding_in, require_gates
from pipeline.tokenize.blocks import Block

EOS = 2


def block(*rows: tuple[int, list[int], int], answers: int = 4, cut: tuple[int, int] = (0, 0)) -> Block:
    """Of (id, tokens, tokens of them that are the prompt); the last row lost `cut` tokens of prompt and answer."""
    ids = [each[0] for each in rows]
    input_ids = np.array([token for _, tokens, _ in rows for token in tokens], np.int32)
    labels = np.array(
        [-100 if at < prompt else token for _, tokens, prompt in rows for at, token in enumerate(tokens)], np.int32
    )
    bounds = np.cumsum([0, *(len(tokens) for _, tokens, _ in rows)]).astype(np.int32)
    lost = np.zeros((len(rows), 2), np.int32)
    lost[-1] = cut
    return Block(ids, input_ids, labels, bounds, np.full(len(rows), answers, np.int32), lost)


def gates(**limits: float) -> Gates:
    return Gates(**{**dict.fromkeys(Gates.model_fields), **limits})


def options(batch_size: int = 2, group_by_length: bool = False) -> Tokenize:
    return Tokenize(
        max_length=32, loss="completion", batch_size=batch_size, group_by_length=group_by_length, gates=gates()
    )


def test_audit_counts_what_training_sees() -> None:
    audit = Audit(EOS, set())
    audit.add(
        block((10, [3, 4, 5, 7, 2], 3), (11, [5, 6, 9, 8, 7], 2), answers=4, cut=(3, 1)), [(10, False), (11, True)]
    )
    audit.add(block((12, [4, 4, 4], 3), (13, [9, 2], 0), (14, [3, 4, 5, 7, 2], 3), (15, [2], 0), answers=2))
    assert audit.found == {
        "unlabelled": Finding(2, 6, 12),
        "unended": Finding(3, 6, 11),
        "truncated": Finding(1, 6, 11),
        "answer_tokens_lost": Finding(1, 16, 11),
        "duplicates": Finding(1, 6, 14),
        "prefix_mismatch": Finding(1, 2, 11),
    }
    assert audit.metrics(max_length=20) == {
        "rows": 6,
        "tokens": 21,
        "supervised_share": 8 / 21,
        "rows_unlabelled": 2,
        "rows_unended": 3,
        "rows_truncated": 1,
        "rows_duplicates": 1,
        "prompt_tokens_lost": 3,
        "answer_tokens_lost": 1,
        "prefixes": {"rows_checked": 2, "rows_different": 1},
        "share": {
            "unlabelled": 2 / 6,
            "unended": 3 / 6,
            "truncated": 1 / 6,
            "answer_tokens_lost": 1 / 16,
            "duplicates": 1 / 6,
            "prefix_mismatch": 1 / 2,
        },
        "length": {"mean": 3.5, "p50": 3, "p90": 5, "p99": 5, "longest": 5},
        "histogram": {"up_to_16": 6, "up_to_20": 0},
    }


def test_the_first_token_of_a_row_is_never_predicted_so_a_row_of_one_teaches_nothing() -> None:
    audit = Audit(EOS, set())
    audit.add(block((1, [2], 0), (2, [5, 2], 0)))
    assert audit.found["unlabelled"] == Finding(1, 2, 1)
    assert audit.found["unended"] == Finding(1, 2, 1)
    assert audit.learned == 1


def test_duplicates_of_train_count_in_validation() -> None:
    seen: set[bytes] = set()
    train, validation = Audit(EOS, seen), Audit(EOS, seen)
    train.add(block((1, [5, 2], 0), (2, [6, 2], 0)))
    validation.add(block((3, [7, 2], 0), (4, [6, 2], 1)))
    assert train.found["duplicates"] == Finding(0, 2)
    assert validation.found["duplicates"] == Finding(1, 2, 4)


def test_rows_with_the_same_tokens_cut_elsewhere_are_no_duplicates() -> None:
    audit = Audit(EOS, set())
    audit.add(block((1, [5, 6], 0), (2, [7, 2], 0), (3, [5], 0), (4, [6, 7, 2], 0)))
    assert audit.found["duplicates"].count == 0


@pytest.mark.parametrize(
    ("lengths", "batch_size", "padded", "places"),
    [
        ([4, 4, 4], 2, 0, 12),
        ([1, 4], 1, 0, 5),
        ([1, 3, 4], 2, 2, 10),
        ([1, 3, 4], 8, 4, 12),
        ([4, 1, 1, 4], 2, 6, 16),
        ([1, 1, 4, 4], 2, 0, 10),
    ],
    ids=["equal", "one a batch", "last batch smaller", "batch larger than all", "mixed", "sorted"],
)
def test_padding_of_batches(lengths: list[int], batch_size: int, padded: int, places: int) -> None:
    assert padding_in(np.array(lengths), batch_size) == Finding(padded, places)


def test_rows_by_length_are_sorted_within_parcels_as_the_trainer_does() -> None:
    lengths = np.arange(1600)
    found = ordered(lengths, batch_size=2, by_length=True)
    parcels = found.reshape(-1, 100)  # 50 batches of 2
    assert sorted(found.tolist()) == lengths.tolist()
    assert all((np.diff(parcel) < 0).all() for parcel in parcels)
    assert parcels[0].max() > parcels[1].min()


def test_an_epoch_has_the_padding_of_the_order_that_training_takes() -> None:
    audit = Audit(EOS, set())
    audit.add(block(*((at, [9] * length, 0) for at, length in enumerate([1, 9] * 32))))
    shuffled, metrics = epoch_stats(audit, options(batch_size=4))
    grouped, _ = epoch_stats(audit, options(batch_size=4, group_by_length=True))
    assert grouped.share < shuffled.share
    assert (metrics["tokens"], metrics["tokens_in_loss"], metrics["batches"]) == (320, 256, 16)
    assert metrics["padding"] == {
        "tokens": shuffled.count,
        "share": shuffled.share,
        "shuffled": shuffled.share,
        "by_length": grouped.share,
    }


def test_histogram_has_the_same_bins_whatever_the_rows() -> None:
    bins = ["up_to_16", "up_to_32", "up_to_64"]
    assert list(histogram(np.array([1]), 64)) == list(histogram(np.array([64]), 64)) == bins
    assert histogram(np.array([8]), 8) == {"up_to_8": 1}


OVER: dict[str, tuple[Finding, float]] = {
    "max_unlabelled": (Finding(1, 10, 3), 0.0),
    "max_unended": (Finding(1, 10, 3), 0.05),
    "max_truncated": (Finding(2, 10, 3), 0.1),
    "max_answer_tokens_lost": (Finding(50, 1000, 3), 0.04),
    "max_duplicates": (Finding(5, 10, 3), 0.4),
    "max_prefix_mismatch": (Finding(1, 10, 3), 0.0),
    "max_padding": (Finding(30, 100), 0.2),
}


@pytest.mark.parametrize("key", Gates.model_fields)
def test_each_gate_stops_above_its_limit_and_not_at_it_nor_when_it_is_off(key: str) -> None:
    finding, limit = OVER[key]
    found = {"train": {key.removeprefix("max_"): finding}, "validation": {}}
    with pytest.raises(
        DataError, match=rf"tokenize\.gates\.{key}: .* allow it: tokenize\.gates\.{key}={finding.share:g}"
    ):
        require_gates(found, gates(**{key: limit}))
    require_gates(found, gates(**{key: finding.share}))
    require_gates(found, gates())


def test_validation_is_gated_as_train_is() -> None:
    clean: dict[str, Any] = {"unended": Finding(0, 10)}
    with pytest.raises(DataError, match=r"1 of 9 rows of validation \(11\.11%, the first has id 4\)"):
        require_gates({"train": clean, "validation": {"unended": Finding(1, 9, 4)}}, gates(max_unended=0.0))
