"""Recognizes what a file is by its first bytes, for advice about a file whose extension tells no format."""

SIGNATURES = (
    (b"PAR1", "Parquet", ".parquet"),
    (b"ARROW1", "Arrow", ".arrow"),
    (b"\xff\xff\xff\xff", "Arrow", ".arrow"),
    (b"\x1f\x8b", "compressed by gzip", ".gz"),
    (b"BZh", "compressed by bzip2", ".bz2"),
    (b"\xfd7zXZ\0", "compressed by xz", ".xz"),
    (b"\x28\xb5\x2f\xfd", "compressed by Zstandard", ".zst"),
    (b"PK\x03\x04", "a ZIP archive or an Office document; unpack it, or name a workbook .xlsx", None),
    (b"%PDF", "a PDF document, which has no rows", None),
    (b"SQLite format 3\0", "an SQLite database; export a table as .csv", None),
    (b"\xd0\xcf\x11\xe0", "an old Office document; name a workbook .xls", None),
    (b"\x80\x04", "a pickle, which can run code when it is opened and is never read", None),
)
_ROWS = "write the rows into a file: CSV with a column each for question and answer, or one JSON object a line (.jsonl)"
_EXPORT = "Export the table as CSV or Parquet"
_PICKLE = "Pickles can run code when they are opened, so they are never read: save the rows as .parquet or .jsonl"
_ADVICE = {
    (".pdf", ".docx", ".doc", ".odt", ".rtf", ".pptx", ".html", ".htm", ".md"): f"A document has no rows: {_ROWS}",
    (".zip", ".tar", ".tgz", ".7z", ".rar"): "Unpack the archive and give the file or folder that it holds",
    (".xlsb", ".numbers"): "Save the sheet as .xlsx or .csv",
    (".db", ".sqlite", ".sqlite3", ".duckdb", ".mdb"): _EXPORT,
    (".dta", ".sav", ".sas7bdat", ".rds", ".rdata", ".h5", ".hdf5", ".orc", ".avro", ".xml", ".yaml", ".yml"): _EXPORT,
    (".pkl", ".pickle", ".joblib", ".pt", ".bin", ".npy", ".npz"): _PICKLE,
}
ADVICE = {extension: advice for extensions, advice in _ADVICE.items() for extension in extensions}


def describe_content(head: bytes) -> tuple[str, str | None]:
    """(what the content looks like, the extension that fits; None if no format that is read fits).

    >>> describe_content(b'{"question": "Why?", "answer": "So."}\\n')
    ('JSON Lines', '.jsonl')
    >>> describe_content(b"question;answer\\nWhy?;So.\\n"), describe_content(b"\\0\\1\\2")[0]
    (('CSV', '.csv'), 'binary data of no known format')
    """
    for signature, description, extension in SIGNATURES:
        if head.startswith(signature):
            return description, extension
    if not head.strip():
        return "empty", None
    try:
        text = head.decode("utf-16" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig", errors="strict")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return "binary data of no known format", None
        text = head[: error.start].decode("utf-8-sig")
    if "\0" in text:
        return "binary data of no known format", None
    return _describe_text(text)


def _describe_text(text: str) -> tuple[str, str | None]:
    lines = [line for line in text.splitlines()[:20] if line.strip()]
    if text.lstrip().startswith("["):
        return "a JSON list", ".json"
    if lines[0].lstrip().startswith("{"):
        return ("JSON Lines", ".jsonl") if lines[0].rstrip().endswith("}") else ("JSON", ".json")
    for delimiter, name, extension in ((",", "CSV", ".csv"), (";", "CSV", ".csv"), ("\t", "text between tabs", ".tsv")):
        if len(lines) > 1 and all(delimiter in line for line in lines[:3]):
            return name, extension
    return f"text without columns; {_ROWS}", None
