"""pipeline/modeling/encoding.py: the start tokens of tokenizers of any vocabulary are those that transformers adds."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, LlamaTokenizer, PreTrainedTokenizerFast

from pipeline.errors import DataError
from pipeline.modeling.encoding import load_encoder, start_ids_of

UNKNOWN, START, END, MASK = 0, 1, 2, 3
SPECIAL = {"<unk>": UNKNOWN, "<s>": START, "</s>": END, "<mask>": MASK}
ALPHABETS = {"DNA": "ACGT", "SMILES": "CNO()=1", "Arabic": "كيف", "latin": "abc"}
TEMPLATES: dict[str, tuple[Any, tuple[int, ...]]] = {
    "nothing": (None, ()),
    "template without special tokens": (processors.TemplateProcessing(single="$A", special_tokens=[]), ()),
    "start": (processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", START)]), (START,)),
    "start and end": (
        processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", START), ("</s>", END)]), (START,),
    ),
    "end": (processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", END)]), ()),
    "end of text at the start": (processors.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", END)]), (END,)),
    "two at the start": (
        processors.TemplateProcessing(single="<mask> <s> $A", special_tokens=[("<mask>", MASK), ("<s>", START)]),
        (MASK, START),
    ),
    "RoBERTa": (processors.RobertaProcessing(("</s>", END), ("<s>", START)), (START,)),
    "BERT": (processors.BertProcessing(("</s>", END), ("<s>", START)), (START,)),
    "byte level": (processors.ByteLevel(trim_offsets=True), ()),
    "sequence": (
        processors.Sequence([
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", START)]),
        ]),
        (START,),
    ),
}  # fmt: skip


def character_tokenizer(characters: str, kind: str = "WordLevel", processor: Any = None) -> Tokenizer:
    vocabulary = SPECIAL | {character: len(SPECIAL) + index for index, character in enumerate(characters)}
    tokenizer = Tokenizer(
        models.WordLevel(vocabulary, unk_token="<unk>") if kind == "WordLevel" else models.BPE(vocabulary, [])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.add_special_tokens(list(SPECIAL))
    if processor is not None:
        tokenizer.post_processor = processor
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path, **config: Any) -> Path:
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    return folder


@pytest.mark.parametrize("kind", ["WordLevel", "BPE"])
@pytest.mark.parametrize("characters", ALPHABETS.values(), ids=ALPHABETS)
@pytest.mark.parametrize(("processor", "start"), TEMPLATES.values(), ids=TEMPLATES)
def test_prompt_starts_as_transformers_starts_it(
    tmp_path: Path, processor: Any, start: tuple[int, ...], characters: str, kind: str
) -> None:
    folder = save(character_tokenizer(characters, kind, processor), tmp_path)
    encoder = load_encoder(folder)
    text = characters[0] * 2
    ids = AutoTokenizer.from_pretrained(folder)(text).input_ids
    assert encoder.start_ids == start
    assert encoder.encode_prompts([text]) == [[*start, 4, 4]]
    assert ids[: len(start) + 2] == [*start, 4, 4]


@pytest.mark.parametrize("adds_end", [False, True])
@pytest.mark.parametrize("adds_start", [False, True])
def test_start_token_of_llama_follows_add_bos_token(tmp_path: Path, adds_start: bool, adds_end: bool) -> None:
    vocabulary = {**SPECIAL, "▁": 4, "C": 5}
    LlamaTokenizer(vocab=vocabulary, merges=[], add_bos_token=adds_start, add_eos_token=adds_end).save_pretrained(
        tmp_path
    )
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert (loaded("C").input_ids[:1] == [START]) == adds_start
    loaded.save_pretrained(tmp_path)  # as fetch does
    assert load_encoder(tmp_path).start_ids == ((START,) if adds_start else ())


def test_empty_vocabulary_has_start_tokens_too() -> None:
    tokenizer = Tokenizer(models.BPE({}, []))
    tokenizer.add_special_tokens(["<s>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    assert start_ids_of(tokenizer) == (0,)


@pytest.mark.parametrize(
    "model", [models.WordLevel({"AC": 0, "</s>": 1}), models.Unigram([("A", -1.0), ("C", -1.0), ("</s>", 0.0)], None)]
)
def test_text_without_any_token_is_one_error_with_the_word(tmp_path: Path, model: Any) -> None:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    encoder = load_encoder(tmp_path)
    assert encoder.encode_prompts(["AC"])[0][0] == 0
    with pytest.raises(
        DataError, match=r"the model's tokenizer has no token for 'GT' \(.*\) and none for unknown text"
    ):
        encoder.encode_completions(["AC", "AC GT"])
