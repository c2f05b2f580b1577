"""pipeline/tokenize/audit.py and gates.py: what is counted, and when a gate stops the run. Numbers are counted by hand."""

from typing import Any

import numpy as np
import pytest
from support.tokenizing import borders_with

from pipeline.config.params import Gates, Tokenize
from pipeline.errors import DataError
from pipeline.tokenize.audit import Audit, epoch_stats, histogram, padding_of
from pipeline.tokenize.blocks import Block
from pipeline.tokenize.gates import Finding, require_gates

EOS = 2


def block(
    *rows: tuple[int, list[int], int], completion_tokens: int = 4, dropped_tokens: tuple[int, int] = (0, 0)
) -> Block:
    """Rows are (id, token ids, how many of these are the prompt). dropped_tokens: of the last row's prompt and completion."""
    row_ids = [id for id, _, _ in rows]
    input_ids = np.array([token for _, tokens, _ in rows for token in tokens], np.int32)
    labels = np.array(
        [-100 if index < prompt else token for _, tokens, prompt in rows for index, token in enumerate(tokens)],
        np.int32,
    )
    offsets = np.cumsum([0, *(len(tokens) for _, tokens, _ in rows)]).astype(np.int32)
    dropped = np.zeros((len(rows), 2), np.int32)
    dropped[-1] = dropped_tokens
    prompts = np.array([prompt for _, _, prompt in rows], np.int32)
    completions = np.full(len(rows), completion_tokens, np.int32)
    return Block(row_ids, input_ids, labels, offsets, completions, dropped, prompts, np.ones(len(rows), bool))


def gates(**limits: float) -> Gates:
    return Gates(**{**dict.fromkeys(Gates.model_fields), **limits})


def options(**changes: Any) -> Tokenize:
    training = {"batch_size": 2, "group_by_length": False, "packing": False}
    machines = {"gradient_accumulation": 1, "processes": 1, "nodes": 1}
    return Tokenize(max_length=32, loss="assistant", gates=gates(), **{**training, **machines, **changes})


def test_audit_counts_what_training_sees() -> None:
    audit = Audit(borders_with(EOS), set())
    audit.add(
        block((10, [3, 4, 5, 7, 2], 3), (11, [5, 6, 9, 8, 7], 2), completion_tokens=4, dropped_tokens=(3, 1)),
        [(10, False), (11, True)],
    )
    audit.add(block((12, [4, 4, 4], 3), (13, [9, 2], 0), (14, [3, 4, 5, 7, 2], 3), (15, [2], 0), completion_tokens=2))
    assert audit.findings == {
        "unlabelled": Finding(2, 6, 12),
        "unended": Finding(3, 6, 11),
        "wrong_start": Finding(0, 6),
        "prompt_mismatch": Finding(0, 6),
        "truncated": Finding(1, 6, 11),
        "answer_tokens_lost": Finding(1, 16, 11),
        "duplicates": Finding(1, 6, 14),
        "prefix_mismatch": Finding(1, 2, 11),
        "unknown": Finding(0, 0),
    }
    assert audit.metrics(max_length=20) == {
        "rows": 6,
        "tokens": 21,
        "supervised_share": 8 / 21,
        "rows_unlabelled": 2,
        "rows_unended": 3,
        "rows_wrong_start": 0,
        "rows_prompt_mismatch": 0,
        "rows_truncated": 1,
        "rows_duplicates": 1,
        "prompt_tokens_lost": 3,
        "answer_tokens_lost": 1,
        "prefixes": {"rows_checked": 2, "rows_different": 1},
        "unknown": {"answer_tokens": 0, "prompt_tokens": 0, "prompt_share": 0.0},
        "share": {
            "unlabelled": 2 / 6,
            "unended": 3 / 6,
            "wrong_start": 0.0,
            "prompt_mismatch": 0.0,
            "truncated": 1 / 6,
            "answer_tokens_lost": 1 / 16,
            "duplicates": 1 / 6,
            "prefix_mismatch": 1 / 2,
            "unknown": 0.0,
        },
        "length": {"mean": 3.5, "p50": 3, "p90": 5, "p99": 5, "longest": 5},
        "histogram": {"up_to_16": 6, "up_to_20": 0},
    }


def test_row_of_one_token_has_no_labeled_token() -> None:
    audit = Audit(borders_with(EOS), set())
    audit.add(block((1, [2], 0), (2, [5, 2], 0)))
    assert audit.findings["unlabelled"] == Finding(1, 2, 1)
    assert audit.findings["unended"] == Finding(1, 2, 1)
    assert audit.labeled_tokens == 1


