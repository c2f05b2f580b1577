"""Parts of the error table: cases, the commands of users, and functions that write their files into a project."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

Prepare = Callable[[Path], object]  # changes a project's files


class Case(NamedTuple):
    command: list[str]
    messages: tuple[str, ...]  # each is in the output: the key or file, what was expected, what to do
    prepare: Prepare = lambda _: None


# Commands


def experiment(*overrides: str, until: str = "") -> list[str]:
    """An experiment; `until` is the last stage that it runs."""
    return [
        "dvc",
        "exp",
        "run",
        *(part for override in overrides for part in ("-S", override)),
        *([until] if until else []),
    ]


def queue(*overrides: str) -> list[str]:
    return [*experiment(*overrides), "--queue"]


def experiment_on(path: str, *overrides: str, until: str = "") -> list[str]:
    """An experiment with a data file of the user's; `until` is the stage that detects the error."""
    return experiment("data=file", f"data.path={path}", *overrides, until=until)


def python(module: str, *arguments: str) -> list[str]:
    return ["python", "-m", f"pipeline.{module}", *arguments]


def small_disk(kilobytes: int, command: list[str]) -> list[str]:
    """A command that cannot write files larger than this, as if the disk were full."""
    return ["bash", "-c", f'ulimit -f {kilobytes} && exec "$@"', "bash", *command]


def in_data_folder(command: list[str]) -> list[str]:
    return ["bash", "-c", 'cd data && PYTHONPATH=.. exec "$@"', "bash", *command]


# Files


def steps(*changes: Prepare) -> Prepare:
    def prepare(project: Path) -> None:
        for change in changes:
            change(project)

    return prepare


def write(name: str, content: str | bytes) -> Prepare:
    return lambda project: (project / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def write_jsonl(*rows: object) -> Prepare:
    return write("rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def write_chat(messages: object) -> Prepare:
    return write_jsonl(*({"messages": messages} for _ in range(3)))


def write_qa(count: int, question: str, answer: str) -> Prepare:
    return write_jsonl(*({"question": question.format(i), "answer": answer.format(i)} for i in range(count)))


def copy_parquet(project: Path) -> None:
    shutil.copy(project / "data/raw/rows.parquet", project / "rows.parquet")


def truncate(name: str, size: int) -> Prepare:
    return lambda project: (project / name).write_bytes((project / name).read_bytes()[:size])


def remove(name: str) -> Prepare:
    return lambda project: (project / name).unlink()


def edit_rows(name: str, edit: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Prepare:
    """Replace the rows of a JSON Lines file by edited ones."""

    def prepare(project: Path) -> None:
        rows = [json.loads(line) for line in (project / name).read_text().splitlines()]
        (project / name).write_text("".join(json.dumps(row) + "\n" for row in edit(rows)))

    return prepare


def replace(name: str, old: str, new: str) -> Prepare:
    """Replace the first occurrence of a text in a file."""

    def prepare(project: Path) -> None:
        text = (project / name).read_text()
        assert old in text
        (project / name).write_text(text.replace(old, new, 1))

    return prepare


def set_unknown_token(project: Path) -> None:
    """Give each training row a first token that the model does not know."""
    path = project / "data/tokenized/train.parquet"
    table = pq.read_table(path)
    ids = [[9999, *row[1:]] for row in table["input_ids"].to_pylist()]
    column = table.schema.get_field_index("input_ids")
    pq.write_table(table.set_column(column, "input_ids", pa.array(ids, table.schema.field(column).type)), path)


# Model folders, at `mine`


def empty_model(*names: str) -> Prepare:
    """A model folder of files that hold an empty JSON object."""
    return lambda project: [(project / "mine").mkdir(), *((project / "mine" / name).write_text("{}") for name in names)]


def copy_model(*changes: Prepare) -> Prepare:
    """A valid model folder with changes."""
    return steps(lambda project: shutil.copytree(project / "models/base", project / "mine"), *changes)


def edit_config(**values: object) -> Prepare:
    def prepare(project: Path) -> None:
        path = project / "mine/config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return prepare


def add_token(project: Path) -> None:
    """Add a token that the model does not embed to the tokenizer's own vocabulary."""
    path = project / "mine/tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["more"] = len(vocabulary)
    path.write_text(json.dumps(tokenizer))


def corrupt_weights(project: Path) -> None:
    path = project / "mine/model.safetensors"
    path.write_bytes(path.read_bytes()[:-64] + b"\xff" * 64)  # sixteen times NaN
