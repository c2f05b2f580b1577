"""Workbooks (.xlsx), written as literal XML: the smallest files that spreadsheet programs open."""

import io
import zipfile
from collections.abc import Sequence
from xml.sax.saxutils import escape

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"
CONTENT_TYPES = (
    '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="xml" '
    'ContentType="application/xml"/><Override PartName="/xl/workbook.xml" '
    'ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/></Types>'
)
# The number formats of cells: 0 general, 1 a date, 2 a date and time.
STYLES = (
    f'<styleSheet xmlns="{MAIN}"><cellXfs count="3"><xf numFmtId="0"/><xf numFmtId="14"/><xf numFmtId="22"/></cellXfs>'
    "</styleSheet>"
)
Cell = str | int | float | bool | None


class Raw(str):
    """A cell as XML, without its reference: `Raw('<v>45657</v>', 's="1"')` is a date."""

    attributes: str

    def __new__(cls, content: str, attributes: str = "") -> "Raw":
        raw = super().__new__(cls, content)
        raw.attributes = attributes
        return raw


def workbook(
    sheets: dict[str, Sequence[Sequence[Cell]]], merged: Sequence[str] = (), hidden: Sequence[str] = ()
) -> bytes:
    """The bytes of a workbook with these sheets; `merged` ranges, such as A2:A3, are those of each sheet."""
    entries, relations = "", _relation("s", "styles", "styles.xml")
    for number, name in enumerate(sheets, start=1):
        state = "hidden" if name in hidden else "visible"
        entries += f'<sheet name="{escape(name)}" sheetId="{number}" state="{state}" r:id="r{number}"/>'
        relations += _relation(f"r{number}", "worksheet", f"worksheets/sheet{number}.xml")
    files = {
        "[Content_Types].xml": CONTENT_TYPES,
        "_rels/.rels": _relations(_relation("w", "officeDocument", "xl/workbook.xml")),
        "xl/workbook.xml": f'<workbook xmlns="{MAIN}" xmlns:r="{RELATIONS}"><sheets>{entries}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": _relations(relations),
        "xl/styles.xml": STYLES,
    }
    files |= {
        f"xl/worksheets/sheet{number}.xml": _sheet(rows, merged) for number, rows in enumerate(sheets.values(), 1)
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def _relations(entries: str) -> str:
    return f'<Relationships xmlns="{PACKAGE}">{entries}</Relationships>'


def _relation(id: str, kind: str, target: str) -> str:
    return f'<Relationship Id="{id}" Type="{RELATIONS}/{kind}" Target="{target}"/>'


def _sheet(rows: Sequence[Sequence[Cell]], merged: Sequence[str]) -> str:
    lines = [
        f'<row r="{number}">{"".join(_cell(cell, f"{chr(65 + column)}{number}") for column, cell in enumerate(row))}</row>'
        for number, row in enumerate(rows, start=1)
    ]
    ranges = "".join(f'<mergeCell ref="{reference}"/>' for reference in merged)
    merges = f'<mergeCells count="{len(merged)}">{ranges}</mergeCells>' if merged else ""
    return f'<worksheet xmlns="{MAIN}"><sheetData>{"".join(lines)}</sheetData>{merges}</worksheet>'


def _cell(cell: Cell, reference: str) -> str:
    if cell is None:
        return ""
    if isinstance(cell, Raw):
        return f'<c r="{reference}" {cell.attributes}>{cell}</c>'
    if isinstance(cell, bool):
        return f'<c r="{reference}" t="b"><v>{int(cell)}</v></c>'
    if isinstance(cell, str):
        return f'<c r="{reference}" t="inlineStr"><is><t xml:space="preserve">{escape(cell)}</t></is></c>'
    return f'<c r="{reference}"><v>{cell!r}</v></c>'
