"""The audit's padding is that of training: the same order of rows, the same batches."""

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from support.project import ROOT
from support.tokenizing import borders_with
from torch.utils.data import BatchSampler

from pipeline.config.params import Gates, Tokenize
from pipeline.tokenize.audit import Audit, epoch_stats, padding_of
from pipeline.tokenize.blocks import assemble_block
from pipeline.tokenize.gates import Finding
from pipeline.train import trainer as trainer_module
from pipeline.train.build_trainer import build_trainer
from pipeline.train.sample_order import even_batches, sample_order

EOS = 2
ROWS, BATCH = 1203, 4
TRAININGS: dict[str, dict[str, Any]] = {
    "by length": {},
    "random": {"group_by_length": False},
    "packing": {"packing": True},
    "packing, random": {"packing": True, "group_by_length": False},
    "accumulation": {"gradient_accumulation": 2},
}


def options(**changes: Any) -> Tokenize:
    gates = Gates(**dict.fromkeys(Gates.model_fields))
    training = {"batch_size": BATCH, "group_by_length": True, "packing": False, "gradient_accumulation": 1}
    return Tokenize(max_length=64, loss="full", gates=gates, **{**training, "processes": 1, "nodes": 1, **changes})


@pytest.fixture
def audit(tmp_path: Path) -> Audit:
    """Of random rows, which are written to tmp_path as training reads them."""
    generator = np.random.default_rng(1)
    completions = [[*generator.integers(3, 300, length).tolist(), EOS] for length in generator.integers(3, 60, ROWS)]
    block = assemble_block(list(range(ROWS)), [[] for _ in completions], completions, options(), start_ids=())
    for name in ("train", "validation"):
        pq.write_table(pa.Table.from_batches([block.record_batch()]), tmp_path / f"{name}.parquet")
    audit = Audit(borders_with(EOS), set())
    audit.add(block)
    return audit


@pytest.mark.parametrize("changes", TRAININGS.values(), ids=TRAININGS)
def test_audit_estimates_the_padding_of_training(
    tmp_path: Path,
    audit: Audit,
    train_options: Callable[..., Any],
    changes: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The Trainer's batches over an epoch are counted as they are collated; the model is not run on them."""
    orders: list[list[int]] = []
    monkeypatch.setattr(trainer_module, "sample_order", lambda *args: orders.append(sample_order(*args)) or orders[-1])
    train = train_options(batch_size=BATCH, keep_best=False, **changes)
    trainer = build_trainer(train, ROOT / "models/nano", tmp_path, tmp_path / "checkpoints", torch.device("cpu"))
    trainer.args.eval_strategy = trainer.args.save_strategy = "no"
    trainer.args.eval_on_start = False
    collate, lengths, positions = trainer.data_collator, list[int](), list[int]()

    def counting(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = collate(rows)
        lengths.extend(row["length"] for row in rows)
        positions.append(batch["input_ids"].numel())
        return batch

    trainer.data_collator = counting
    monkeypatch.setattr(trainer, "training_step", lambda *args, **rest: torch.tensor(1.0))
    trainer.train()

    real = Finding(sum(positions) - sum(lengths), sum(positions))
    estimate, metrics = epoch_stats(audit, options(**changes))
    assert metrics["batches"] == len(positions)
    assert sorted(lengths) == sorted(audit.lengths.tolist())
    assert estimate.share == pytest.approx(real.share, abs=0.01)
    if train.packing:
        assert real == estimate == Finding(0, sum(lengths))
    else:
        assert padding_of(np.array(lengths), BATCH) == real
        assert estimate.share == metrics["padding"]["by_length" if train.group_by_length else "shuffled"]
    if train.group_by_length:
        (order,) = orders
        assert audit.lengths[order].tolist() == lengths


@pytest.mark.parametrize(
    ("rows", "batch_size", "processes"),
    [(100, 4, 2), (101, 4, 2), (103, 4, 3), (8, 4, 2), (9, 2, 4), (3, 2, 4), (1, 4, 2)],
)
def test_last_batches_are_filled_up_as_accelerate_does(rows: int, batch_size: int, processes: int) -> None:
    order = np.random.default_rng(0).permutation(rows).tolist()
    sampler = BatchSampler(order, batch_size, drop_last=False)
    shards = [list(BatchSamplerShard(sampler, processes, process)) for process in range(processes)]
    batches = chain.from_iterable(zip(*shards, strict=True))
    assert even_batches(order, batch_size, processes) == list(chain.from_iterable(batches))


def test_audit_counts_the_batches_of_all_processes(audit: Audit) -> None:
    """1203 rows, 4 to a batch: with 2 processes 8 to a step, with 6 processes 24."""
    for processes, steps in ((1, 151), (3, 51)):
        padding, metrics = epoch_stats(audit, options(processes=processes, nodes=2))
        assert metrics["batches"] == steps * 2 * processes
        repeated = metrics["batches"] * BATCH - ROWS
        tokens = padding.total - padding.matches - int(audit.lengths.sum())
        assert repeated * audit.lengths.min() <= tokens <= repeated * audit.lengths.max()


def test_rows_are_sorted_by_length_within_windows_of_fifty_steps() -> None:
    generator = np.random.default_rng(0)
    rows, steps = generator.permutation(1600).tolist(), generator.permutation(800).tolist()
    order = sample_order(range(1600), 2, lambda count: rows if count == 1600 else steps)
    windows = [sorted(rows[start : start + 100], reverse=True) for start in range(0, 1600, 100)]
    expected = [window[start : start + 2] for window in windows for start in range(0, 100, 2)]
    drawn = [order[start : start + 2] for start in range(0, 1600, 2)]
    assert sorted(drawn) == sorted(expected)
    assert drawn[0][0] == 1599
    assert drawn[1:] == [step for step in (expected[index] for index in steps) if 1599 not in step]
