"""A training on very few rows runs to its end, says what makes it weak, and saves a model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from pipeline.core.files import read_parquet
from pipeline.modeling.loading import load_model
from pipeline.train import stage as train

Options = Callable[..., Any]
LORA = {"kind": "lora", "rank": 2, "alpha": 4.0, "dropout": 0.0, "target_modules": "all-linear"}
PLATEAU = {"kind": "plateau", "factor": 0.5, "patience": 1, "threshold": 0.0, "floor": 0.0}
RUNS: dict[str, tuple[int, int, dict[str, Any]]] = {
    "three rows": (1, 1, {}),
    "five rows": (3, 1, {"batch_size": 2, "gradient_accumulation": 4}),
    "one batch per epoch": (7, 1, {"batch_size": 64, "group_by_length": False}),
    "evaluation at no step": (7, 1, {"eval_steps": 100}),
    "packing of one row": (1, 1, {"packing": True}),
    "adapter and plateau": (7, 2, {"method": LORA, "schedule": PLATEAU}),
    "early stopping": (7, 2, {"early_stopping": {"patience": 1, "metric": "f1", "max_new_tokens": 4}}),
    "part of an epoch": (7, 1, {"epochs": 0.1, "keep_best": False}),
}


@pytest.mark.parametrize(("rows", "validation_rows", "changes"), RUNS.values(), ids=RUNS)
def test_training_on_few_rows_ends_with_a_model_and_a_warning(
    in_built: Path, train_options: Options, rows: int, validation_rows: int, changes: dict[str, Any], caplog: Any
) -> None:
    for name, count in (("train", rows), ("validation", validation_rows)):
        path = Path(f"data/tokenized/{name}.parquet")
        pq.write_table(read_parquet(path).slice(0, count), path)
    metrics = train.train(train_options(**{"epochs": 3.0, "warmup_steps": 20, **changes}), torch.device("cpu"))
    assert metrics["steps"] >= 1
    assert metrics["warnings"][0].startswith(
        f"The warmup takes 20 of this training's {3 if 'epochs' not in changes else 1}"
    )
    assert f"Warning: {metrics['warnings'][0]}." in caplog.messages
    load_model(Path("models/finetuned"))