def test_duplicates_of_train_rows_count_in_validation() -> None:
    seen: set[bytes] = set()
    train, validation = Audit(borders_with(EOS), seen), Audit(borders_with(EOS), seen)
    train.add(block((1, [5, 2], 0), (2, [6, 2], 0)))
    validation.add(block((3, [7, 2], 0), (4, [6, 2], 1)))
    assert train.findings["duplicates"] == Finding(0, 2)
    assert validation.findings["duplicates"] == Finding(1, 2, 4)


def test_same_tokens_divided_into_other_rows_are_no_duplicates() -> None:
    audit = Audit(borders_with(EOS), set())
    audit.add(block((1, [5, 6], 0), (2, [7, 2], 0), (3, [5], 0), (4, [6, 7, 2], 0)))
    assert audit.findings["duplicates"].matches == 0


@pytest.mark.parametrize(
    ("lengths", "batch_size", "padding", "positions"),
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
def test_padding_of_batches(lengths: list[int], batch_size: int, padding: int, positions: int) -> None:
    assert padding_of(np.array(lengths), batch_size) == Finding(padding, positions)


def test_epoch_has_the_padding_of_the_configured_order() -> None:
    audit = Audit(borders_with(EOS), set())
    audit.add(block(*((index, [9] * length, 0) for index, length in enumerate([1, 9] * 32))))
    shuffled, metrics = epoch_stats(audit, options(batch_size=4))
    by_length, _ = epoch_stats(audit, options(batch_size=4, group_by_length=True))
    assert by_length.share < shuffled.share
    assert (metrics["tokens"], metrics["tokens_in_loss"], metrics["batches"]) == (320, 256, 16)
    assert metrics["padding"] == {
        "tokens": shuffled.matches,
        "share": shuffled.share,
        "shuffled": shuffled.share,
        "by_length": by_length.share,
    }


@pytest.mark.parametrize("group_by_length", [False, True])
def test_packing_leaves_no_padding(group_by_length: bool) -> None:
    audit = Audit(borders_with(EOS), set())
    audit.add(block(*((index, [9] * length, 0) for index, length in enumerate([1, 9] * 32))))
    padded = epoch_stats(audit, options(group_by_length=group_by_length))[1]["padding"]
    packed, metrics = epoch_stats(audit, options(group_by_length=group_by_length, packing=True))
    assert packed == Finding(0, 320)
    assert metrics["padding"] == {**padded, "tokens": 0, "share": 0.0}


def test_histogram_bins_do_not_depend_on_the_rows() -> None:
    bins = ["up_to_16", "up_to_32", "up_to_64"]
    assert list(histogram(np.array([1]), 64)) == list(histogram(np.array([64]), 64)) == bins
    assert histogram(np.array([8]), 8) == {"up_to_8": 1}


EXCEEDED: dict[str, tuple[Finding, float]] = {
    "max_unlabelled": (Finding(1, 10, 3), 0.0),
    "max_unended": (Finding(1, 10, 3), 0.05),
    "max_wrong_start": (Finding(1, 10, 3), 0.05),
    "max_prompt_mismatch": (Finding(1, 10, 3), 0.05),
    "max_truncated": (Finding(2, 10, 3), 0.1),
    "max_answer_tokens_lost": (Finding(50, 1000, 3), 0.04),
    "max_duplicates": (Finding(5, 10, 3), 0.4),
    "max_prefix_mismatch": (Finding(1, 10, 3), 0.0),
    "max_unknown": (Finding(2, 10, 3, "é"), 0.1),
    "max_padding": (Finding(30, 100), 0.2),
}


@pytest.mark.parametrize("key", Gates.model_fields)
def test_gate_stops_the_run_only_above_its_limit(key: str) -> None:
    finding, limit = EXCEEDED[key]
    findings = {"train": {key.removeprefix("max_"): finding}, "validation": {}}
    with pytest.raises(
        DataError, match=rf"tokenize\.gates\.{key}: .* allow it: tokenize\.gates\.{key}={finding.share:g}"
    ):
        require_gates(findings, gates(**{key: limit}))
    require_gates(findings, gates(**{key: finding.share}))
    require_gates(findings, gates())


def test_gates_hold_for_validation_too() -> None:
    clean: dict[str, Any] = {"unended": Finding(0, 10)}
    with pytest.raises(DataError, match=r"1 of 9 rows of validation \(11\.11%, the first has id 4\)"):
        require_gates({"train": clean, "validation": {"unended": Finding(1, 9, 4)}}, gates(max_unended=0.0))
