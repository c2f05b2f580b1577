"""A ticket export, and a machine to recommend settings for."""

from collections.abc import Callable
from pathlib import Path

from pipeline.start.machine import Machine

TICKETS = [
    (
        f"Invoice {n} is wrong",
        f"The total of invoice {n} does not match my order.\nPlease look.",
        f"We corrected {n}.\n- Tom",
    )
    for n in range(40)
]
CPU = Machine("a CPU, 2 cores", is_gpu=False, free_bytes=8 * 10**9, bf16=False, can_quantize=False, cores=2)
Start = Callable[..., tuple[int, str, str]]


def write_tickets(path: Path) -> None:
    lines = ["Id,Subject,Body,Agent reply", *(f'{n},{a},"{b}","{c}"' for n, (a, b, c) in enumerate(TICKETS))]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
