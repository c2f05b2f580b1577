"""Generated dialogues of a help desk with short answers, for tiny chat models."""

import json
import random
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]

THINGS = ("printer", "router", "lamp", "heater", "screen", "phone", "door", "scanner", "window", "desk")
QUESTIONS = (  # each with its answer
    ("Where is the {thing} of room {room}?", "On floor {floor}."),
    ("Is the {thing} in room {room} new?", "No."),
    ("Who mends the {thing} in room {room}?", "Team {team} on floor {floor} does."),
    ("When was the {thing} in room {room} checked?", "Team {team} checked it on day {day}, and found nothing."),
    ("How do I reset the {thing} in room {room}?", "First, switch it off.\nThen wait, and ask team {team}."),
    ("The {thing} in room {room} is broken. Help!", "Please call team {team}. They come by {day} pm."),
)
SYSTEM = "You run the help desk. Be brief."
FIND = {
    "type": "function",
    "function": {
        "name": "find",
        "description": "Finds a room",
        "parameters": {"type": "object", "properties": {"room": {"type": "integer", "description": "Its number"}}},
    },
}


def generate_dialogues(count: int, seed: int = 0, with_tools: bool = False) -> Rows:
    """Dialogues of a help desk, of one to three short answers; two thirds have a system prompt. No two ask the same first.

    with_tools: every second dialogue starts with a call of a function and its result.
    """
    generator = random.Random(seed)
    openings = [(thing, room) for thing in THINGS for room in range(100, 1000)]
    rows: Rows = []
    for index, opening in enumerate(generator.sample(openings, count)):
        messages = [{"role": "system", "content": SYSTEM}] if index % 3 else []
        called = with_tools and index % 2 == 0
        messages += _call(*opening) if called else _exchange(*opening, generator)
        for _ in range(generator.randrange(3)):
            messages += _exchange(generator.choice(THINGS), opening[1], generator)
        rows.append({"messages": messages} | ({"tools": [FIND]} if called else {}))
    return rows


def _exchange(thing: str, room: int, generator: random.Random) -> Rows:
    question, answer = generator.choice(QUESTIONS)
    values = {"thing": thing, "room": room, "floor": room // 100, "team": room % 10, "day": 1 + room % 12}
    return [
        {"role": "user", "content": question.format(**values)},
        {"role": "assistant", "content": answer.format(**values)},
    ]


def _call(thing: str, room: int) -> Rows:
    call = {"id": "call00001", "type": "function", "function": {"name": "find", "arguments": {"room": room}}}
    return [
        {"role": "user", "content": f"Find the {thing} of room {room}."},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call00001", "name": "find", "content": f"floor {room // 100}"},
        {"role": "assistant", "content": f"It is on floor {room // 100}."},
    ]


def write_dialogues(rows: Rows, path: Path) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
