"""pipeline/tokenize/stage.py and encoding.py, with a tokenizer whose ids are known by heart."""

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
from pipeline.tokenize.stage import encode_chunk, prefetch, require_positions, summarize_audit, tokenize_files

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


def tokenizer(bos: bool) -> Tokenizer:
    made = Tokenizer(WordLevel(VOCABULARY, unk_token="<unk>"))
    made.pre_tokenizer = Whitespace()
    made.add_special_tokens(["<unk>", "<bos>", "<eos>"])
    if bos:
        made.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", BOS)])
    return made


def encoder(bos: bool) -> Encoder:
    return Encoder(tokenizer(bos), BOS if bos else None, EOS, EOS)


def model_folder(folder: Path, made: Tokenizer, **config: object) -> Path:
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def options(max_length: int = 16, loss: str = "completion", **gates: float) -> Tokenize:
    """With every gate open but those given."""
    opened = Gates(**{**dict.fromkeys(Gates.model_fields), **gates})
    return Tokenize(max_length=max_length, loss=loss, batch_size=2, group_by_length=False, gates=opened)


def written(rows: list[dict[str, Any]], folder: Path, using: Encoder, chosen: Tokenize) -> list[dict[str, Any]]:
    """The rows that the stage writes of train, read back."""
    write_jsonl(folder / "train.jsonl", rows)
    tokenize_files({"train": folder / "train.jsonl"}, folder / "tokenized", using, chosen)
    return pq.read_table(folder / "tokenized/train.parquet").to_pylist()


PLAIN = [3, 4, 5, 6, 7, 8, 2], [5, 6, 9, 2], [4, 3, 5, 8, 2]
LEARNED = [-100, -100, -100, -100, 7, 8, 2], [-100, -100, 9, 2], [4, 3, 5, 8, 2]
STARTED = [1, 3, 4, 5, 6, 7, 8, 2], [1, 5, 6, 9, 2], [1, 4, 3, 5, 8, 2]
LEARNED_AFTER_START = [-100, -100, -100, -100, -100, 7, 8, 2], [-100, -100, -100, 9, 2], [-100, 4, 3, 5, 8, 2]


@pytest.mark.parametrize(
    ("bos", "loss", "input_ids", "labels"),
    [
        (False, "completion", PLAIN, LEARNED),
        (False, "full", PLAIN, PLAIN),
        (True, "completion", STARTED, LEARNED_AFTER_START),
        (True, "full", STARTED, STARTED),
    ],
    ids=["completion", "full", "completion, start token", "full, start token"],
)
def test_rows_become_these_ids_and_labels(
    tmp_path: Path, bos: bool, loss: str, input_ids: tuple[list[int], ...], labels: tuple[list[int], ...]
) -> None:
    assert written(ROWS, tmp_path, encoder(bos), options(loss=loss)) == [
        {"input_ids": ids, "labels": learned, "length": len(ids)}
        for ids, learned in zip(input_ids, labels, strict=True)
    ]


def test_rows_keep_their_order_over_chunks_and_bytes_are_the_same_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.tokenize.stage.CHUNK", 2)
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        rows = written(ROWS, tmp_path / name, encoder(False), options())
        assert [row["input_ids"][0] for row in rows] == [3, 5, 4]
        found.append((tmp_path / name / "tokenized/train.parquet").read_bytes())
    assert found[0] == found[1]


def test_rows_are_those_that_join_makes_one_by_one(tmp_path: Path) -> None:
    chance = random.Random(0)
    words = [*VOCABULARY][3:]
    texts = [[" ".join(chance.choices(words, k=chance.randint(0, 20))) for _ in range(2)] for _ in range(300)]
    rows = [{"id": at, "prompt": prompt, "completion": answer} for at, (prompt, answer) in enumerate(texts)]
    for bos, loss in ((False, "completion"), (True, "full")):
        using = encoder(bos)
        pairs = zip(*(using.prompts(t[0] for t in texts), using.completions(t[1] for t in texts)), strict=True)
        expected = [build_example(*pair, 16, loss, using.bos) for pair in pairs]
        found = written(rows, tmp_path, using, options(loss=loss))
        assert [(row["input_ids"], row["labels"]) for row in found] == [each[:2] for each in expected]


