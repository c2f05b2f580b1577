"""Addresses of data: how they are shown, and the credentials that they must not hold.

The parameters stand in params.yaml, dvc.lock, the metrics, the report and the model card, so an address with a password or a
signed query would publish it.
"""

import re
from urllib.parse import parse_qsl, unquote

# A query key is secret if one of its words is: X-Amz-Signature, AWSAccessKeyId, access_token.
SECRET_WORDS = frozenset(
    {
        *("apikey", "auth", "authkey", "authorization", "bearer", "credential", "credentials", "hmac", "jwt", "key"),
        *("pass", "passphrase", "passwd", "password", "pwd", "rlkey", "sas", "secret", "session", "sessionid", "sid"),
        *("sig", "sign", "signature", "token"),
    }
)
SECRET_KEYS = frozenset({"se", "sp"})  # of Azure's shared access signatures, beside sig
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
# Tokens that are recognized by their form: of Hugging Face, GitHub, GitLab, Slack, AWS, OpenAI, Google; JSON Web Tokens.
TOKEN = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"hf_(?:[A-Za-z0-9]{30,}|(?=[a-z0-9]*[A-Z]|[A-Za-z]*\d)[A-Za-z0-9]{16,})"
    r"|gh[oprsu]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[abprs]-[\w-]{10,}|AKIA[A-Z0-9]{16}"
    r"|sk-[A-Za-z0-9_-]{32,}|AIza[\w-]{35}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
)
# user:password@host without ://, of an address that lost a part of it.
PASSWORD_IN_PATH = re.compile(
    r"^(?:\w+:/*)?[^/:@\s]+:[^/@\s]+@[\w-]+(?:\.[\w-]+)+(?::\d+)?(?:/|$)|^\w+:/+[^/:@\s]+:[^/@\s]+@"
)
CHAIN = re.compile(r"::(?=(?:[\w+.-]+::)*[\w+.-]+://)")  # between the addresses of simplecache::https://…
URL = re.compile(r"[\w+.-]+://[^\s'\"<>]+")
QUERY_DELIMITER = re.compile(r"[?#]|%(?:25)*3f(?=[^/]*(?:=|%(?:25)*3d))", re.IGNORECASE)
WEB = ("http", "https")
LOCATES_INSIDE = ("git", "github")  # their form is OWNER:REPOSITORY@BRANCH, PATH:BRANCH@FILE


def is_remote(path: str) -> bool:
    """Whether a path in the parameters is an address, not a local path."""
    return "://" in path


def display_address(path: str) -> str:
    """An address or path as it may be shown: without credentials and without the query; a local path as it is.

    >>> display_address("simplecache::https://ann:secret@example.org/rows.csv?download=1")
    'simplecache::https://example.org/rows.csv'
    >>> display_address("data/what?.csv"), display_address("s3://bucket/rows-?.csv")
    ('data/what?.csv', 's3://bucket/rows-?.csv')
    """
    return TOKEN.sub("***", "::".join(_display_link(link) for link in CHAIN.split(path)))


def display_text(text: str) -> str:
    """A text, such as a library's error, with every address in it as `display_address` shows it.

    >>> display_text("403, url='https://bucket.example.org/rows.csv?X-Amz-Signature=ab12'")
    "403, url='https://bucket.example.org/rows.csv'"
    """
    return TOKEN.sub("***", URL.sub(lambda match: display_address(match[0]), text))


def credentials_in(text: str) -> str | None:
    """What kind of credentials a path, address or name holds; None if it holds none.

    >>> credentials_in("https://ann:secret@example.org/rows.csv")
    'a user name or password before @'
    >>> credentials_in("s3://bucket/rows.csv?AWSAccessKeyId=AKIA&Signature=ab")
    'the query parameters AWSAccessKeyId, Signature'
    >>> credentials_in("https://example.org/rows.csv?download=1"), credentials_in("data/a@b.csv")
    (None, None)
    """
    for link in CHAIN.split(text):
        if _has_user_information(link):
            return "a user name or password before @"
        if keys := [key for key, _ in _query_of(link) if _is_secret_key(key)]:
            return f"the query parameter{'s' if len(keys) > 1 else ''} {', '.join(dict.fromkeys(keys))}"
    return "an access token" if TOKEN.search(_unquote_fully(text)) else None


