"""Which files of a folder make up a causal language model, and what is wrong with a folder, found without loading it.

Folders come as trainers, people and downloads leave them: with adapters, optimizer states, a second copy of the weights.
`find_model_files` selects what transformers loads; only that is copied to models/base.
"""

import json
import os
import re
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from pipeline.core.files import local_path
from pipeline.errors import ModelError
from pipeline.fetch.quantization import require_full_precision
from pipeline.fetch.wrong_folders import adapter_alone_error, nested_models_hint, other_format_hint
from pipeline.modeling.model_config import ADAPTER_CONFIG, REWRITE, read_config

PICKLE_PATTERNS = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
TRAINING_STATE = (
    "training_args.bin",
    "optimizer.*",
    "scheduler.*",
    "scaler.*",
    "rng_state*",
)  # pickles without weights
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")
WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
# What the tokenizers and configurations of transformers read; the vocabularies' names differ by tokenizer.
TEXT_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*.json",
    "*.model",
    "vocab*.txt",
    "merges*.txt",
    "chat_template*.jinja",
    "additional_chat_templates/*.jinja",
)
DOCUMENTS = ("*.md", "*.png", "LICENSE*", "LICENCE*", "NOTICE*")  # left behind without a word
GIT_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
HUB_SNAPSHOT = re.compile(r"/models--[^/]+/snapshots/[^/]+$")
DVC_CACHE_FILE = re.compile(r"/files/md5/[0-9a-f]{2}/[0-9a-f]{30}(\.dir)?$")


class ModelFiles(NamedTuple):
    folder: Path
    needed: list[str]  # relative names of the files to load, sorted
    left: list[str]  # names of the other files and folders, without documents and hidden ones

    @property
    def has_unused_adapter(self) -> bool:
        return ADAPTER_CONFIG in self.left


def require_model_folder(path: str, name: str = "") -> Path:
    """The local folder of that path. name: what error messages call it, if not by its path.

    Raises ModelError like `find_model_files`.
    """
    return find_model_files(path, name).folder


def find_model_files(path: str, name: str = "") -> ModelFiles:
    """The files of a model folder that transformers loads. name: what error messages call it, if not by its path.

    Raises ModelError if the folder lacks a file that loading needs, holds only an adapter, only pickled or quantized
    weights, or links to files outside it.
    """
    folder, name = local_path(path), name or path
    if not folder.is_dir():
        raise ModelError(f"{name} {'is a file' if folder.exists() else 'does not exist'}; expected a model folder")
    _require_links_inside(folder, name)
    if not (folder / "config.json").exists():
        raise _missing_file_error(folder, name, "has no config.json")
    config = read_config(folder, name)
    weights = _weight_files(folder, name)
    if not any((folder / file).exists() for file in TOKENIZER_FILES):
        raise ModelError(f"{name} has no tokenizer; expected one of {', '.join(TOKENIZER_FILES)}")
    texts = {file.relative_to(folder).as_posix() for pattern in TEXT_FILES for file in folder.glob(pattern)}
    needed = sorted({*weights, *texts})
    _require_no_lfs_pointers(folder, needed, name)
    require_full_precision(folder, config, [file for file in weights if file.endswith(".safetensors")], name)
    return ModelFiles(folder, needed, _files_left(folder, needed))


def _files_left(folder: Path, needed: Iterable[str]) -> list[str]:
    used = {name.partition("/")[0] for name in needed}
    return [
        f"{entry.name}/" if entry.is_dir() else entry.name
        for entry in sorted(folder.iterdir())
        if entry.name not in used
        and not entry.name.startswith(".")
        and not any(fnmatch(entry.name, pattern) for pattern in DOCUMENTS)
    ]


def _require_links_inside(folder: Path, name: str) -> None:
    """Raise ModelError if a file is a link out of the folder, which could lead to any file of this machine, or a broken one.

    Two stores keep files elsewhere and link to them by their hash: the Hub's cache and DVC's.
    """
    inside = folder.resolve()
    roots = [inside]
    if HUB_SNAPSHOT.search(inside.as_posix()):
        roots.append(inside.parents[1] / "blobs")
    for file in sorted([*folder.glob("*"), *folder.glob("additional_chat_templates/*")]):
        target, label = Path(os.path.realpath(file)), file.relative_to(folder).as_posix()
        if file.name.startswith(".") or file.is_dir():
            continue
        if not target.exists():
            raise ModelError(f"{name}: {label} is a broken link to {target}; get the file again")
        if not any(map(target.is_relative_to, roots)) and not DVC_CACHE_FILE.search(target.as_posix()):
            raise ModelError(
                f"{name}: {label} is a link to a file outside the folder, {target}, and is not followed. If you trust it, "
                f"put a copy of the file in its place"
            )


def _weight_files(folder: Path, name: str) -> list[str]:
    """The names of the weights that transformers loads: model.safetensors, or the shards that the index lists and the index."""
    if (folder / WEIGHTS).exists():
        return [WEIGHTS]
    if not (folder / WEIGHTS_INDEX).exists():
        raise _missing_file_error(folder, name, "has no safetensors weights (model.safetensors)")
    try:
        shards = sorted(set(json.loads((folder / WEIGHTS_INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ModelError(f"{name}: {WEIGHTS_INDEX} is damaged; {REWRITE}") from None
    if outside := [shard for shard in shards if Path(shard).name != shard]:
        raise ModelError(f"{name}: {WEIGHTS_INDEX} lists {outside[0]}, which is not a file of the folder; {REWRITE}")
    if missing := [shard for shard in shards if not (folder / shard).exists()]:
        raise ModelError(
            f"{name} lacks {len(missing)} of its {len(shards)} weight files, the first is {missing[0]}; copy or download "
            "the folder again"
        )
    return [WEIGHTS_INDEX, *shards]


def _missing_file_error(folder: Path, name: str, problem: str) -> ModelError:
    """The error about a folder without config.json or weights, with what the folder seems to be instead."""
    if (folder / ADAPTER_CONFIG).exists():
        return adapter_alone_error(folder, name)
    pickled = sorted(
        file.name
        for pattern in PICKLE_PATTERNS
        for file in folder.glob(pattern)
        if not any(fnmatch(file.name, state) for state in TRAINING_STATE)
    )
    if pickled and (folder / "config.json").exists():
        return ModelError(
            f"{name} has only pickled weights ({', '.join(pickled)}), which can run code when loaded. Convert them if "
            "you trust them: AutoModelForCausalLM.from_pretrained(…).save_pretrained(…) writes safetensors"
        )
    if hint := nested_models_hint(folder, name) or other_format_hint(folder):
        return ModelError(f"{name} {problem}; {hint}")
    return ModelError(f"{name} {problem}; expected a folder written by save_pretrained")


def _require_no_lfs_pointers(folder: Path, names: list[str], name: str) -> None:
    for file in names:
        with (folder / file).open("rb") as stream:
            if stream.read(len(GIT_LFS_POINTER)) == GIT_LFS_POINTER:
                raise ModelError(
                    f"{name}: {file} is a pointer of Git LFS, not the file itself; get the files: git lfs pull"
                )
