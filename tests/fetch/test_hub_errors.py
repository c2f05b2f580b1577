"""pipeline/fetch/hub_errors.py: hubs that cannot be reached, and access that they refuse, with the real client."""

import logging
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from support.hub import COMMIT, Failure, Hub
from support.snapshots import FILES, LISTING, NAME, fetch_error, fetch_files, point_client_to

from pipeline.errors import DataError
from pipeline.fetch.hub import fetch_snapshot

UNAVAILABLE = (
    "data.name: owner/rows at main is not in the cache and cannot be downloaded ({}). Check the connection and "
)
ADDRESSES = {
    "refused": ("http://127.0.0.1:9", "ConnectError"),
    "no such host": ("http://hub.invalid", "ConnectError"),
    "no protocol": ("huggingface.co", "UnsupportedProtocol"),
    "no address": ("http://[::1", "InvalidURL"),
}


@pytest.mark.parametrize(("address", "reason"), ADDRESSES.values(), ids=ADDRESSES)
def test_an_unreachable_hub_is_an_error_unless_the_cache_has_the_files(
    hub: Hub,
    sleeps: list[float],
    address: str,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    log_lines: Callable[[], list[str]],
) -> None:
    def fail_to_resolve(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with monkeypatch.context() as away:
        point_client_to(address, away)
        if "invalid" in address:
            away.setattr(socket, "getaddrinfo", fail_to_resolve)
        assert fetch_error().startswith(UNAVAILABLE.format(reason))
    assert fetch_files() == FILES
    point_client_to(address, monkeypatch)
    if "invalid" in address:
        monkeypatch.setattr(socket, "getaddrinfo", fail_to_resolve)
    assert fetch_files() == FILES
    assert log_lines()[-1] == f"Using owner/rows at {COMMIT} from the cache: the Hub is not available ({reason})"
    assert sleeps == []


def test_a_server_that_is_not_a_hub_is_one_error(hub: Hub, sleeps: list[float]) -> None:
    for page in (b"<html>Log in to the network</html>", b"{}", b"[]"):
        hub.failures = [Failure(LISTING, body=lambda _, page=page: page)]
        assert fetch_error().startswith(UNAVAILABLE.format("the server that answers is not a hub"))


NO_TOKEN = (
    "access to owner/rows is gated, and there is no token. Request it on the Hub's page of owner/rows, then log in"
)
NO_ACCESS = (
    "access to owner/rows is gated, and the token in HF_TOKEN does not have it. Request access on the Hub's page"
)
INVALID = "the Hub answers 401 to {} for owner/rows. Log in again (hf auth login), or set HF_TOKEN"
LOGIN = "the token from hf auth login ({path})"


@pytest.mark.parametrize(
    ("variable", "login", "message"),
    [
        ("", "", NO_TOKEN),
        ("hf_stranger", "", NO_ACCESS),
        ("", "hf_stranger", NO_ACCESS.replace("the token in HF_TOKEN", LOGIN)),
        ("hf_wrong", "hf_secret", INVALID.format("the token in HF_TOKEN")),
        ("", "hf_wrong", INVALID.format(LOGIN)),
        ("hf_wröng", "", "the token in HF_TOKEN cannot be sent: it has characters that no token has. Set it again"),
        ("", "hf_wrong\x00", f"{LOGIN} cannot be sent: it has characters that no token has"),
    ],
)
def test_refused_access_names_the_token_and_never_prints_it(
    hub: Hub,
    variable: str,
    login: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    hub.gated = (NAME,)
    path = tmp_path / "hf/token"
    path.parent.mkdir()
    if variable:
        monkeypatch.setenv("HF_TOKEN", variable)
    if login:
        path.write_text(login)
    error = fetch_error()
    assert message.format(path=path) in error
    assert "hf_" not in error + caplog.text
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert fetch_files() == FILES


def test_a_missing_repository_or_revision_is_an_error_at_once(hub: Hub, sleeps: list[float]) -> None:
    assert fetch_error("v9") == "data.revision: owner/rows has no branch, tag or commit v9"
    message = r"data.name: no dataset owner/none on the Hugging Face Hub, or it is private; if it is, log in"
    with pytest.raises(DataError, match=message):
        fetch_snapshot("owner/none", "main", "dataset")
    assert sleeps == []
