"""pipeline/tokenize/unknown.py: unknown tokens and dropped characters are counted, and stop the run above a share."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from pipeline.config.params import Gates, Tokenize
from pipeline.errors import DataError
from pipeline.modeling.encoding import Encoder, start_ids_of
from pipeline.tokenize.row_tokenizer import text_tokenizer
from pipeline.tokenize.stage import summarize_audit, tokenize_files
from pipeline.tokenize.unknown import UnknownCounter, UnknownText, knows_every_text, unknown_id_of

BYTES = {f"<0x{byte:02X}>": byte for byte in range(256)}
BYTE_LETTERS = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}


def tokenizer_of(model: Any, pre_tokenizer: Any = None, normalizer: Any = None) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizer or pre_tokenizers.Whitespace()
    if normalizer:
        tokenizer.normalizer = normalizer
    return tokenizer


ACCENTS_OFF = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])
# text "A Aé 😀": six characters, two of them spaces
COUNTS: dict[str, tuple[Tokenizer, UnknownText]] = {
    "word list": (tokenizer_of(models.WordLevel({"A": 0, "?": 1}, unk_token="?")), UnknownText(2, 3)),
    "WordPiece": (tokenizer_of(models.WordPiece({"A": 0, "?": 1}, unk_token="?")), UnknownText(2, 3)),
    "Unigram": (tokenizer_of(models.Unigram([("?", -9.0), ("A", -1.0)], 0)), UnknownText(2, 4)),
    "BPE with an unknown token": (tokenizer_of(models.BPE({"A": 0, "?": 1}, [], unk_token="?")), UnknownText(2, 4)),
    "BPE that drops": (tokenizer_of(models.BPE({"A": 0}, [])), UnknownText(2, 4)),
    "normalizer that drops": (
        tokenizer_of(models.BPE({"A": 0, "e": 1}, []), None, ACCENTS_OFF),
        UnknownText(1, 4),
    ),
    "byte fallback": (tokenizer_of(models.BPE({**BYTES, "A": 256}, [], byte_fallback=True)), UnknownText(0, 8)),
    "byte level": (tokenizer_of(models.BPE(BYTE_LETTERS, []), pre_tokenizers.ByteLevel(False)), UnknownText(0, 10)),
}  # fmt: skip


@pytest.mark.parametrize(("tokenizer", "expected"), COUNTS.values(), ids=COUNTS)
def test_unknown_text_of_each_kind_of_tokenizer(tokenizer: Tokenizer, expected: UnknownText) -> None:
    text = "A Aé 😀"
    counter, ids = UnknownCounter(tokenizer), tokenizer.encode(text).ids
    assert counter.count(text, ids) == expected
    assert counter.is_complete == (expected.tokens == 0)
    assert counter.count("A A", tokenizer.encode("A A").ids).tokens == 0


def test_byte_level_tokenizer_without_all_bytes_is_not_complete() -> None:
    incomplete = {letter: index for letter, index in BYTE_LETTERS.items() if letter != "Ċ"}  # the line break
    tokenizer = tokenizer_of(models.BPE(incomplete, []), pre_tokenizers.ByteLevel(False))
    assert not knows_every_text(tokenizer)
    assert knows_every_text(tokenizer_of(models.BPE(BYTE_LETTERS, []), pre_tokenizers.ByteLevel(False)))
    assert not knows_every_text(tokenizer_of(models.BPE({"A": 0, "<0x00>": 1}, [], byte_fallback=True)))


def test_unigram_tells_its_unknown_token_and_byte_fallback() -> None:
    pieces = [("<unk>", 0.0), ("A", -1.0), *((byte, -9.0) for byte in BYTES)]
    assert unknown_id_of(tokenizer_of(models.Unigram(pieces, 0))) == 0
    assert knows_every_text(tokenizer_of(models.Unigram(pieces, 0, byte_fallback=True)))
    assert not knows_every_text(tokenizer_of(models.Unigram(pieces, 0, byte_fallback=False)))


def test_example_is_the_unknown_part_of_a_long_text() -> None:
    dna = UnknownCounter(tokenizer_of(models.BPE({"A": 0, "C": 1}, [])))
    example = dna.example("AC AC " + "AC" * 500 + "N" + "CA" * 500)
    assert "N" in example
    assert len(example) <= 20
    lines = UnknownCounter(
        tokenizer_of(models.WordLevel({"A": 0, "?": 1}, unk_token="?"), pre_tokenizers.Split("", "isolated"))
    )
    assert lines.example("AA\nA") == "\n"


def words(**vocabulary: int) -> Encoder:
    tokenizer = tokenizer_of(models.WordLevel({"</s>": 0, **vocabulary}, unk_token="</s>"))
    tokenizer.decoder = decoders.ByteLevel()
    return Encoder(tokenizer, start_ids_of(tokenizer), eos_id=0, pad_id=0)


def tokenized(rows: list[dict[str, Any]], folder: Path, max_unknown: float | None) -> dict[str, Any]:
    """The metrics of rows that are training and validation set at once."""
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    gates = Gates(**{**dict.fromkeys(Gates.model_fields), "max_unknown": max_unknown})
    training = {"batch_size": 2, "group_by_length": False, "packing": False, "gradient_accumulation": 1}
    options = Tokenize(max_length=16, loss="assistant", gates=gates, processes=1, nodes=1, **training)
    return tokenize_files(
        dict.fromkeys(("train", "validation"), path), folder / "out", text_tokenizer(words(yes=1, no=2)), options
    )


ROWS = [
    {"id": 7, "prompt": "yes or no", "completion": "yes no"},
    {"id": 9, "prompt": "yes", "completion": "no, Wörter yes"},
]


def test_unknown_answer_tokens_are_counted_apart_from_prompts_and_ends(tmp_path: Path) -> None:
    """The unknown token of this tokenizer is also its end of text. Answers: yes no no ? ? yes; prompts: yes ? no yes."""
    metrics = tokenized(ROWS, tmp_path, None)
    assert metrics["train"]["unknown"] == {"answer_tokens": 2, "prompt_tokens": 1, "prompt_share": 1 / 4}
    assert metrics["train"]["share"]["unknown"] == 2 / 6
    assert "2 answer tokens unknown to the tokenizer, 1 prompt tokens unknown" in summarize_audit(metrics)


def test_gate_of_unknown_tokens_names_the_row_and_the_text(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        tokenized(ROWS, tmp_path, 0.3)
    assert (
        "tokenize.gates.max_unknown: 2 of 6 answer tokens of train (33.33%, the first has id 9, in 'no,') and "
        "2 of 6 answer tokens of validation"
    ) in str(error.value)
    assert str(error.value).endswith("or allow it: tokenize.gates.max_unknown=0.334")
    assert not (tmp_path / "out").exists()
    tokenized(ROWS, tmp_path, 0.34)
    tokenized(ROWS[:1], tmp_path, 0.0)
