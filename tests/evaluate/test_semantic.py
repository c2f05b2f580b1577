"""pipeline/evaluate/semantic.py: the cosine of mean embeddings by a sentence encoder."""

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertModel

from pipeline.config.params import Evaluate
from pipeline.core.files import read_jsonl
from pipeline.errors import ModelError
from pipeline.evaluate.semantic import semantic_similarities
from pipeline.evaluate.stage import evaluate_model
from pipeline.scoring.metrics import ALL_METRICS

CPU = torch.device("cpu")
ANSWERS = ["Drink water and rest.", "Flu.", "", "  "]
REFERENCES = ["Rest, and drink a lot of water, please.", "Flu.", "Rest.", ""]


@pytest.fixture
def encoder(in_built: Path) -> Path:
    """A small encoder with random weights and the base model's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained("models/base")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = BertModel(
        BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes), add_pooling_layer=False
    )
    for part in (tokenizer, model):
        part.save_pretrained("encoder")
    return Path("encoder")


def embed(folder: Path, text: str) -> torch.Tensor:
    """The mean of the hidden states of one unpadded text."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), BertModel.from_pretrained(folder, add_pooling_layer=False)
    with torch.no_grad():
        return model.eval()(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(dim=0)


def test_similarity_is_the_cosine_of_mean_embeddings_and_0_for_empty_texts(encoder: Path) -> None:
    similarities = semantic_similarities(str(encoder), ANSWERS, REFERENCES, CPU)
    first, second = embed(encoder, ANSWERS[0]), embed(encoder, REFERENCES[0])
    expected = float(first @ second / (first.norm() * second.norm()))
    assert similarities == pytest.approx([expected, 1.0, 0.0, 0.0], abs=1e-5)
    assert expected < 0.999


def test_texts_longer_than_the_encoder_are_truncated(encoder: Path) -> None:
    (similarity,) = semantic_similarities(str(encoder), ["water " * 500], ["water " * 400], CPU)
    assert similarity == pytest.approx(1.0, abs=1e-5)


def test_evaluate_adds_the_similarity_to_predictions_and_metrics(encoder: Path) -> None:
    values = {"limit": None, "max_new_tokens": 12, "turns": "last", "batch_size": None, "precision": "fp32"}
    values["engine"] = "transformers"
    options = Evaluate.model_validate({**values, "semantic_model": str(encoder), "semantic_sha256": None})
    rows = read_jsonl(Path("data/formatted/test.jsonl"))[:3]
    predictions, metrics = evaluate_model(rows, Path("models/base"), options, CPU)
    texts = [[row[name] for row in predictions] for name in ("prediction", "reference")]
    assert [row["semantic"] for row in predictions] == semantic_similarities(str(encoder), *texts, CPU)
    assert metrics["semantic"] == pytest.approx(sum(row["semantic"] for row in predictions) / 3)
    assert ALL_METRICS["semantic"].kind == "tested"


def test_a_folder_without_an_encoder_is_reported_with_its_key(encoder: Path) -> None:
    with pytest.raises(ModelError, match=r"evaluate.semantic_model: nowhere"):
        semantic_similarities("nowhere", ANSWERS, REFERENCES, CPU)
    (encoder / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(ModelError, match=r"evaluate.semantic_model: .*encoder does not load \("):
        semantic_similarities(str(encoder), ANSWERS, REFERENCES, CPU)
