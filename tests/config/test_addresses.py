"""Credentials in addresses: refused by the schema, and never repeated."""

import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.project import SHIPPED

from pipeline.compose.composition import compose_params
from pipeline.config.addresses import credentials_error, credentials_in, display_address, display_text
from pipeline.errors import ConfigError

SECRET = "s3cretw0rd"
TOKEN = "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH"
WITH_CREDENTIALS = [
    f"https://ann:{SECRET}@example.org/rows.csv",
    f"HTTPS://ann:{SECRET}@example.org/rows.csv?download=1",
    f"https://ann%3A{SECRET}%40example.org/rows.csv",
    f"https://ann:{SECRET}%2540@example.org/rows.csv",
    f"https://ann:x/{SECRET}@example.org/rows.csv",
    f"https://ann:x?{SECRET}@example.org/rows.csv",
    f"https://ann:x#{SECRET}@example.org/rows.csv",
    f"https://{SECRET}@example.org/rows.csv",
    f"https:/ann:{SECRET}@example.org/rows.csv",
    f"ann:{SECRET}@example.org/rows.csv",
    f"ftp://ann:{SECRET}@example.org/rows.csv",
    f"sftp://ann:{SECRET}@example.org:22/rows.csv",
    f"smb://ann:{SECRET}@server/share/rows.csv",
    f"s3://AKID:{SECRET}@bucket/rows.csv",
    f"simplecache::https://ann:{SECRET}@example.org/rows.csv",
    f"zip://rows.csv::https://ann:{SECRET}@example.org/rows.zip",
    f"https://bucket.example.org/rows.csv?X-Amz-Credential=AKID&X-Amz-Signature={SECRET}",
    f"https://bucket.example.org/rows.csv?AWSAccessKeyId=AKID&Expires=1&Signature={SECRET}",
    f"https://bucket.example.org/rows.csv?X-Amz-Security-Token={SECRET}",
    f"https://example.org/rows.csv?X-Goog-Signature={SECRET}",
    f"https://account.blob.core.windows.net/c/rows.csv?sv=2024-01-01&se=2030&sp=r&sig={SECRET}",
    f"filecache::s3://bucket/rows.csv?x-amz-signature={SECRET}",
    f"https://example.org/rows.csv?download=1&token={SECRET}",
    f"https://example.org/rows.csv?download=1;access_token={SECRET}",
    f"https://example.org/rows.csv?apiKey={SECRET}",
    f"https://example.org/rows.csv?api-key={SECRET}",
    f"https://example.org/rows.csv?KEY={SECRET}",
    f"https://example.org/rows.csv?password={SECRET}",
    f"https://example.org/rows.csv?X%2DAmz%2DSignature={SECRET}",
    f"https://example.org/rows.csv%3Ftoken%3D{SECRET}",
    f"https://example.org/rows.csv#access_token={SECRET}",
    f"https://ann:{TOKEN}@huggingface.co/datasets/owner/name/rows.csv",
    f"https://huggingface.co/{TOKEN}/rows.csv",
    f"hf://{TOKEN}@datasets/owner/name",
]
WITHOUT_CREDENTIALS = {
    "https://example.org/rows.csv?download=1": "https://example.org/rows.csv",
    "https://example.org/rows.csv?format=csv&gid=0": "https://example.org/rows.csv",
    "https://example.org:8080/rows.csv#rows": "https://example.org:8080/rows.csv",
    "https://example.org/@ann/tokens/key.csv": "https://example.org/@ann/tokens/key.csv",
    "https://[::1]:80/rows.csv": "https://[::1]:80/rows.csv",
    "s3://bucket/rows-?.csv": "s3://bucket/rows-?.csv",
    "hf://datasets/owner/name@refs/convert/parquet": "hf://datasets/owner/name@refs/convert/parquet",
    "abfs://container@account.dfs.core.windows.net/rows.csv": "abfs://container@account.dfs.core.windows.net/rows.csv",
    "github://owner:repository@main/rows.csv": "github://owner:repository@main/rows.csv",
    "sftp://ann@example.org/rows.csv": "sftp://ann@example.org/rows.csv",
    "data/what?.csv": "data/what?.csv",
    "data/10:30@home/rows.csv": "data/10:30@home/rows.csv",
    "/data/key=value/sig=1.csv": "/data/key=value/sig=1.csv",
    "owner/hf_dataset_of_conversations": "owner/hf_dataset_of_conversations",
}


