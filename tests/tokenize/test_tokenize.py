"""pipeline/tokenize/stage.py and pipeline/modeling/encoding.py, with a tokenizer of ten words."""

import json
import random
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE, WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from pipeline.config.params import Gates, Tokenize
from pipeline.core.files import write_jsonl
from pipeline.errors import DataError, ModelError
from pipeline.modeling.encoding import Encoder, Example, build_example, load_encoder, truncate_prompt
from pipeline.tokenize.row_tokenizer import text_tokenizer
from pipeline.tokenize.stage import encode_chunk, prefetch, require_positions, summarize_audit, tokenize_files
from pipeline.tokenize.unknown import UnknownCounter

UNKNOWN, BOS, EOS = 0, 1, 2
VOCABULARY = {
    "<unk>": UNKNOWN,
    "<bos>": BOS,
    "<eos>": EOS,
    "is": 3,
    "it": 4,
    "flu": 5,
    "?": 6,
    "no": 7,
    ".": 8,
    "rest": 9,
}
ROWS = [
    {"id": 0, "prompt": "is it flu ?", "completion": "no ."},
    {"id": 1, "prompt": "flu ?", "completion": "rest"},
    {"id": 2, "prompt": "", "completion": "it is flu ."},
]


def word_tokenizer(bos: bool) -> Tokenizer:
    tokenizer = Tokenizer(WordLevel(VOCABULARY, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.add_special_tokens(["<unk>", "<bos>", "<eos>"])
    if bos:
        tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", BOS)])
    return tokenizer


def encoder(bos: bool) -> Encoder:
    return Encoder(word_tokenizer(bos), (BOS,) if bos else (), EOS, EOS)


def model_folder(folder: Path, tokenizer: Tokenizer, **config: object) -> Path:
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def options(max_length: int = 16, loss: str = "assistant", **gates: float) -> Tokenize:
    """Without limits other than those of `gates`."""
    return Tokenize(
        max_length=max_length,
        loss=loss,
        batch_size=2,
        group_by_length=False,
        packing=False,
        gradient_accumulation=1,
        processes=1,
        nodes=1,
        gates=Gates(**{**dict.fromkeys(Gates.model_fields), **gates}),
    )


def tokenized(rows: list[dict[str, Any]], folder: Path, encoder: Encoder, options: Tokenize) -> list[dict[str, Any]]:
    """The rows that the stage writes for these training rows, read back."""
    write_jsonl(folder / "train.jsonl", rows)
    tokenize_files({"train": folder / "train.jsonl"}, folder / "tokenized", text_tokenizer(encoder), options)
    return pq.read_table(folder / "tokenized/train.parquet").to_pylist()


IDS = [3, 4, 5, 6, 7, 8, 2], [5, 6, 9, 2], [4, 3, 5, 8, 2]
LABELS = [-100, -100, -100, -100, 7, 8, 2], [-100, -100, 9, 2], [4, 3, 5, 8, 2]
IDS_AFTER_START = [1, 3, 4, 5, 6, 7, 8, 2], [1, 5, 6, 9, 2], [1, 4, 3, 5, 8, 2]
LABELS_AFTER_START = [-100, -100, -100, -100, -100, 7, 8, 2], [-100, -100, -100, 9, 2], [-100, 4, 3, 5, 8, 2]


@pytest.mark.parametrize(
    ("bos", "loss", "input_ids", "labels"),
    [
        (False, "assistant", IDS, LABELS),
        (False, "full", IDS, IDS),
        (True, "assistant", IDS_AFTER_START, LABELS_AFTER_START),
        (True, "full", IDS_AFTER_START, IDS_AFTER_START),
    ],
    ids=["assistant", "full", "assistant, start token", "full, start token"],
)
def test_rows_become_input_ids_and_labels(
    tmp_path: Path, bos: bool, loss: str, input_ids: tuple[list[int], ...], labels: tuple[list[int], ...]
) -> None:
    assert tokenized(ROWS, tmp_path, encoder(bos), options(loss=loss)) == [
        {"id": number, "input_ids": row_ids, "labels": row_labels, "length": len(row_ids), "dropped_tokens": 0}
        for number, (row_ids, row_labels) in enumerate(zip(input_ids, labels, strict=True))
    ]


def test_rows_keep_their_order_over_chunks_and_files_are_reproducible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.tokenize.stage.CHUNK_ROWS", 2)
    files = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        rows = tokenized(ROWS, tmp_path / name, encoder(False), options())
        assert [row["input_ids"][0] for row in rows] == [3, 5, 4]
        files.append((tmp_path / name / "tokenized/train.parquet").read_bytes())
    assert files[0] == files[1]


def test_rows_equal_those_of_build_example(tmp_path: Path) -> None:
    chance = random.Random(0)
    words = [*VOCABULARY][3:]
    texts = [[" ".join(chance.choices(words, k=chance.randint(0, 20))) for _ in range(2)] for _ in range(300)]
    rows = [{"id": at, "prompt": prompt, "completion": answer} for at, (prompt, answer) in enumerate(texts)]
    for bos, loss in ((False, "assistant"), (True, "full")):
        row_encoder = encoder(bos)
        prompts = row_encoder.encode_prompts(prompt for prompt, _ in texts)
        completions = row_encoder.encode_completions(completion for _, completion in texts)
        expected = [
            build_example(*pair, 16, loss, row_encoder.start_ids) for pair in zip(prompts, completions, strict=True)
        ]
        found = tokenized(rows, tmp_path, row_encoder, options(loss=loss))
        assert [(row["input_ids"], row["labels"]) for row in found] == [example[:2] for example in expected]


def test_end_of_text_is_labeled_even_if_it_is_the_pad_token(tmp_path: Path) -> None:
    tokenizer = word_tokenizer(bos=False)
    tokenizer.enable_padding(pad_id=EOS, pad_token="<eos>", length=12)
    tokenizer.enable_truncation(2)
    loaded = load_encoder(model_folder(tmp_path, tokenizer, eos_token="<eos>", pad_token="<eos>"))
    rows = tokenized(ROWS[:2], tmp_path, loaded, options())
    assert [row["labels"] for row in rows] == [[-100, -100, -100, -100, 7, 8, 2], [-100, -100, 9, 2]]


def test_row_is_truncated_to_max_length(tmp_path: Path) -> None:
    long = {"id": 0, "prompt": "is it flu ? is it flu ?", "completion": "no ."}
    (row,) = tokenized([long], tmp_path, encoder(True), options(max_length=8))
    assert row == {
        "id": 0,
        "input_ids": [1, 3, 4, 5, 6, 7, 8, 2],
        "labels": [-100, -100, -100, -100, -100, 7, 8, 2],
        "length": 8,
        "dropped_tokens": 4,
    }


def test_metrics_cover_every_split_and_an_epoch(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", ROWS)
    write_jsonl(tmp_path / "validation.jsonl", [{"id": 3, "prompt": "it ?", "completion": "no"}, {**ROWS[1], "id": 4}])
    sources = {name: tmp_path / f"{name}.jsonl" for name in ("train", "validation")}
    metrics = tokenize_files(sources, tmp_path / "tokenized", text_tokenizer(encoder(False)), options())
    assert {name: metrics["train"][name] for name in ("rows", "tokens", "rows_duplicates")} == {
        "rows": 3,
        "tokens": 16,
        "rows_duplicates": 0,
    }
    assert metrics["validation"]["rows_duplicates"] == 1  # of train's second row
    assert metrics["epoch"]["tokens"] == 16
    assert metrics["epoch"]["tokens_in_loss"] == 3 + 2 + 4
    assert (metrics["epoch"]["batch_size"], metrics["epoch"]["batches"]) == (2, 2)
    assert metrics["epoch"]["padding"]["share"] == metrics["epoch"]["padding"]["shuffled"]


def test_summary_names_only_the_problems_that_occur() -> None:
    train: dict[str, Any] = {"rows": 1300, "tokens": 9000, "supervised_share": 0.5, "rows_truncated": 0}
    train |= {"rows_wrong_start": 0, "rows_prompt_mismatch": 0}
    train |= {"answer_tokens_lost": 0, "rows_unended": 0, "rows_duplicates": 0, "prefixes": {"rows_different": 0}}
    train["unknown"] = {"answer_tokens": 0, "prompt_tokens": 0}
    batches = {"padding": {"share": 0.25}}
    plain = "train: 1,300 rows, 9,000 tokens (50% labeled); 25% of batch positions are padding"
    assert summarize_audit({"train": train, "epoch": batches}) == plain
    train |= {"rows_truncated": 7, "answer_tokens_lost": 30, "rows_unended": 2}
    assert summarize_audit({"train": train, "epoch": batches}) == (
        f"{plain}; 7 rows truncated, 30 answer tokens lost, 2 rows with an answer whose end is not learned"
    )


def test_exceeded_gates_are_all_reported_and_nothing_is_written(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", [*ROWS, {"id": 7, "prompt": "flu ?", "completion": "no . " * 6}])
    write_jsonl(tmp_path / "validation.jsonl", [{**ROWS[0], "id": 8}])
    sources = {name: tmp_path / f"{name}.jsonl" for name in ("train", "validation")}
    with pytest.raises(DataError) as error:
        tokenize_files(
            sources,
            tmp_path / "tokenized",
            text_tokenizer(encoder(False)),
            options(8, max_unended=0.0, max_duplicates=0.5, max_truncated=0.3),
        )
    assert str(error.value).splitlines() == [
        "these rows are not fit for training:",
        "  tokenize.gates.max_unended: 1 of 4 rows of train (25.00%, the first has id 7) have an answer whose end is not "
        "learned, so they teach the model not to stop: it is truncated, or the chat template leaves out the token that ends a "
        "turn; the limit is 0.00%. Raise tokenize.max_length, leave out the rows with the longest answers "
        "(clean.answer.max_tokens), correct the template, or allow it: tokenize.gates.max_unended=0.25",
        "  tokenize.gates.max_duplicates: 1 of 1 rows of validation (100.00%, the first has id 8) have the same token ids as "
        "an earlier row of their own split or the training set; the limit is 50.00%. Leave them out, or allow it: "
        "tokenize.gates.max_duplicates=1",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train.jsonl", "validation.jsonl"]


def test_limit_that_an_exceeded_gate_proposes_lets_the_rows_pass(tmp_path: Path) -> None:
    rows = [*ROWS, {"id": 7, "prompt": "flu ?", "completion": "no . " * 6}]
    assert len(tokenized(rows, tmp_path, encoder(False), options(8, max_unended=0.25))) == 4


def merging_encoder() -> Encoder:
    """Its tokenizer merges a colon with a b that follows: "a:" and "b" together are the tokens a and :b."""
    tokenizer = Tokenizer(BPE({"a": 0, ":": 1, "b": 2, ":b": 3, "<eos>": 4}, [(":", "b")]))
    return Encoder(tokenizer, (), 4, 4)


def test_prompts_that_tokenize_differently_alone_are_found(tmp_path: Path) -> None:
    rows = [{"id": 5, "prompt": "a:", "completion": "a"}, {"id": 6, "prompt": "a:", "completion": "b"}]
    assert tokenized(rows, tmp_path, merging_encoder(), options())[1]["input_ids"] == [0, 1, 2, 4]
    with pytest.raises(
        DataError, match=r"1 of 2 rows checked of train \(50\.00%, the first has id 6\) have a prompt whose"
    ):
        tokenized(rows, tmp_path, merging_encoder(), options(max_prefix_mismatch=0.4))


def test_prefixes_are_checked_in_the_first_rows_and_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("CHECK_FIRST", 2), ("CHECK_EVERY", 4)):
        monkeypatch.setattr(f"pipeline.tokenize.stage.{name}", value)
    rows = [(at, {"id": at, "prompt": "a:", "completion": "b"}) for at in range(10)]
    merging = merging_encoder()
    counter = UnknownCounter(merging.tokenizer)
    chunks = [encode_chunk(rows[at : at + 3], merging, counter, tmp_path) for at in range(0, 10, 3)]
    assert [chunk.prefix_checks for chunk in chunks] == [[(0, True), (1, True)], [(4, True)], [(8, True)], []]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "train.jsonl is damaged (it holds no rows); an earlier stage writes it"),
        ('{"prompt": "a", "completion": "b"}\n{"prompt": "a"}\n', "(row 2 has no text in completion)"),
        ('{"prompt": 3, "completion": "b"}\n', "(row 1 has no text in prompt)"),
        ('{"id": "7", "prompt": "a", "completion": "b"}\n', "(row 1 has no number in id)"),
        ('{"prompt": "a", "completion": "b"}\n{"pro', "train.jsonl, line 2: not JSON"),
    ],
    ids=["no rows", "no completion", "a number", "no id", "cut off"],
)
def test_damaged_input_is_reported_with_its_row(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "train.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=re.escape(message)):
        tokenize_files(
            {"train": tmp_path / "train.jsonl"}, tmp_path / "tokenized", text_tokenizer(encoder(False)), options()
        )
    assert [path.name for path in tmp_path.iterdir()] == ["train.jsonl"]


def test_prefetched_results_and_errors_come_in_order() -> None:
    assert list(prefetch(lambda value: value * 2, range(7))) == [0, 2, 4, 6, 8, 10, 12]
    assert list(prefetch(str, [])) == []
    results = prefetch(lambda value: 12 // value, [3, 2, 0, 1])
    assert [next(results), next(results)] == [4, 6]
    with pytest.raises(ZeroDivisionError):
        next(results)


@pytest.mark.parametrize(
    ("prompt", "completion", "start", "input_ids", "labeled", "dropped"),
    [
        ([11, 12, 13, 14, 15], [21, 22, 2], (), [11, 12, 13, 14, 15, 21, 22, 2], 3, 0),
        ([10, 11, 12, 13, 14, 15], [21, 22, 2], (), [11, 12, 13, 14, 15, 21, 22, 2], 3, 1),
        ([1, 11, 12, 13, 14, 15], [21, 22, 2], (BOS,), [1, 12, 13, 14, 15, 21, 22, 2], 3, 1),
        ([11, 12, 13, 14], [21, 22, 23, 24, 25, 2], (), [13, 14, 21, 22, 23, 24, 25, 2], 6, 2),
        ([11, 12, 13, 14], [21, 22, 23, 24, 25, 26, 2], (), [13, 14, 21, 22, 23, 24, 25, 26], 6, 3),
        ([1, 12, 13, 14], [21, 22, 23, 24, 25, 26, 2], (BOS,), [1, 14, 21, 22, 23, 24, 25, 26], 6, 3),
        ([11], [21, 22, 23, 24, 25, 26, 27, 28, 2], (), [11, 21, 22, 23, 24, 25, 26, 27], 7, 2),
        ([], [21, 22, 23, 24, 25, 26, 27, 28, 2], (), [21, 22, 23, 24, 25, 26, 27, 28], 8, 1),
    ],
    ids=[
        "just fits",
        "prompt loses its start",
        "start token stays",
        "prompt down to a quarter",
        "then the completion loses its end",
        "start token and completion's end",
        "short prompt stays whole",
        "plain text",
    ],
)
def test_row_of_at_most_eight_tokens(
    prompt: list[int], completion: list[int], start: tuple[int, ...], input_ids: list[int], labeled: int, dropped: int
) -> None:
    labels = [-100] * (8 - labeled) + input_ids[8 - labeled :]
    assert build_example(prompt, completion, 8, "assistant", start) == Example(input_ids, labels, dropped)
    assert build_example(prompt, completion, 8, "full", start) == Example(input_ids, input_ids, dropped)


def test_every_row_has_labels_and_the_right_length() -> None:
    chance = random.Random(0)
    for _ in range(3000):
        max_length = chance.randint(8, 40)
        start = chance.choice([(), (BOS,), (BOS, 3)])
        prompt = [*start, *range(100, 100 + chance.randint(0, 60))]
        completion = [*range(200, 200 + chance.randint(0, 60)), EOS]
        example = build_example(prompt, completion, max_length, "assistant", start)
        labels = [label for label in example.labels if label != -100]
        tokens = len(prompt) + len(completion)
        assert len(example.input_ids) == len(example.labels) == min(tokens, max_length)
        assert example.dropped_tokens == tokens - len(example.input_ids)
        assert labels == completion[: len(labels)]
        assert example.input_ids[len(example.input_ids) - len(labels) :] == labels
        assert len(labels) >= min(len(completion), max_length - max_length // 4)
        assert tuple(example.input_ids[: min(len(start), max_length // 4)]) == start[: max_length // 4]


def test_truncated_prompt_without_a_start_token_is_its_end() -> None:
    assert truncate_prompt([11, 12, 13], 2, start_ids=(1,)) == [12, 13]
    assert truncate_prompt([1, 12, 13], 1, start_ids=(1,)) == [1]


def test_max_length_above_the_models_positions_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 64}', encoding="utf-8")
    require_positions(64, tmp_path)
    with pytest.raises(DataError, match=r"tokenize\.max_length: 65 is more than the model's 64 positions"):
        require_positions(65, tmp_path)


def test_model_without_a_limit_of_positions_allows_any_length(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    require_positions(10**6, tmp_path)


@pytest.mark.parametrize("eos_token", ["<eos>", {"content": "<eos>", "special": True}], ids=["text", "object"])
@pytest.mark.parametrize(("bos", "start"), [(False, ()), (True, (BOS,))], ids=["no start token", "start token"])
def test_loaded_encoder_has_the_ids_of_start_and_end(
    tmp_path: Path, eos_token: str | dict[str, object], bos: bool, start: tuple[int, ...]
) -> None:
    loaded = load_encoder(model_folder(tmp_path, word_tokenizer(bos), eos_token=eos_token))
    assert (loaded.start_ids, loaded.eos_id) == (start, EOS)


@pytest.mark.parametrize("config", [{}, {"eos_token": None}, {"eos_token": "</s>"}], ids=["absent", "null", "unknown"])
def test_tokenizer_without_an_end_of_text_is_refused(tmp_path: Path, config: dict[str, object]) -> None:
    with pytest.raises(ModelError, match=r"has no end-of-text token; name one as eos_token"):
        load_encoder(model_folder(tmp_path, word_tokenizer(bos=False), **config))