def test_end_of_text_is_learned_even_where_it_is_the_pad_token(tmp_path: Path) -> None:
    made = tokenizer(bos=False)
    made.enable_padding(pad_id=EOS, pad_token="<eos>", length=12)
    made.enable_truncation(2)
    loaded = load_encoder(model_folder(tmp_path, made, eos_token="<eos>", pad_token="<eos>"))
    rows = written(ROWS[:2], tmp_path, loaded, options())
    assert [row["labels"] for row in rows] == [[-100, -100, -100, -100, 7, 8, 2], [-100, -100, 9, 2]]


def test_row_is_cut_to_max_length(tmp_path: Path) -> None:
    long = {"id": 0, "prompt": "is it flu ? is it flu ?", "completion": "no ."}
    (row,) = written([long], tmp_path, encoder(True), options(max_length=8))
    assert row == {
        "input_ids": [1, 3, 4, 5, 6, 7, 8, 2],
        "labels": [-100, -100, -100, -100, -100, 7, 8, 2],
        "length": 8,
    }


def test_metrics_are_of_every_split_and_of_an_epoch(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", ROWS)
    write_jsonl(tmp_path / "validation.jsonl", [{"id": 3, "prompt": "it ?", "completion": "no"}, {**ROWS[1], "id": 4}])
    sources = {name: tmp_path / f"{name}.jsonl" for name in ("train", "validation")}
    metrics = tokenize_files(sources, tmp_path / "tokenized", encoder(False), options())
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


def test_summary_names_faults_only_where_there_are_any() -> None:
    train: dict[str, Any] = {"rows": 1300, "tokens": 9000, "supervised_share": 0.5, "rows_truncated": 0}
    train |= {"answer_tokens_lost": 0, "rows_unended": 0, "rows_duplicates": 0, "prefixes": {"rows_different": 0}}
    batches = {"padding": {"share": 0.25}}
    plain = "train: 1,300 rows, 9,000 tokens, 50% of them in the loss, 25% padding"
    assert summarize_audit({"train": train, "epoch": batches}) == plain
    train |= {"rows_truncated": 7, "answer_tokens_lost": 30, "rows_unended": 2}
    assert summarize_audit({"train": train, "epoch": batches}) == (
        f"{plain}, 7 rows truncated, 30 answer tokens lost, 2 answers without an end"
    )


def test_a_gate_that_is_exceeded_stops_the_run_with_everything_named_and_nothing_written(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", [*ROWS, {"id": 7, "prompt": "flu ?", "completion": "no . " * 6}])
    write_jsonl(tmp_path / "validation.jsonl", [{**ROWS[0], "id": 8}])
    sources = {name: tmp_path / f"{name}.jsonl" for name in ("train", "validation")}
    with pytest.raises(DataError) as error:
        tokenize_files(
            sources,
            tmp_path / "tokenized",
            encoder(False),
            options(8, max_unended=0.0, max_duplicates=0.5, max_truncated=0.3),
        )
    assert str(error.value).splitlines() == [
        "training would not go well on these rows:",
        "  tokenize.gates.max_unended: 1 of 4 rows of train (25.00%, the first has id 7) have no end of text in the loss, as "
        "their answer is cut: from such rows a model learns not to stop; allowed are 0.00%. Raise tokenize.max_length, "
        "leave out the rows with the longest answers (clean.answer.max_tokens), or allow it: tokenize.gates.max_unended=0.25",
        "  tokenize.gates.max_duplicates: 1 of 1 rows of validation (100.00%, the first has id 8) have the token ids of an "
        "earlier row, of train or of their own split; allowed are 50.00%. Leave them out, or allow it: "
        "tokenize.gates.max_duplicates=1",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train.jsonl", "validation.jsonl"]


def test_what_an_exceeded_gate_proposes_lets_the_rows_pass(tmp_path: Path) -> None:
    rows = [*ROWS, {"id": 7, "prompt": "flu ?", "completion": "no . " * 6}]
    assert len(written(rows, tmp_path, encoder(False), options(8, max_unended=0.25))) == 4


def byte_pairs() -> Encoder:
    """A tokenizer that joins a colon and what follows it: of "a:" and "b" it makes a, :b."""
    made = Tokenizer(BPE({"a": 0, ":": 1, "b": 2, ":b": 3, "<eos>": 4}, [(":", "b")]))
    return Encoder(made, None, 4, 4)


def test_prompts_that_tokenize_differently_alone_are_found(tmp_path: Path) -> None:
    rows = [{"id": 5, "prompt": "a:", "completion": "a"}, {"id": 6, "prompt": "a:", "completion": "b"}]
    assert written(rows, tmp_path, byte_pairs(), options())[1]["input_ids"] == [0, 1, 2, 4]
    with pytest.raises(
        DataError, match=r"1 of 2 rows checked of train \(50\.00%, the first has id 6\) have a prompt that"
    ):
        written(rows, tmp_path, byte_pairs(), options(max_prefix_mismatch=0.4))


def test_the_border_is_looked_at_in_the_first_rows_and_in_some_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("CHECKED", 2), ("STEP", 4)):
        monkeypatch.setattr(f"pipeline.tokenize.stage.{name}", value)
    rows = [(at, {"id": at, "prompt": "a:", "completion": "b"}) for at in range(10)]
    chunks = [encode_chunk(rows[at : at + 3], byte_pairs(), tmp_path) for at in range(0, 10, 3)]
    assert [chunk.checked for chunk in chunks] == [[(0, True), (1, True)], [(4, True)], [(8, True)], []]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "train.jsonl is damaged (it holds no rows); an earlier stage writes it"),
        ('{"prompt": "a", "completion": "b"}\n{"prompt": "a"}\n', "(row 2 has no text as its completion)"),
        ('{"prompt": 3, "completion": "b"}\n', "(row 1 has no text as its prompt)"),
        ('{"prompt": "a", "completion": "b"}\n{"pro', "train.jsonl, line 2: not JSON"),
    ],
    ids=["no rows", "no completion", "a number", "cut off"],
)
def test_rows_that_are_not_what_format_writes_are_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "train.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=re.escape(message)):
        tokenize_files({"train": tmp_path / "train.jsonl"}, tmp_path / "tokenized", encoder(False), options())
    assert [path.name for path in tmp_path.iterdir()] == ["train.jsonl"]