@pytest.mark.parametrize("address", WITH_CREDENTIALS)
def test_credentials_are_found_and_never_repeated(address: str) -> None:
    error = credentials_error(address)
    assert error is not None
    texts = [error, display_address(address)]
    if "://" in address:
        texts.append(display_text(f"cannot read url='{address}'"))
    for text in texts:
        assert SECRET not in text
        assert TOKEN not in text


@pytest.mark.parametrize("address", WITHOUT_CREDENTIALS)
def test_address_without_credentials_is_accepted_and_shown_without_query(address: str) -> None:
    assert credentials_in(address) is None
    assert display_address(address) == WITHOUT_CREDENTIALS[address]


URL_TEXT = st.text(
    st.characters(codec="ascii", exclude_characters="@/?#\\", categories=("L", "N", "P", "S")), min_size=8
)


@given(
    user=st.text("abcXYZ019._~-", min_size=1), password=URL_TEXT, scheme=st.sampled_from(["https", "ftp", "s3", "sftp"])
)
def test_any_password_before_the_host_is_found_and_hidden(user: str, password: str, scheme: str) -> None:
    address = f"{scheme}://{user}:{password}@host.example.org/rows.csv"
    assert credentials_in(address)
    assert display_address(address) == f"{scheme}://host.example.org/rows.csv"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            f"data.path='https://ann:{SECRET}@example.org/rows.csv'",
            "data.path: https://example.org/rows.csv was given with a",
        ),
        (
            f"data.path='https://example.org/rows.csv?sig={SECRET}'",
            "with the query parameter sig. The parameters are published",
        ),
        (
            f"data.test_path='ftp://ann:{SECRET}@example.org/rows.csv'",
            "data.test_path: ftp://example.org/rows.csv was given",
        ),
    ],
)
def test_composition_refuses_credentials_without_repeating_them(
    override: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(SHIPPED)
    with pytest.raises(ConfigError) as error:
        compose_params("data=file", "data.path=rows.csv", "model=scratch", override)
    assert message in str(error.value)
    assert SECRET not in "".join(traceback.format_exception(error.value))


@pytest.mark.parametrize("section", ["data", "model"])
def test_tokens_in_names_of_the_hub_are_refused(section: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(SHIPPED)
    with pytest.raises(ConfigError) as error:
        compose_params(f"{section}=hub", f"{section}.name='https://ann:{TOKEN}@huggingface.co/owner/name'")
    assert f"{section}.name: https://huggingface.co/owner/name was given with" in str(error.value)
    assert "log in (hf auth login) or set HF_TOKEN; a name on the Hub is OWNER/NAME" in str(error.value)
    assert TOKEN not in str(error.value)


def test_advice_names_what_works_for_the_protocol() -> None:
    def advice(address: str) -> str:
        return credentials_error(address) or ""

    assert "~/.netrc (machine HOST login USER password PASSWORD)" in advice("https://ann:x@example.org/rows.csv")
    assert "credentials from the environment (s3://, gs://, az://)" in advice("https://example.org/rows.csv?sig=x")
    assert "AWS_ACCESS_KEY_ID" in advice("s3://ann:x@bucket/rows.csv")
    assert "AZURE_STORAGE_SAS_TOKEN" in advice("abfs://c/rows.csv?sig=x")
    assert "FSSPEC_SFTP_…" in advice("simplecache::sftp://ann:x@host/rows.csv")
