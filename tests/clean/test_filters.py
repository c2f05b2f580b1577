"""pipeline/clean/filters.py: which rows are dropped for their texts, on literal rows."""

from typing import Any

import pytest
from support.cleaning import ANY_LENGTH, BOILERPLATE, clean_rows
from support.project import ROOT

from pipeline.errors import ConfigError


@pytest.mark.parametrize(
    "answer",
    [
        BOILERPLATE,
        "Hello. Consult a nutritionist online for further follow up --->",
        "Hi. I have gone through your query with diligence and would like you to know that I am here to help you. "
        "For further information consult a neurologist online -->",
        "Hello. Revert back with the reports to an ENT otolaryngologist online -->",
        "Hi,\u00a0welcome to icliniq.com. I have read your query. Hope this helps. Take care. Regards.",
    ],
    ids=["doubts", "follow up", "diligence", "revert", "welcome"],
)
def test_answer_of_nothing_but_boilerplate_is_dropped(answer: str) -> None:
    assert clean_rows([{"question": "q", "answer": answer}]) == ([], [{"id": 0, "reason": "boilerplate"}])


@pytest.mark.parametrize(
    "answer",
    [
        "Hello. What are the symptoms in it? How long has it been there?",
        "Yes.",
        "हाँ",
        "42",
        "Consult your doctor about the dose.",
        "->",
    ],
    ids=["questions back", "one word", "Devanagari", "number", "consult without online", "signs alone"],
)
def test_answer_with_content_is_kept_unchanged(answer: str) -> None:
    assert clean_rows([{"question": "q", "answer": answer}], strip=[]) == (
        [{"id": 0, "question": "q", "answer": answer}],
        [],
    )


ENGLISH = "I have had a sore throat for three days and it hurts when I swallow."
SPANISH = "Tengo dolor de garganta desde hace tres días y me duele al tragar."


@pytest.mark.parametrize(
    ("row", "changes", "reason"),
    [
        ({"question": "q", "answer": "abcd"}, {"answer": ANY_LENGTH | {"max_characters": 3}}, "too_long"),
        ({"question": "q", "answer": "abc"}, {"answer": ANY_LENGTH | {"max_characters": 3}}, None),
        ({"question": "ab", "answer": "x"}, {"question": ANY_LENGTH | {"min_characters": 3}}, "too_short"),
        ({"question": "abc", "answer": "x"}, {"question": ANY_LENGTH | {"min_characters": 3}}, None),
        ({"question": "q", "answer": "Hi. Rest. Thanks, regards."}, {"max_boilerplate": 0.5}, "mostly_boilerplate"),
        ({"question": "q", "answer": "Hi. Rest."}, {"max_boilerplate": 0.5}, None),
        ({"question": "q", "answer": "1 2 3 a"}, {"max_nonletters": 0.7}, "mostly_nonletters"),
        ({"question": "12", "answer": "a"}, {"max_nonletters": 0.7}, "mostly_nonletters"),
        ({"question": "हाँ", "answer": "नहीं"}, {"max_nonletters": 0.0}, None),
        ({"question": "q", "answer": "Write to a@b.org"}, {"contacts": "drop"}, "contacts"),
        ({"question": "q", "answer": "Rest."}, {"contacts": "drop"}, None),
        ({"question": ENGLISH, "answer": ENGLISH}, {"languages": ["es"]}, "other_language"),
        ({"question": ENGLISH, "answer": ENGLISH}, {"languages": ["es", "en"]}, None),
        ({"question": SPANISH, "answer": SPANISH}, {"languages": ["en"]}, "other_language"),
    ],
)
def test_filters_drop_rows_only_if_turned_on(row: dict[str, Any], changes: dict[str, Any], reason: str | None) -> None:
    dropped = clean_rows([row], **changes)[1]
    assert [row["reason"] for row in dropped] == ([reason] if reason else [])
    assert clean_rows([row])[1] == []


def test_tokens_are_counted_by_the_base_models_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.clean.filters.BASE", ROOT / "models/nano")
    rows = [{"question": "q", "answer": "flu " * count} for count in (9, 3)]
    _, dropped = clean_rows(rows, answer=ANY_LENGTH | {"max_tokens": 8})
    assert dropped == [{"id": 0, "reason": "too_long"}]


def test_unknown_language_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"clean.languages: xx unknown; expected some of .*en, "):
        clean_rows([{"question": "q", "answer": "a"}], languages=["xx"])
