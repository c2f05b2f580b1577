"""Asks the user on a terminal; without one, or with --yes, takes the defaults and prints them."""

import sys
from collections.abc import Sequence

from pipeline.core.console import printable
from pipeline.errors import ConfigError


class Questions:
    """Asks what cannot be known. `is_interactive`: whether there is somebody to ask."""

    def __init__(self, is_interactive: bool) -> None:
        self.is_interactive = is_interactive

    def choose(self, question: str, options: Sequence[str], default: int = 0) -> int:
        """The index of the option that the user chooses. Raises ConfigError at the end of the input."""
        if not self.is_interactive:
            print(printable(f"{question} Using {options[default]}"))
            return default
        print(printable(question))
        for number, option in enumerate(options, start=1):
            print(printable(f"  {number}. {option}"))
        while True:
            answer = self._read(f"Number [{default + 1}]: ") or str(default + 1)
            if answer.isdecimal() and 1 <= int(answer) <= len(options):
                return int(answer) - 1
            print(f"Expected a number from 1 to {len(options)}.")

    def confirm(self, question: str, default: bool) -> bool:
        """Whether the user agrees. Raises ConfigError at the end of the input."""
        if not self.is_interactive:
            return default
        while True:
            answer = self._read(f"{question} [{'Y/n' if default else 'y/N'}] ").lower()
            if answer in ("", "y", "yes", "n", "no"):
                return default if not answer else answer[0] == "y"
            print("Expected y or n.")

    def read_text(self, question: str) -> str:
        """The user's text; empty without a terminal."""
        return self._read(question) if self.is_interactive else ""

    def _read(self, prompt: str) -> str:
        sys.stdout.write(printable(prompt))
        sys.stdout.flush()
        line = sys.stdin.readline()
        if not line:
            raise ConfigError("no answer; nothing was written. To take the defaults: --yes")
        return line.strip()
