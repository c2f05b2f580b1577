"""The cleaned records as conversations, and the texts by which rows are compared."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from pipeline.core.files import ParquetReader
from pipeline.core.paths import RECORDS
from pipeline.format.chat_rows import ChatCounts, ChatReader
from pipeline.records.json_cells import dump_json
from pipeline.records.tasks import Task, Turn, turns_of, unrenderable_parts

BATCH_ROWS = 4096  # records in memory as Python objects


class Conversation(NamedTuple):
    """A record as the turns of a conversation and the answer to the last one. Plain text is an answer without turns."""

    id: int
    turns: list[Turn]
    answer: str
    chat: str | None = None  # messages and tools as JSON, if a chat template renders the row

    @property
    def user_turns(self) -> list[str]:
        return [turn.content for turn in self.turns if turn.role == "user"]

    @property
    def question(self) -> str:
        """All user turns, or a plain text itself."""
        return "\n".join(self.user_turns) or self.answer

    def question_texts(self, shared_turns: frozenset[str] = frozenset()) -> list[str]:
        """The texts to compare with other rows' questions: all user turns as one text; in a dialogue, also the last one.

        Turns that most rows share, such as a greeting, are left out, unless the row has no others.
        """
        turns = [turn for turn in self.user_turns if turn not in shared_turns]
        texts = ["\n".join(turns) or self.question]
        if len(turns) > 1 and self.user_turns[-1] not in shared_turns:
            texts.append(turns[-1])
        return texts


class Conversations(NamedTuple):
    """The records of data/clean that the rows' format can express, and those that it cannot."""

    rows: list[Conversation]
    refused: list[tuple[int, str, str]]  # (id, reason, detail)
    without_tools: int = 0  # rows whose list of available tools is not rendered
    chat: ChatCounts | None = None
    end_tokens: tuple[str, ...] = ()  # that end the learned turns of dialogues


def conversations_of(
    records: Iterable[dict[str, Any]], task: Task, system: str | None = None
) -> Iterator[Conversation]:
    """Yield the conversations of cleaned records, which have the columns of the task, for a prompt template.

    system: the system prompt of records that have none.
    """
    for record in records:
        turns, answer = turns_of(task, record)
        if system is not None and turns and turns[0].role != "system":
            turns = [Turn("system", system), *turns]
        yield Conversation(record["id"], turns, answer)


def read_records() -> Iterator[list[dict[str, Any]]]:
    """Yield the records of data/clean/records.parquet in batches."""
    reader = ParquetReader(RECORDS)
    for table in reader.iter_tables(reader.column_names, BATCH_ROWS):
        yield table.to_pylist()


def read_conversations(task: Task, system: str | None = None) -> Conversations:
    """The conversations of data/clean for a prompt template; records with tool calls or results are left out."""
    rows: list[Conversation] = []
    refused: list[tuple[int, str, str]] = []
    without_tools = 0
    for records in read_records():
        renderable = []
        for record in records:
            parts = unrenderable_parts(task, record)
            if {"tool_calls", "tool_results"} & set(parts):
                refused.append((record["id"], "needs_chat_template", ""))
            else:
                without_tools += "tools" in parts
                renderable.append(record)
        rows += conversations_of(renderable, task, system)
    return Conversations(rows, refused, without_tools)


def read_dialogues(task: Task, reader: ChatReader) -> Conversations:
    """The conversations of data/clean for a chat template. Raises DataError if the template's marks are wrong."""
    rows: list[Conversation] = []
    for records in read_records():
        for record in records:
            if (dialogue := reader.read(record, task)) is None:
                continue
            tools = {"tools": dialogue.tools} if dialogue.tools else {}
            turns, answer = turns_of(task, record)
            rows.append(Conversation(record["id"], turns, answer, dump_json({"messages": dialogue.messages} | tools)))
    return Conversations(rows, reader.refused, 0, reader.counts, tuple(sorted(reader.end_tokens)))


def find_shared_turns(rows: list[Conversation]) -> frozenset[str]:
    """The user turns that more than half of the rows have, if there are dialogues: greetings, for example."""
    if all(len(row.user_turns) < 2 for row in rows):
        return frozenset()
    counts = Counter(turn for row in rows for turn in set(row.user_turns))
    return frozenset(turn for turn, count in counts.items() if 2 * count > len(rows))
