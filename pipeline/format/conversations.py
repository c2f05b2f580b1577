"""The cleaned records as conversations, and the texts by which rows are compared."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from pipeline.core.files import ParquetReader
from pipeline.core.paths import RECORDS
from pipeline.records.tasks import Task, Turn, turns_of, unrenderable_parts

BATCH_ROWS = 4096  # records in memory as Python objects


class Conversation(NamedTuple):
    """A record as the turns of a conversation and the answer to the last one. Plain text is an answer without turns."""

    id: int
    turns: list[Turn]
    answer: str

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
    """The records of data/clean that a prompt template can render, and those that it cannot."""

    rows: list[Conversation]
    needs_chat_template: list[int]  # ids of records with tool calls or results, which only a chat template expresses
    without_tools: int  # rows whose list of available tools is not rendered


def conversations_of(records: Iterable[dict[str, Any]], task: Task) -> Iterator[Conversation]:
    """Yield the conversations of cleaned records, which have the columns of the task."""
    for record in records:
        yield Conversation(record["id"], *turns_of(task, record))


def read_conversations(task: Task) -> Conversations:
    """The conversations of data/clean/records.parquet."""
    reader = ParquetReader(RECORDS)
    rows: list[Conversation] = []
    set_aside: list[int] = []
    without_tools = 0
    for table in reader.iter_tables(reader.column_names, BATCH_ROWS):
        renderable = []
        for record in table.to_pylist():
            parts = unrenderable_parts(task, record)
            if {"tool_calls", "tool_results"} & set(parts):
                set_aside.append(record["id"])
            else:
                without_tools += "tools" in parts
                renderable.append(record)
        rows += conversations_of(renderable, task)
    return Conversations(rows, set_aside, without_tools)


def find_shared_turns(rows: list[Conversation]) -> frozenset[str]:
    """The user turns that more than half of the rows have, if there are dialogues: greetings, for example."""
    if all(len(row.user_turns) < 2 for row in rows):
        return frozenset()
    counts = Counter(turn for row in rows for turn in set(row.user_turns))
    return frozenset(turn for turn, count in counts.items() if 2 * count > len(rows))
