"""pipeline/format/leakage.py: duplicates of test rows in the training set are found."""

from support.splitting import assigned, chat, leakage_of, options, row, sentences

BOTH = options(near={"fields": ["question", "answer"]})
QUESTION = "What can I do at home for a sore throat?"
ANSWER = "It is an infection of the nose and the throat."


def test_leakage_is_measured_by_the_fields_and_by_answers() -> None:
    split = assigned(
        train=[row(0, QUESTION, "Tea."), row(1, "What is flu?", ANSWER)],
        test=[
            row(2, QUESTION.upper() + "!!", "Rest."),
            row(3, "Pray, " + QUESTION, "Rest."),
            row(4, "Which infection is the flu?", ANSWER + "!"),
            row(5, "Who treats gout?", "Tea."),
        ],
    )
    answers = {"answers_exact": 0.25, "answers_near": 0.25}
    assert leakage_of(split) == {"exact": 0.25, "near": 0.5, **answers}
    assert leakage_of(split, BOTH) == {"exact": 0.5, "near": 0.75, **answers}


def test_different_questions_without_words_are_no_leakage() -> None:
    leakage = leakage_of(assigned(train=[row(0, "😢")], test=[row(1, "😀")]))
    assert (leakage["exact"], leakage["near"]) == (0, 0)


def test_test_questions_in_earlier_turns_of_training_are_measured() -> None:
    asked, other, third = sentences(3, 9)
    split = assigned(
        train=[chat(0, asked, "Yes.", "And then?", "Rest.")],
        test=[chat(1, other, "No.", asked, "Tea."), chat(2, third, "So.")],
    )
    assert leakage_of(split)["earlier_turns"] == 0.5
