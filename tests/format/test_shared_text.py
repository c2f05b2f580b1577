"""Text that most rows share, such as an instruction or a system prompt, makes no near-duplicates."""

import pytest
from support.splitting import chat, leakage_of, options, rows_of, sentences, split_of

from pipeline.format.conversations import Conversation, find_shared_turns
from pipeline.format.duplicates import DuplicateSearch
from pipeline.format.split import Split

INSTRUCTION = (
    "You are a careful assistant. Read the following customer review and decide in one word whether its author is happy, "
    "neutral or unhappy with the product, then answer. Review:"
)
OTHER = (
    "Please translate the text below into formal French, keep all names and numbers as they are, and return nothing but "
    "the translation of it. Text:"
)
SYSTEM = "You are the support agent of an invoicing app. Be brief and friendly to every customer who writes to you."
GREETING = "Hello, I am a customer of yours and I need some help please."
CLOSINGS = (
    "Thanks. Please answer in JSON with the keys answer and reason only.",
    "Can you summarize all of that in three short bullet points please?",
    "Now translate your whole answer into simple and friendly Spanish please.",
)


def require_ordinary_split(rows: list[Conversation]) -> Split:
    """All rows are kept, each in its own cluster, and none leaks."""
    split = split_of(rows)
    assert not split.dropped
    assert len({*split.clusters.tolist()}) == len(rows)
    leakage = leakage_of(split)
    assert (leakage["exact"], leakage["near"]) == (0, 0)
    return split


def shared_texts(rows: list[Conversation]) -> list[str]:
    return [shared.text[:20] for shared in DuplicateSearch(rows, options().near).shared_texts]


@pytest.mark.parametrize("words", [1, 4, 7, 9, 12, 40])
@pytest.mark.parametrize("count", [10, 100, 400])
def test_long_instruction_before_contents_of_any_length(words: int, count: int) -> None:
    require_ordinary_split(rows_of(f"{INSTRUCTION} {text}" for text in sentences(count, words)))


def test_instruction_after_the_contents() -> None:
    require_ordinary_split(rows_of(f"{text}\n{INSTRUCTION}" for text in sentences(200, 5)))


def test_several_instructions_with_short_contents() -> None:
    texts = sentences(300, 4)
    rows = rows_of(f"{(INSTRUCTION, OTHER)[number % 2]} {text}" for number, text in enumerate(texts))
    require_ordinary_split(rows)
    assert sorted(shared_texts(rows)) == ["please translate the", "you are a careful as"]


def test_instruction_of_some_rows_only() -> None:
    texts = sentences(300, 12)
    rows = rows_of(f"{INSTRUCTION} {text}" if number % 5 < 2 else text for number, text in enumerate(texts))
    require_ordinary_split(rows)


def test_equal_contents_after_an_instruction_stay_together() -> None:
    texts = sentences(100, 4)
    split = split_of(rows_of(f"{INSTRUCTION} {text}" for text in [*texts, *texts]))
    assert split.clusters[100:].tolist() == split.clusters[:100].tolist()


def test_near_contents_after_an_instruction_stay_together() -> None:
    texts = sentences(100, 20)
    split = split_of(rows_of(f"{INSTRUCTION} {text}" for text in [*texts, *(f"{text} indeed" for text in texts)]))
    assert split.clusters[100:].tolist() == split.clusters[:100].tolist()


def test_noise_in_copies_of_a_long_text_is_no_content() -> None:
    long = sentences(1, 150)[0].split()
    copies = [
        " ".join(f"x{number}" if (place + number) % 29 == 0 else word for place, word in enumerate(long))
        for number in range(100)
    ]
    split = split_of(rows_of(copies + sentences(100, 12)))
    assert {*split.clusters[:100].tolist()} == {0}


def test_identical_questions_are_no_instruction() -> None:
    assert shared_texts(rows_of(["What is the most important thing to know about this today?"] * 60)) == []


def test_system_prompt_and_greeting_are_not_compared() -> None:
    rows = [
        chat(id, GREETING, "Of course!", question, f"Answer {id}.", system=SYSTEM)
        for id, question in enumerate(sentences(120, 3))
    ]
    require_ordinary_split(rows)
    assert find_shared_turns(rows) == {GREETING}


def test_answers_of_earlier_turns_are_not_compared() -> None:
    answer = "You can find all of that in the settings, below billing and invoices."
    rows = [chat(id, question, answer, f"And {id}?", "Yes.") for id, question in enumerate(sentences(120, 9))]
    require_ordinary_split(rows)


@pytest.mark.parametrize("closings", [1, 2, 3])
def test_closing_turns_that_many_rows_share_are_no_questions(closings: int) -> None:
    texts = sentences(240, 10)
    rows = [chat(id, text, "Yes.", CLOSINGS[id % closings], f"Answer {id}.") for id, text in enumerate(texts)]
    require_ordinary_split(rows)


def test_dialogues_with_the_same_last_question_stay_together() -> None:
    openings, questions = sentences(120, 9), sentences(20, 9, seed=1)
    rows = [chat(id, text, "Yes.", questions[id % 20], f"Answer {id}.") for id, text in enumerate(openings)]
    split = split_of(rows)
    assert split.clusters.tolist() == [id % 20 for id in range(120)]


def test_greeting_alone_is_a_question() -> None:
    rows = [chat(id, GREETING, f"Answer {id}.") for id in range(20)]
    rows += [chat(20 + id, text, "Yes.", "And?", "No.") for id, text in enumerate(sentences(15, 9))]
    assert {*split_of(rows).clusters[:20].tolist()} == {0}
