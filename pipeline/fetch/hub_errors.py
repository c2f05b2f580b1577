"""What the hub and its client refuse, in words for the user: the parameter, what is wrong, what to do, never a token."""

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
from huggingface_hub.utils import get_token_to_send

from pipeline.fetch.downloads import retry_after_seconds


def explain_hub_error(error: Exception, name: str, revision: str, kind: str) -> str:
    """The parameter, and what is wrong with it, in words for the user; never what a library says of a request."""
    login = "log in (hf auth login) or set HF_TOKEN"
    token = token_source()
    match error:
        case HFValidationError():
            return f"name: {name!r} is not a name on the hub (OWNER/NAME): {error}"
        case GatedRepoError() if token:
            return (
                f"name: access to {name} is gated, and {token} does not open it. Ask for access on the hub's page of "
                f"{name}, by the account of that token; a fine-grained token must be allowed to read gated repositories"
            )
        case GatedRepoError():
            return (
                f"name: access to {name} is gated, and there is no token. Ask for it on the hub's page of {name}, "
                f"then {login}"
            )
        case RevisionNotFoundError():
            return f"revision: {name} has no branch, tag or commit {revision}"
        case RepositoryNotFoundError():
            sent = f"{token} does not open it" if token else f"then {login}"
            return f"name: no {kind} {name} on the hub, or it is private: {sent}"
        case HfHubHTTPError() if error.response.status_code in (401, 403):
            return (
                f"name: the hub answers {error.response.status_code} to {token or 'a request without a token'} for "
                f"{name}. Log in anew (hf auth login), or set HF_TOKEN to a token that is valid and may read it"
            )
        case httpx2.LocalProtocolError():
            return f"name: {token} cannot be sent: it has signs that no token has. Set it anew"
    return (
        f"name: {name} at {revision} is not in the cache and the hub does not send it ({summarize_error(error)}). Check the "
        "connection and HF_ENDPOINT, and HF_HUB_OFFLINE if it is set; a download goes on where it broke off"
    )


def summarize_error(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) and error.__cause__ else error
    if isinstance(cause, HfHubHTTPError):
        wait = f"; it asks to wait {seconds:,} s" if (seconds := retry_after_seconds(cause)) else ""
        return f"it says {cause.response.status_code} {cause.response.reason_phrase}{wait}"
    return str(cause) if isinstance(cause, httpx2.DecodingError) else type(cause).__name__


def token_source() -> str | None:
    """Where the token comes from that is sent; None if there is none."""
    if get_token_to_send(None) is None:
        return None
    for variable in ("HF_OIDC_RESOURCE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if os.environ.get(variable, "").strip():
            return f"the token of {variable}"
    return f"the token of hf auth login ({constants.HF_TOKEN_PATH})"
