"""Names for the options that start writes, made from the names of files, folders and repositories."""

import re
import unicodedata
from pathlib import PurePosixPath

from pipeline.config.addresses import display_address
from pipeline.errors import ConfigError
from pipeline.fetch.streams import COMPRESSIONS

# Options that come with the project. Those of a name that every source could have are templates to copy.
RESERVED = {
    "data": ("adopted", "file", "generated", "generated_chats", "hub", "medical"),
    "model": ("adopted", "folder", "hub", "nano", "pythia-70m", "scratch"),
}
SPELLED_OUT = {"ß": "ss", "æ": "ae", "ø": "o", "œ": "oe", "ł": "l", "đ": "d"}
VALID = re.compile(r"[a-z0-9][a-z0-9_-]*")
# Hydra reads these as values that are not text.
NOT_TEXT = re.compile(r"null|true|false|nan|inf|[0-9_]+(e[0-9_]+)?")
MAX_LENGTH = 60


def option_name(source: str, group: str) -> str:
    """A valid name of an option of a group for a path, address or OWNER/NAME.

    >>> option_name("exports/Über Tickets 2024.csv.gz", "data"), option_name("models/nano.v2/", "model")
    ('uber_tickets_2024', 'nano_v2')
    >>> option_name("file.csv", "data"), option_name("流感.csv", "data"), option_name("data/*.jsonl", "data")
    ('my_file', 'my_data', 'my_data')
    """
    path = PurePosixPath(display_address(source).replace("\\", "/").rstrip("/"))
    parts = [part for part in path.parts if not re.search(r"[*?\[]", part)] or [""]
    stem = parts[-1]
    for extension in COMPRESSIONS:
        stem = stem.removesuffix(extension)
    if group == "data":
        stem = PurePosixPath(stem).stem
    plain = "".join(SPELLED_OUT.get(letter, letter) for letter in stem.lower())
    ascii_only = unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode()
    name = re.sub(r"[^a-z0-9-]+", "_", ascii_only)[:MAX_LENGTH].strip("_-") or group
    return f"my_{name}" if name in RESERVED[group] or name == group or NOT_TEXT.fullmatch(name) else name


def require_option_name(name: str, group: str) -> str:
    """The name that the user gave. Raises ConfigError if it cannot be the name of an option of their own."""
    if not VALID.fullmatch(name) or NOT_TEXT.fullmatch(name) or len(name) > MAX_LENGTH:
        raise ConfigError(
            f"--name: {name!a} cannot name an option; expected small letters, digits, _ and -, such as "
            f"{option_name(name, group)}"
        )
    if name in RESERVED[group]:
        raise ConfigError(f"--name: {name} is an option that comes with the project; choose another, such as my_{name}")
    return name
