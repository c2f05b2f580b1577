"""The generated dialogues of several turns."""

from itertools import combinations
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.config.sources import GeneratedRows
from pipeline.fetch.sources import load_rows
from pipeline.synthetic.chats import FOLLOW_UPS, Chat, generate_chats
from pipeline.synthetic.dialogues import WORDINGS, Knowledge, read_knowledge

ROOT = Path(__file__).parents[2]
KNOWLEDGE: Knowledge = {
    f"condition{number}": {fact: f"the {fact} of {number}" for fact in WORDINGS} for number in range(10)
}


def texts(chat: Chat, role: str) -> list[str]:
    return [message["content"] for message in chat["messages"] if message["role"] == role]


def test_only_the_first_question_names_the_condition() -> None:
    knowledge = read_knowledge(ROOT / "data/knowledge/conditions.yaml")
    for chat in generate_chats(knowledge, 400, 0):
        first, *others = texts(chat, "user")
        named = max((name for name in knowledge if name in first), key=len)
        assert not any(named in question for question in others)
        facts = knowledge[named].values()
        assert all(any(fact in answer for fact in facts) for answer in texts(chat, "assistant"))


def test_every_fact_is_asked_for_once_before_any_is_asked_for_again() -> None:
    chats = generate_chats(KNOWLEDGE, 33, 3)
    answers = [answer for chat in {str(chat): chat for chat in chats}.values() for answer in texts(chat, "assistant")]
    asked = [
        fact
        for answer in answers
        for facts in KNOWLEDGE.values()
        for fact in facts.values()
        if f"{fact}." in answer + "."
    ]
    assert len(asked) == len(set(asked)) == 70


def test_roles_alternate_and_defects_are_counted() -> None:
    chats = generate_chats(KNOWLEDGE, 200, 0)
    ends = [chat["messages"][-1]["role"] for chat in chats]
    assert 4 <= ends.count("user") <= 8
    assert 4 <= sum(texts(chat, "system") == [""] for chat in chats) <= 8
    assert sum(one == other for one, other in combinations(chats, 2)) >= 20
    for chat in chats:
        roles = [message["role"] for message in chat["messages"]]
        assert roles == (["system"] + ["user", "assistant"] * 4)[: len(roles)]


def test_the_seed_determines_the_rows() -> None:
    assert generate_chats(KNOWLEDGE, 50, 7) == generate_chats(KNOWLEDGE, 50, 7)
    assert generate_chats(KNOWLEDGE, 50, 7) != generate_chats(KNOWLEDGE, 50, 8)
    assert set(FOLLOW_UPS) == set(WORDINGS)


def generated(**values: object) -> GeneratedRows:
    path = str(ROOT / "data/knowledge/conditions.yaml")
    given = {"source": "generated", "path": path, "sha256": None, "rows": 20, "turns": "several", "length": "short"}
    return GeneratedRows.model_validate(
        {**given, "seed": 0, "limit": None, "columns": {"messages": "messages"}, **values}
    )


def test_fetch_reads_them_as_chats() -> None:
    rows = load_rows(generated())
    assert rows.table.column_names == ["messages"]
    assert rows.mapping.task.name == "chat"


def test_long_dialogues_have_one_question() -> None:
    with pytest.raises(ValidationError, match="length real has dialogues of one question only"):
        generated(length="real")
