"""What the result of a training or an evaluation depends on: the key of what a killed run leaves to resume from."""

import hashlib
import json
from typing import Any, NamedTuple

from pipeline.compose.leaves import ABSENT, diff_leaves, flatten

LISTED = 4  # differences in a message


class ResumeKey(NamedTuple):
    """Everything that a result depends on, as JSON: parameters, data, code, environment. Long values as their hashes."""

    dependencies: dict[str, Any]

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.dependencies, sort_keys=True).encode()).hexdigest()[:16]

    def describe_differences(self, other: Any) -> str:
        """How the dependencies of another run differ, in words.

        >>> key = ResumeKey({"parameters": {"seed": 1}, "code": "abc"})
        >>> key.describe_differences({"parameters": {"seed": 0}, "code": "def"})
        'seed 0 (now 1), other code'
        """
        if not isinstance(other, dict):
            return "made by another version of the pipeline"
        changes = diff_leaves(flatten(other), flatten(self.dependencies))
        words = dict.fromkeys(_describe(key, *values) for key, values in changes.items())
        shown = ", ".join(list(words)[:LISTED])
        return shown + (f" and {len(words) - LISTED} more" if len(words) > LISTED else "")


def _describe(key: str, before: Any, now: Any) -> str:
    section, _, name = key.partition(".")
    if section in ("parameters", "environment") and ABSENT not in (before, now):
        return f"{name} {before} (now {now})"
    return f"other {section}" if section in ("code", "parameters", "environment") else f"other {name or section}"
