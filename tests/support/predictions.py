"""Predictions of test rows with their scores."""

import random
from typing import Any

from pipeline.scoring.answer_scores import score_answer

PAIRS = [
    ("", ""),
    ("", "Rest."),
    ("Rest.", ""),
    ("...", "!?"),
    ("the", "a an"),
    ("The.", "rest"),
    ("Rest.", "rest"),
    ("THE FLU", "flu"),
    ("theatre another", "theatre another"),
    ("a cat sat", "the cat sat down"),
    ("water water water", "water"),
    ("drink drink water", "drink water water"),
    ("anti-inflammatory", "antiinflammatory"),
    ("anti-inflammatory", "anti inflammatory"),
    ("don\u2019t run", "don't run"),
    ("\u201crest\u201d", '"rest"'),
    ("Fièvre à 39,5 °C", "fièvre à 395 °c"),
    ("Straße", "STRASSE"),
    ("İstanbul", "istanbul"),
    ("流感 是 病", "流感 病"),
    ("la grippe\u00a0aviaire", "grippe aviaire"),
    ("take 2 tablets", "take two tablets"),
    ("2.5", "25"),
    ("one\ntwo\tthree", "one two  three"),
    ("an apple a day", "apple day"),
    ("a_an_the", "aanthe"),
    ("x" * 300, "x" * 299),
    ("👍 rest", "rest 👍"),
]
WORDS = ["rest", "water", "tea", "doctor", "fever", "cough", "days", "child", "pain", "sleep"]


def rows_of(pairs: list[tuple[str, str]]) -> list[dict[str, Any]]:
    return [
        {"id": i, "prediction": prediction, "reference": reference, **score_answer(prediction, reference)}
        for i, (prediction, reference) in enumerate(pairs)
    ]


def predictions(replaced_share: float, rows: int = 60, seed: int = 0, loss: float = 1.0) -> list[dict[str, Any]]:
    """Predictions for the same prompts. replaced_share: of the reference answers' words; loss: their expected loss per token."""
    reference_generator, generator = random.Random(0), random.Random(seed + 1)
    references = [" ".join(reference_generator.choices(WORDS, k=6)) for _ in range(rows)]
    texts = [
        " ".join(generator.choice(WORDS) if generator.random() < replaced_share else word for word in reference.split())
        for reference in references
    ]
    fields = {"new_tokens": 6, "finish_reason": "stop", "looping": 0.0, "tokens": 7, "bytes": 30}
    return [
        {"prompt": f"Question {row['id']}?", **row, **fields, "loss": loss * generator.uniform(0.5, 1.5)}
        for row in rows_of(list(zip(texts, references, strict=True)))
    ]
