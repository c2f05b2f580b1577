"""What the table of errors is made of: a case, the commands of users, and the folders and files that they bring."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

Prepare = Callable[[Path], object]


class Case(NamedTuple):
    command: list[str]
    told: tuple[str, ...]  # all of it stands in the output: the key or file, what is expected or to be done
    prepare: Prepare = lambda _: None


def exp(*overrides: str, until: str = "") -> list[str]:
    """An experiment, run as far as a stage."""
    return ["dvc", "exp", "run", *(part for each in overrides for part in ("-S", each)), *([until] if until else [])]


def queue(*overrides: str) -> list[str]:
    return [*exp(*overrides), "--queue"]


def python(module: str, *arguments: str) -> list[str]:
    return ["python", "-m", f"pipeline.{module}", *arguments]


def rows(name: str, *overrides: str, until: str = "") -> list[str]:
    """An experiment with a data file of one's own; until: the stage that is to see what is wrong with it."""
    return exp("data=file", f"data.path={name}", *overrides, until=until)


def small_disk(kilobytes: int, command: list[str]) -> list[str]:
    """A disk that is full for files of more than so many kilobytes."""
    return ["bash", "-c", f'ulimit -f {kilobytes} && exec "$@"', "bash", *command]


def elsewhere(command: list[str]) -> list[str]:
    return ["bash", "-c", 'cd data && PYTHONPATH=.. exec "$@"', "bash", *command]


def file(name: str, content: str | bytes) -> Prepare:
    return lambda at: (at / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def jsonl(*objects: object) -> Prepare:
    return file("rows.jsonl", "".join(json.dumps(each) + "\n" for each in objects))


def chat(messages: object) -> Prepare:
    return jsonl(*({"messages": messages} for _ in range(3)))


def qa(count: int, question: str, answer: str) -> Prepare:
    return jsonl(*({"question": question.format(i), "answer": answer.format(i)} for i in range(count)))


def cut(name: str, size: int) -> Prepare:
    return lambda at: (at / name).write_bytes((at / name).read_bytes()[:size])


def removed(name: str) -> Prepare:
    return lambda at: (at / name).unlink()


def rows_of(name: str, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Prepare:
    """JSON Lines with other rows."""

    def edit(at: Path) -> None:
        found = [json.loads(line) for line in (at / name).read_text().splitlines()]
        (at / name).write_text("".join(json.dumps(row) + "\n" for row in change(found)))

    return edit


def edited(name: str, old: str, new: str) -> Prepare:
    def edit(at: Path) -> None:
        text = (at / name).read_text()
        assert old in text
        (at / name).write_text(text.replace(old, new, 1))

    return edit


def folder(*names: str) -> Prepare:
    """A model folder of empty JSON objects."""
    return lambda at: [(at / "mine").mkdir(), *((at / "mine" / name).write_text("{}") for name in names)]


def model(*changes: Prepare) -> Prepare:
    """A model folder that would do, but for the changes."""

    def make(at: Path) -> None:
        shutil.copytree(at / "models/base", at / "mine")
        for change in changes:
            change(at)

    return make


def config(**values: object) -> Prepare:
    def write(at: Path) -> None:
        path = at / "mine/config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return write


def more_tokens(at: Path) -> None:
    path = at / "mine/tokenizer.json"
    tokenizer = json.loads(path.read_text())
    last = tokenizer["added_tokens"][-1]
    tokenizer["added_tokens"].append({**last, "id": len(tokenizer["model"]["vocab"]), "content": "<|more|>"})
    path.write_text(json.dumps(tokenizer))


def broken_weights(at: Path) -> None:
    path = at / "mine/model.safetensors"
    path.write_bytes(path.read_bytes()[:-64] + b"\xff" * 64)  # not a number, sixteen times


def parquet(at: Path) -> None:
    shutil.copy(at / "data/raw/rows.parquet", at / "rows.parquet")


def other_tokens(at: Path) -> None:
    path = at / "data/tokenized/train.parquet"
    table = pq.read_table(path)
    ids = [[9999, *row[1:]] for row in table["input_ids"].to_pylist()]
    column = table.schema.get_field_index("input_ids")
    pq.write_table(table.set_column(column, "input_ids", pa.array(ids, table.schema.field(column).type)), path)
