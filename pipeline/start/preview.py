"""Describes the source, and shows its first rows as the model will see them."""

from pipeline.format.chat_notes import describe_chat
from pipeline.records.columns import ColumnMapping
from pipeline.records.tasks import format_names
from pipeline.start.renderer import Rendered, describe_refused
from pipeline.start.sample import Rows, Sample

SHOWN_ROWS = 2
SHOWN_CHARACTERS = 700  # of a prompt or a completion
SHOWN_LINES = 16


def describe_rows(rows: Rows, mapping: ColumnMapping, name: str) -> list[str]:
    """Lines with the number of rows, the columns that are used and those that are not."""
    count = rows.table.num_rows
    total = f"{count:,} rows" if rows.is_complete else f"more than {count - 1:,} rows"
    if rows.test_rows is not None:
        total += f" and {rows.test_rows:,} of the test set"
    used = mapping.source_columns()
    unused = [column for column in rows.table.column_names if column not in used]
    lines = [
        f"Data: {name}: {total}, {rows.table.num_columns} column{'s' if rows.table.num_columns > 1 else ''}",
        f"Columns: {mapping.describe()}",
    ]
    return [*lines, f"Not used: {format_names(unused)}"] if unused else lines


def describe_sample(sample: Sample) -> list[str]:
    """Lines with what renders the rows, which of them the stages will drop, and a switch for HTML."""
    lines = [f"Rows: {sample.renderer.description}"]
    if sample.rendered.chat:
        lines.append(f"Chats: {describe_chat(sample.rendered.chat)}")
    if dropped := sample.dropped:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in dropped.most_common())
        lines.append(f"Of {sample.read:,} rows, {dropped.total():,} will be dropped: {reasons}")
        lines += [f"  {line}" for line in describe_refused(sample.rendered, sample.renderer)]
    if sample.with_html:
        lines.append(
            f"HTML tags are in {sample.with_html:,} of {len(sample.rows):,} rows and will be learned as they are. To keep "
            "only the text, set html: text in conf/clean/default.yaml (or -S clean.html=text for one experiment)"
        )
    return lines


def preview_rows(rows: list[Rendered]) -> list[str]:
    """The first rows, prompt and completion apart."""
    lines = []
    for row in rows[:SHOWN_ROWS]:
        if row.prompt:
            lines += [f"Row {row.id}, prompt:", *_indented(row.prompt)]
        lines += [f"Row {row.id}, completion ({_describe_learned(row)}):", *_indented(row.completion)]
    return lines


def _describe_learned(row: Rendered) -> str:
    """
    >>> _describe_learned(Rendered(0, "A", "B", earlier_turns=2))
    'what the model learns to write, as it does 2 earlier turns of the assistant'
    """
    turns = f"{row.earlier_turns} earlier turn{'s' if row.earlier_turns > 1 else ''} of the assistant"
    return "what the model learns to write" + (f", as it does {turns}" if row.earlier_turns else "")


def _indented(text: str) -> list[str]:
    return [f"  | {line}" for line in shorten_middle(text).split("\n")]


def shorten_middle(text: str, characters: int = SHOWN_CHARACTERS, lines: int = SHOWN_LINES) -> str:
    r"""The text, or its beginning and end with the number of characters that are left out between them.

    >>> shorten_middle("one two three four", characters=8), shorten_middle("a\nb\nc\nd\ne", lines=2)
    ('one  … 10 characters … four', 'a\n … 5 characters … \ne')
    """
    half, parts = characters // 2, text.split("\n")
    head, tail = "\n".join([*parts[: lines // 2], ""]), "\n".join(["", *parts[len(parts) - lines // 2 :]])
    if len(parts) <= lines:
        head = tail = text
    if len(text) <= characters and len(parts) <= lines:
        return text
    head, tail = head[:half], tail[-half:]
    return f"{head} … {len(text) - len(head) - len(tail):,} characters … {tail}"
