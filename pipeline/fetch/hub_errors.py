"""Explains errors of the Hub and its client to the user: the parameter, what is wrong, what to do. Never shows a token."""

import os

import httpx2
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import get_token_to_send  # type: ignore[attr-defined]  # re-exported without __all__

from pipeline.fetch.downloads import retry_after_seconds


def explain_hub_error(error: Exception, name: str, revision: str, kind: str) -> str:
    """ "PARAMETER: what is wrong with it", without the library's text about a request, which may hold the token."""
    login = "log in (hf auth login) or set HF_TOKEN"
    token = token_source()
    match error:
        case HFValidationError():
            return f"name: {name!r} is not a name on the Hugging Face Hub (OWNER/NAME): {error}"
        case GatedRepoError() if token:
            return (
                f"name: access to {name} is gated, and {token} does not have it. Request access on the Hub's page of "
                f"{name} with the account of that token; a fine-grained token also needs permission to read gated "
                "repositories"
            )
        case GatedRepoError():
            return (
                f"name: access to {name} is gated, and there is no token. Request it on the Hub's page of {name}, "
                f"then {login}"
            )
        case RevisionNotFoundError():
            return f"revision: {name} has no branch, tag or commit {revision}"
        case RepositoryNotFoundError():
            if token:
                return (
                    f"name: no {kind} {name} on the Hugging Face Hub, or it is private and {token} has no access to it"
                )
            return f"name: no {kind} {name} on the Hugging Face Hub, or it is private; if it is, {login}"
        case HfHubHTTPError() if error.response.status_code in (401, 403):
            return (
                f"name: the Hub answers {error.response.status_code} to {token or 'a request without a token'} for "
                f"{name}. Log in again (hf auth login), or set HF_TOKEN to a valid token that may read it"
            )
        case httpx2.LocalProtocolError():
            return f"name: {token} cannot be sent: it has characters that no token has. Set it again"
    return (
        f"name: {name} at {revision} is not in the cache and cannot be downloaded ({summarize_error(error)}). Check the "
        "connection and HF_ENDPOINT, and HF_HUB_OFFLINE if it is set; a download resumes where it was interrupted"
    )


def summarize_error(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) and error.__cause__ else error
    if isinstance(cause, HfHubHTTPError):
        wait = f", retry after {seconds:,} s" if (seconds := retry_after_seconds(cause)) else ""
        return f"HTTP {cause.response.status_code} {cause.response.reason_phrase}{wait}"
    return str(cause) if isinstance(cause, httpx2.DecodingError) else type(cause).__name__


def token_source() -> str | None:
    """Which token is sent, by its source; None if there is none."""
    if get_token_to_send(None) is None:
        return None
    for variable in ("HF_OIDC_RESOURCE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if os.environ.get(variable, "").strip():
            return f"the token in {variable}"
    return f"the token from hf auth login ({constants.HF_TOKEN_PATH})"