def credentials_error(text: str, protocol: str | None = None) -> str | None:
    """The message for a value that holds credentials, which it does not repeat; None if it holds none.

    `protocol` is that of the place they are for, "hub" for the Hugging Face Hub; None: that of the address.
    """
    kind = credentials_in(text)
    if kind is None:
        return None
    protocol = protocol or _last_protocol(text)
    return (
        f"{display_address(text)} was given with {kind}. The parameters are published in params.yaml, dvc.lock and the "
        f"metrics, so credentials do not belong there. Remove them, and {_advice(protocol, kind)}"
    )


def _advice(protocol: str, kind: str) -> str:
    from_configuration = (
        f"or set them in fsspec's own configuration, ~/.config/fsspec/conf.json or FSSPEC_{protocol.upper()}_… "
        "(see docs/data.md, Credentials)"
    )
    match protocol:
        case "hub" | "hf":
            return "log in (hf auth login) or set HF_TOKEN; a name on the Hub is OWNER/NAME"
        case "s3" | "s3a":
            return f"set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, use ~/.aws/credentials, {from_configuration}"
        case "gs" | "gcs":
            return f"set GOOGLE_APPLICATION_CREDENTIALS, {from_configuration}"
        case "az" | "abfs" | "abfss" | "adl":
            return f"set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_SAS_TOKEN, {from_configuration}"
        case "http" | "https" if "@" in kind:
            return (
                "write them into ~/.netrc (machine HOST login USER password PASSWORD), which is read for http:// and "
                f"https://, {from_configuration}"
            )
        case "http" | "https":
            return (
                "use the storage's own address with credentials from the environment (s3://, gs://, az://), or download "
                f"the file yourself and give its local path; {from_configuration.removeprefix('or ')} for a token in a header"
            )
        case "":
            return "give the file's path alone"
    return from_configuration.removeprefix("or ")


def _display_link(link: str) -> str:
    protocol, separator, rest = link.partition("://")
    if not separator:
        return re.sub(r"[^/:@\s]+:[^/@\s]+@", "", link) if PASSWORD_IN_PATH.match(link) else link
    if protocol in WEB or _query_of(link):
        rest = rest if _has_password_with_delimiter(rest) else QUERY_DELIMITER.split(rest, maxsplit=1)[0]
    if protocol not in LOCATES_INSIDE and _has_user_information(link):
        rest = re.sub(r"^.*(?:@|%(?:25)*40)", "", rest, flags=re.IGNORECASE)
        rest = QUERY_DELIMITER.split(rest, maxsplit=1)[0]
    return f"{protocol}://{rest}"


def _has_user_information(link: str) -> bool:
    """A password before @ in any address, and even a user name alone in a web address: there it is often a token."""
    protocol, separator, rest = link.partition("://")
    if not separator:
        return bool(PASSWORD_IN_PATH.match(_unquote_fully(link)))
    if protocol.lower() in LOCATES_INSIDE:
        return False
    user, at, _ = _unquote_fully(_authority(rest)).rpartition("@")
    return bool(at and (":" in user or protocol.lower() in WEB)) or _has_password_with_delimiter(rest)


def _has_password_with_delimiter(rest: str) -> bool:
    """Whether a password holds / ? or # as it is, so that what seems to be the port is no number: user:pa/ss@host."""
    authority = _authority(rest)
    port = authority.rpartition("@")[2].rpartition(":")[2]
    return ":" in authority and not authority.endswith("]") and not port.isdigit() and "@" in _unquote_fully(rest)


def _authority(rest: str) -> str:
    return re.split(r"[/?#]", rest, maxsplit=1)[0]


def _query_of(link: str) -> list[tuple[str, str]]:
    """The keys and values in the query and the fragment of an address. A ? in a glob is no query: it has no =."""
    parts = QUERY_DELIMITER.split(link)[1:] if is_remote(link) else []
    return [
        pair
        for part in parts
        for pair in parse_qsl(_unquote_fully(part).replace(";", "&"), keep_blank_values=True)
        if "=" in _unquote_fully(part)
    ]


def _is_secret_key(key: str) -> bool:
    words = {word.lower() for word in WORD.findall(_unquote_fully(key))}
    return bool(words & SECRET_WORDS) or key.lower() in SECRET_KEYS or key.lower() in SECRET_WORDS


def _unquote_fully(text: str) -> str:
    """The text without percent encoding, which may be applied more than once."""
    while (decoded := unquote(text)) != text:
        text = decoded
    return text


def _last_protocol(text: str) -> str:
    """The protocol that reaches the file, which is the last of a chain such as simplecache::https://…"""
    return next((link.partition("://")[0].lower() for link in reversed(CHAIN.split(text)) if is_remote(link)), "")
