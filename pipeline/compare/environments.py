"""How the environments differ that stages record in their metrics: libraries, threads, instructions, device."""

from collections.abc import Mapping
from typing import Any

from pipeline.compose.leaves import flatten

NO_EFFECT = {"python"}  # its version is recorded, but does not change the results


def describe_environments(environments: Mapping[str, Any]) -> str:
    """What differs between the environments of several runs, with the names of the runs; empty if nothing does.

    Runs without a record, from older versions of the pipeline, are left out.

    >>> record = {"libraries": {"torch": "2.13.0"}, "device": "cpu", "threads": 1}
    >>> describe_environments({"base": record, "finetuned": record | {"threads": 2}})
    'threads 1 (base), 2 (finetuned)'
    """
    records = {name: flatten(record) for name, record in environments.items() if isinstance(record, dict)}
    keys = dict.fromkeys(key for record in records.values() for key in record if key not in NO_EFFECT)
    differences = []
    for key in keys:
        runs: dict[str, list[str]] = {}
        for name, record in records.items():
            runs.setdefault(str(record.get(key, "none")), []).append(name)
        if len(runs) > 1:
            differences.append(
                f"{key.removeprefix('libraries.')} "
                + ", ".join(f"{value} ({', '.join(names)})" for value, names in runs.items())
            )
    return "; ".join(differences)
