"""Random questions, some of them near-duplicates of others."""

import random

VOCABULARY = [first + second for first in "bdfgklmnprst" for second in ("a", "el", "in", "or", "um", "ist")]


def random_questions(count: int, seed: int) -> list[str]:
    """Questions of 6 to 12 words; half of them are earlier ones with one word changed."""
    generator = random.Random(seed)
    questions: list[list[str]] = []
    for _ in range(count):
        if questions and generator.random() < 0.5:
            question = list(generator.choice(questions))
            question[generator.randrange(len(question))] = generator.choice(VOCABULARY)
        else:
            question = generator.choices(VOCABULARY, k=generator.randint(6, 12))
        questions.append(question)
    return [" ".join(question) for question in questions]
