"""pipeline/tokenize.py and encoding.py, with a tokenizer whose ids are known by heart."""

import json
import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from pipeline.encoding import Encoder, Example, join, load_encoder, shortened
from pipeline.errors import DataError, ModelError
from pipeline.params import Tokenize
from pipeline.tokenize import audit, encode, padding, padding_share, require_positions

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
    bos: bool, loss: str, input_ids: tuple[list[int], ...], labels: tuple[list[int], ...]
) -> None:
    examples = list(encode(ROWS, encoder(bos), Tokenize(max_length=16, loss=loss)))
    assert examples == [Example(ids, learned, truncated=0) for ids, learned in zip(input_ids, labels, strict=True)]


def test_rows_keep_their_order_over_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.tokenize.CHUNK", 2)
    examples = list(encode(ROWS, encoder(False), Tokenize(max_length=16, loss="completion")))
    assert [each.input_ids[0] for each in examples] == [3, 5, 4]


def test_end_of_text_is_learned_even_where_it_is_the_pad_token(tmp_path: Path) -> None:
    made = tokenizer(bos=False)
    made.enable_padding(pad_id=EOS, pad_token="<eos>", length=12)
    made.enable_truncation(2)
    loaded = load_encoder(model_folder(tmp_path, made, eos_token="<eos>", pad_token="<eos>"))
    examples = list(encode(ROWS[:2], loaded, Tokenize(max_length=16, loss="completion")))
    assert [each.labels for each in examples] == [[-100, -100, -100, -100, 7, 8, 2], [-100, -100, 9, 2]]


def test_row_is_cut_to_max_length() -> None:
    long = {"id": 0, "prompt": "is it flu ? is it flu ?", "completion": "no ."}
    (example,) = encode([long], encoder(True), Tokenize(max_length=8, loss="completion"))
    assert example == Example([1, 3, 4, 5, 6, 7, 8, 2], [-100, -100, -100, -100, -100, 7, 8, 2], truncated=4)


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
    assert join(prompt, completion, 8, "completion", bos) == Example(input_ids, labels, truncated)
    assert join(prompt, completion, 8, "full", bos) == Example(input_ids, input_ids, truncated)


def test_no_row_is_without_labels_or_too_long_or_miscounted() -> None:
    chance = random.Random(0)
    for _ in range(3000):
        max_length = chance.randint(8, 40)
        bos = chance.choice([None, BOS])
        prompt = [*([bos] if bos else []), *range(100, 100 + chance.randint(0, 60))]
        completion = [*range(200, 200 + chance.randint(0, 60)), EOS]
        example = join(prompt, completion, max_length, "completion", bos)
        learned = [label for label in example.labels if label != -100]
        whole = len(prompt) + len(completion)
        assert len(example.input_ids) == len(example.labels) == min(whole, max_length)
        assert example.truncated == whole - len(example.input_ids)
        assert learned == completion[: len(learned)]
        assert example.input_ids[len(example.input_ids) - len(learned) :] == learned
        assert len(learned) >= min(len(completion), max_length - max_length // 4)
        assert not prompt or bos is None or example.input_ids[0] == bos


def test_shortened_prompt_without_a_start_token_is_its_end_alone() -> None:
    assert shortened([11, 12, 13], 2, bos=1) == [12, 13]
    assert shortened([1, 12, 13], 1, bos=1) == [1]


def test_audit_counts_what_training_sees() -> None:
    examples = [
        Example([3, 4, 5, 7, 2], [-100, -100, -100, 7, 2], truncated=0),
        Example([5, 6, 9, 8, 7], [-100, -100, 9, 8, 7], truncated=4),
        Example([6, 9, 2], [-100, 9, 2], truncated=1),
        Example([4, 4, 4], [-100, -100, -100], truncated=0),
        Example([9, 2], [9, 2], truncated=0),
    ]
    assert audit(examples, EOS) == {
        "rows": 5,
        "tokens": 18,
        "longest": 5,
        "rows_truncated": 2,
        "tokens_truncated": 5,
        "supervised_share": 9 / 18,
        "rows_without_labels": 1,
        "rows_without_end": 2,
    }


@pytest.mark.parametrize(
    ("lengths", "batch_size", "share"),
    [
        ([4, 4, 4], 2, 0),
        ([1, 4], 1, 0),
        ([1, 3, 4], 2, 2 / 10),
        ([1, 3, 4], 8, 4 / 12),
        ([4, 1, 1, 4], 2, 6 / 16),
        ([1, 1, 4, 4], 2, 0),
    ],
    ids=["equal", "one a batch", "last batch smaller", "batch larger than all", "mixed", "sorted"],
)
def test_padding_share(lengths: list[int], batch_size: int, share: float) -> None:
    assert padding_share(lengths, batch_size) == pytest.approx(share, abs=1e-12)


def test_padding_compares_shuffled_rows_with_sorted_ones() -> None:
    shares = padding([1, 9] * 32)
    assert shares["by_length"] == pytest.approx({"batch_4": 0, "batch_16": 0, "batch_64": 4 / 9})
    assert shares["shuffled"]["batch_4"] > 0.2
    assert shares["shuffled"]["batch_64"] == pytest.approx(4 / 9)


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