def test_work_done_ahead_comes_in_order_and_so_do_its_errors() -> None:
    assert list(prefetch(lambda value: value * 2, range(7))) == [0, 2, 4, 6, 8, 10, 12]
    assert list(prefetch(str, [])) == []
    done = prefetch(lambda value: 12 // value, [3, 2, 0, 1])
    assert [next(done), next(done)] == [4, 6]
    with pytest.raises(ZeroDivisionError):
        next(done)


@pytest.mark.parametrize(
    ("prompt", "completion", "bos", "input_ids", "learned", "truncated"),
    [
        ([11, 12, 13, 14, 15], [21, 22, 2], None, [11, 12, 13, 14, 15, 21, 22, 2], 3, 0),
        ([10, 11, 12, 13, 14, 15], [21, 22, 2], None, [11, 12, 13, 14, 15, 21, 22, 2], 3, 1),
        ([1, 11, 12, 13, 14, 15], [21, 22, 2], BOS, [1, 12, 13, 14, 15, 21, 22, 2], 3, 1),
        ([11, 12, 13, 14], [21, 22, 23, 24, 25, 2], None, [13, 14, 21, 22, 23, 24, 25, 2], 6, 2),
        ([11, 12, 13, 14], [21, 22, 23, 24, 25, 26, 2], None, [13, 14, 21, 22, 23, 24, 25, 26], 6, 3),
        ([1, 12, 13, 14], [21, 22, 23, 24, 25, 26, 2], BOS, [1, 14, 21, 22, 23, 24, 25, 26], 6, 3),
        ([11], [21, 22, 23, 24, 25, 26, 27, 28, 2], None, [11, 21, 22, 23, 24, 25, 26, 27], 7, 2),
        ([], [21, 22, 23, 24, 25, 26, 27, 28, 2], None, [21, 22, 23, 24, 25, 26, 27, 28], 8, 1),
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
    prompt: list[int], completion: list[int], bos: int | None, input_ids: list[int], learned: int, truncated: int
) -> None:
    labels = [-100] * (8 - learned) + input_ids[8 - learned :]
    assert build_example(prompt, completion, 8, "completion", bos) == Example(input_ids, labels, truncated)
    assert build_example(prompt, completion, 8, "full", bos) == Example(input_ids, input_ids, truncated)


def test_no_row_is_without_labels_or_too_long_or_miscounted() -> None:
    chance = random.Random(0)
    for _ in range(3000):
        max_length = chance.randint(8, 40)
        bos = chance.choice([None, BOS])
        prompt = [*([bos] if bos else []), *range(100, 100 + chance.randint(0, 60))]
        completion = [*range(200, 200 + chance.randint(0, 60)), EOS]
        example = build_example(prompt, completion, max_length, "completion", bos)
        learned = [label for label in example.labels if label != -100]
        whole = len(prompt) + len(completion)
        assert len(example.input_ids) == len(example.labels) == min(whole, max_length)
        assert example.truncated == whole - len(example.input_ids)
        assert learned == completion[: len(learned)]
        assert example.input_ids[len(example.input_ids) - len(learned) :] == learned
        assert len(learned) >= min(len(completion), max_length - max_length // 4)
        assert not prompt or bos is None or example.input_ids[0] == bos


def test_shortened_prompt_without_a_start_token_is_its_end_alone() -> None:
    assert truncate_prompt([11, 12, 13], 2, bos=1) == [12, 13]
    assert truncate_prompt([1, 12, 13], 1, bos=1) == [1]


def test_rows_longer_than_the_models_positions_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 64}', encoding="utf-8")
    require_positions(64, tmp_path)
    with pytest.raises(DataError, match=r"tokenize\.max_length: 65 is more than the model's 64 positions"):
        require_positions(65, tmp_path)


def test_model_without_a_limit_of_positions_takes_any_length(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    require_positions(10**6, tmp_path)


@pytest.mark.parametrize("eos_token", ["<eos>", {"content": "<eos>", "special": True}], ids=["text", "object"])
@pytest.mark.parametrize(("bos", "start"), [(False, None), (True, BOS)], ids=["no start token", "start token"])
def test_loaded_encoder_knows_start_and_end(
    tmp_path: Path, eos_token: str | dict[str, object], bos: bool, start: int | None
) -> None:
    loaded = load_encoder(model_folder(tmp_path, tokenizer(bos), eos_token=eos_token))
    assert (loaded.bos, loaded.eos) == (start, EOS)


@pytest.mark.parametrize("config", [{}, {"eos_token": None}, {"eos_token": "</s>"}], ids=["absent", "null", "unknown"])
def test_tokenizer_without_an_end_of_text_is_refused(tmp_path: Path, config: dict[str, object]) -> None:
    with pytest.raises(ModelError, match=r"has no end-of-text token; name one as eos_token"):
        load_encoder(model_folder(tmp_path, tokenizer(bos=False), **config))
