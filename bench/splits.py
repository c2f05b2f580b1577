"""Splits: format.near.strategy=cluster beside drop and no comparison: rows lost, sizes of the splits, leakage and time.

    python -m bench.splits [--rows-from rows.jsonl --question Description --answer Doctor]

Without a file, it splits canned tickets (questions in many variants, answered by few replies) and the generated dialogues.
`leaked` is the share of test rows with a question in the training set that is equal or near, `answers` the same of answers.
A row of task chat has the column messages; its question is then all user turns.
"""

import argparse
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.compose.composition import compose_params, parse_params
from pipeline.config.params import Format, NearDuplicates
from pipeline.config.validation import validate_params
from pipeline.format.conversations import Conversation, conversations_of
from pipeline.format.duplicates import DuplicateSearch
from pipeline.format.leakage import measure_leakage
from pipeline.format.split import split_rows
from pipeline.records.tasks import Turn, task_of_mapping
from pipeline.synthetic.dialogues import generate_dialogues, read_knowledge

KNOWLEDGE = Path("data/knowledge/conditions.yaml")
MONTHS = ("January", "March", "June", "October")
TICKETS = {
    "We moved to another office in {month}. How do I change the address on our {count} open invoices? Plan: {plan}.": (
        "Open Settings, Billing and change the address there. It applies from the next invoice."
    ),
    "I am importing {count} customers since {month} and the bar has been at 99% for an hour. Plan: {plan}.": (
        "The import waits for rows with an invalid tax number. Fix these rows and press Resume."
    ),
    "Please cancel our {plan} subscription at the end of {month}. Will we lose our {count} documents?": (
        "Your subscription will end on the last day of the month. You can export your data for 90 days."
    ),
    "When our {count} users sign in, they land on the login page again. It started in {month}. Plan: {plan}.": (
        "This happens when the certificate has expired. Upload the new certificate under Settings, Security."
    ),
    "The report of {month} shows {count} payments twice. How can we correct it in the {plan} plan?": (
        "Open the report, select both lines and press Merge. The totals are updated at night."
    ),
    "Our webhook for paid invoices has not been called since {month}; {count} calls are missing. Plan: {plan}.": (
        "Your endpoint answered with a redirect, and webhooks do not follow redirects. Set the final address."
    ),
}
OPENINGS = ("", "Hello team, ", "Hi, I hope you are well. ", "Urgent: ", "Good morning, ", "Second try: ")
TOPICS = (
    "desktop client",
    "mobile app",
    "web page",
    "accounting export",
    "tax module",
    "partner portal",
    "test system",
)


class Result(NamedTuple):
    dropped: int
    counts: dict[str, int]
    leakage: dict[str, float]
    seconds: float


def canned_tickets(rows: int, seed: int) -> list[Conversation]:
    """Questions with other numbers, months and plans, each about one of seven topics, with the reply of its kind."""
    rng = random.Random(seed)
    kinds = list(TICKETS.items())
    tickets = []
    for id in range(rows):
        question, answer = rng.choice(kinds)
        values = {
            "month": rng.choice(MONTHS),
            "count": rng.randint(2, 900),
            "plan": rng.choice(("Team", "Pro", "Solo")),
        }
        topic = f" It is about the {rng.choice(TOPICS)}, see the {rng.choice(TOPICS)} as well."
        tickets.append(
            Conversation(id, [Turn("user", rng.choice(OPENINGS) + question.format(**values) + topic)], answer)
        )
    return tickets


def generated_dialogues(rows: int) -> list[Conversation]:
    dialogues = generate_dialogues(read_knowledge(KNOWLEDGE), rows, seed=0)
    return list(_distinct((row["Description"], row["Doctor"]) for row in dialogues))


def _distinct(pairs: Iterator[tuple[str, str]]) -> Iterator[Conversation]:
    for id, (question, answer) in enumerate(dict.fromkeys(pairs)):
        yield Conversation(id, [Turn("user", question)], answer)


def read_rows(path: Path, question: str, answer: str) -> list[Conversation]:
    """The different rows of a JSON Lines file, by its columns `messages`, or `question` and `answer`."""
    with path.open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in dict.fromkeys(lines)]
    if "messages" in records[0]:
        task = task_of_mapping(["messages"])
        numbered = ({"id": id, "messages": record["messages"]} for id, record in enumerate(records))
        return list(conversations_of(numbered, task))
    return list(_distinct((record[question], record[answer]) for record in records))


def measure(rows: list[Conversation], options: Format) -> Result:
    started = time.perf_counter()
    search = DuplicateSearch(rows, options.near)
    split = split_rows(rows, options, search)
    seconds = time.perf_counter() - started
    leakage = measure_leakage(split, search, options) if len(split.indices("test")) else {}
    return Result(len(split.dropped), split.counts(), leakage, seconds)


def default_options(**near: Any) -> Format:
    options = validate_params(parse_params(compose_params())).format
    values = options.near.model_dump() | {"fields": ["question"]} | near
    return options.model_copy(update={"near": NearDuplicates.model_validate(values)})


def print_comparison(title: str, rows: list[Conversation]) -> None:
    largest = int(np.bincount(DuplicateSearch(rows, default_options().near).components.labels).max())
    print(f"{title}: {len(rows):,} rows, the largest cluster has {largest:,}")
    print(f"{'':<10}{'train':>8}{'validation':>12}{'test':>8}{'dropped':>9}{'leaked':>8}{'answers':>9}{'seconds':>9}")
    settings: dict[str, dict[str, Any]] = {
        "cluster": {"strategy": "cluster"},
        "drop": {"strategy": "drop"},
        "off": {"enabled": False},
    }
    for name, near in settings.items():
        result = measure(rows, default_options(**near))
        leaked, answers = (max(result.leakage.get(key, 0.0) for key in keys) for keys in LEAKAGE)
        sizes = f"{result.counts['train']:>8,}{result.counts['validation']:>12,}{result.counts['test']:>8,}"
        print(f"{name:<10}{sizes}{result.dropped:>9,}{leaked:>8.1%}{answers:>9.1%}{result.seconds:>9.2f}")


LEAKAGE = (("exact", "near"), ("answers_exact", "answers_near"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.splits", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows-from", type=Path, help="a JSON Lines file; default: tickets and generated dialogues")
    parser.add_argument("--question", default="question", help="the column with the questions")
    parser.add_argument("--answer", default="answer", help="the column with the answers")
    parser.add_argument("--tickets", type=int, default=400, help="canned tickets to generate")
    parser.add_argument("--rows", type=int, default=1500, help="dialogues to generate")
    args = parser.parse_args()
    if args.rows_from:
        print_comparison(args.rows_from.name, read_rows(args.rows_from, args.question, args.answer))
        return
    print_comparison("canned tickets", canned_tickets(args.tickets, seed=0))
    print_comparison("generated dialogues", generated_dialogues(args.rows))


if __name__ == "__main__":
    main()
