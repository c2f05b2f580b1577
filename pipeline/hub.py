"""Snapshots from the Hugging Face hub, which HF_ENDPOINT, HF_TOKEN, HF_HOME and HF_HUB_OFFLINE steer as usual."""

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from pipeline.errors import DataError, ModelError, PipelineError

# Neither pickled weights nor code: the one is unsafe to open, the other never run.
IGNORED = {
    "model": ["*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt", "*.h5", "*.msgpack", "*.onnx", "*.py", "*.gguf", "*/*"],
    "dataset": ["*.py", "*.pkl"],
}


def snapshot(name: str, revision: str, kind: str) -> Path:
    """The folder of a repository's snapshot, named after the resolved commit; from the cache where it is there.

    `kind` is "dataset" or "model". Raises DataError or ModelError, by kind, in words for the user.
    """
    fault: type[PipelineError] = DataError if kind == "dataset" else ModelError
    section = "data" if kind == "dataset" else "model"
    try:
        return Path(snapshot_download(name, repo_type=kind, revision=revision, ignore_patterns=IGNORED[kind]))
    except HFValidationError as error:
        raise fault(f"{section}.name: {name!r} is not a name on the hub (OWNER/NAME): {error}") from None
    except GatedRepoError:
        raise fault(
            f"{section}.name: access to {name} is gated. Ask for it on the hub's page of {name}, "
            "then log in (hf auth login) or set HF_TOKEN"
        ) from None
    except RevisionNotFoundError:
        raise fault(f"{section}.revision: {name} has no branch, tag or commit {revision}") from None
    except RepositoryNotFoundError:
        raise fault(
            f"{section}.name: no {kind} {name} on the hub, or it is private: then log in (hf auth login) or set HF_TOKEN"
        ) from None
    except (LocalEntryNotFoundError, HTTPError) as error:
        raise fault(
            f"{section}.name: {name} at {revision} is not in the cache and the hub does not answer "
            f"({type(error).__name__}). Check the connection and HF_ENDPOINT, and HF_HUB_OFFLINE if it is set"
        ) from None
