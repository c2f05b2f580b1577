"""TRL's SFTTrainer takes data/formatted/train.jsonl as it is, and learns the same tokens as our train stage."""

from pathlib import Path
from typing import Any

import pytest
from support.project import SHIPPED

from bench import stopping
from bench.chat_models import FAMILIES
from bench.dialogues import generate_dialogues
from pipeline.core.files import read_parquet
from pipeline.core.paths import BASE, TOKENIZED, TRAIN_ROWS
from pipeline.modeling.encoding import IGNORE_INDEX

trl = pytest.importorskip("trl")
pytestmark = pytest.mark.slow
ROWS, BATCH_SIZE = 24, 4


@pytest.fixture(params=["Llama", "Qwen2", "Gemma"])
def project(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory has the rows of dialogues, formatted and tokenized. Those of Qwen2 call functions, too."""
    monkeypatch.setattr(stopping, "ROOT", SHIPPED)
    dialogues = generate_dialogues(ROWS, with_tools=request.param == "Qwen2")
    stopping.prepare(FAMILIES[request.param], dialogues, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sft_trainer(folder: Path) -> Any:
    import datasets

    rows = datasets.load_dataset("json", data_files=str(TRAIN_ROWS), split="train", cache_dir=str(folder / "cache"))
    arguments = trl.SFTConfig(
        output_dir=str(folder / "trl"),
        assistant_only_loss=True,
        per_device_train_batch_size=BATCH_SIZE,
        train_sampling_strategy="sequential",
        use_cpu=True,
        bf16=False,
        report_to="none",
    )
    return trl.SFTTrainer(model=str(BASE), args=arguments, train_dataset=rows)


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing:FutureWarning")  # TRL's default
def test_rows_and_first_batch_have_our_tokens_and_labels(project: Path) -> None:
    trainer = sft_trainer(project)
    ours = {row["id"]: row for row in read_parquet(TOKENIZED / "train.parquet").to_pylist()}
    theirs = {row["id"]: row for row in trainer.train_dataset}
    assert theirs.keys() == ours.keys()
    for name in ("input_ids", "labels"):
        assert {id: row[name] for id, row in theirs.items()} == {id: row[name] for id, row in ours.items()}
    batch = next(iter(trainer.get_train_dataloader()))
    for row, id in enumerate(trainer.train_dataset["id"][:BATCH_SIZE]):
        length = ours[id]["length"]
        assert batch["input_ids"][row, :length].tolist() == ours[id]["input_ids"]
        assert batch["labels"][row, :length].tolist() == ours[id]["labels"]
        assert set(batch["labels"][row, length:].tolist()) <= {IGNORE_INDEX}
        assert batch["attention_mask"][row].sum() == length
