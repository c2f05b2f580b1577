"""A small dataset on the stand-in hub, and this process's client pointed at it."""

import random
from pathlib import Path

import pytest
from huggingface_hub import constants
from support.hub import COMMIT, etag

from pipeline.errors import PipelineError
from pipeline.fetch.hub import fetch_snapshot

NAME = "owner/rows"
ROWS, CARD = random.Random(0).randbytes(300_000), b"---\nlicense: mit\n---\n"  # one in LFS, one in git
FILES = {"README.md": CARD, "data/train.parquet": ROWS}
BLOB = etag("train.parquet", ROWS)

# What requests begin with, for `Failure.on`.
LISTING, HEAD, BODY = f"GET /api/datasets/{NAME}/revision", f"HEAD /datasets/{NAME}", f"GET /datasets/{NAME}"
ROWS_BODY = f"{BODY}/resolve/{COMMIT}/data"


def write_dataset(root: Path) -> None:
    for name, content in FILES.items():
        file = root / "datasets" / NAME / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def isolate_client(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give this process's client a cache and a login of its own below `home`, and nothing of the user's."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", home / "datasets")
    monkeypatch.delenv("HF_TOKEN", raising=False)


def point_client_to(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", address)
    path = "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + path)


def fetch_files(revision: str = "main") -> dict[str, bytes]:
    folder = fetch_snapshot(NAME, revision, "dataset")
    assert folder.name == COMMIT
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def fetch_error(revision: str = "main") -> str:
    with pytest.raises(PipelineError) as error:
        fetch_snapshot(NAME, revision, "dataset")
    return str(error.value)
