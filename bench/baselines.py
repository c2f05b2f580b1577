"""The same data work done in other ways: the tutorial's code, and the Rust tokenizer alone."""

import re
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHUNK_TEXTS = 10_000  # tokenized at a time: many keep the tokenizer's threads busy
PROMPT = "### Question:\n{question}\n### Answer:"


def tutorial_rate(rows: list[dict[str, Any]], question: str, answer: str, tokenizer_folder: Path) -> float:
    """Rows per second of the tutorial's cleaning, formatting and tokenizing, without imports.

    question, answer: the columns of `rows`. The code is the tutorial's verbatim, except for what it takes from a library that
    it does not show: tokenizing is a map over batches of one row, as in the walkthroughs with that function.
    """
    import datasets
    import pandas as pd
    from transformers import AutoTokenizer

    datasets.disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    tokenizer.pad_token = tokenizer.eos_token

    def tokenize_function(examples: dict[str, list[str]]) -> Any:
        text = examples["question"][0] + examples["answer"][0]
        length = min(tokenizer(text, return_tensors="np", padding=True)["input_ids"].shape[1], 2048)
        return tokenizer(text, return_tensors="np", truncation=True, max_length=length)

    started = time.perf_counter()
    df = pd.DataFrame(rows)[[question, answer]].rename(columns={question: "question", answer: "answer"})
    df["question"] = df["question"].apply(lambda x: re.sub(r"\s+", " ", x.strip()))
    df["answer"] = df["answer"].apply(lambda x: re.sub(r"\s+", " ", x.strip()))
    df["question"] = df["question"].str.lstrip("Q. ")
    examples = df.to_dict()
    formatted = []
    for i in range(len(examples["question"])):
        prompt = PROMPT.format(question=examples["question"][i])
        formatted.append({"question": prompt, "answer": examples["answer"][i]})
    dataset = datasets.Dataset.from_list(formatted)
    dataset.map(tokenize_function, batched=True, batch_size=1, drop_last_batch=True)
    return len(rows) / (time.perf_counter() - started)


def bare_tokenizer_rate(rows: list[dict[str, str]], tokenizer_folder: Path, repeats: int) -> float:
    """Rows per second of encoding prompts and completions without keeping the result, the median of `repeats`."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    return statistics.median(len(rows) / _encoding_seconds(rows, tokenizer) for _ in range(repeats))


def _encoding_seconds(rows: list[dict[str, str]], tokenizer: Any) -> float:
    started = time.perf_counter()
    for texts in _chunks(rows):
        tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    return time.perf_counter() - started


def _chunks(rows: list[dict[str, str]]) -> Iterator[list[str]]:
    for start in range(0, len(rows), CHUNK_TEXTS):
        for column in ("prompt", "completion"):
            yield [row[column] for row in rows[start : start + CHUNK_TEXTS]]
