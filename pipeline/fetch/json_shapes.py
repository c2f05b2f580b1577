"""The rows in a JSON document that is one object.

- rows under a key, at any depth: `{"version": 1, "data": [{…}, …]}`
- columns: `{"question": […], "answer": […]}`, or as pandas writes them, `{"question": {"0": …}, "answer": {"0": …}}`
- pandas' other forms: `{"columns": […], "data": [[…], …]}`, and rows by index, `{"0": {…}, "1": {…}}`
- a single row

An object with the columns of a task, or those in data.columns, is a row or has columns. Otherwise it holds rows.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pipeline.errors import DataError
from pipeline.records.detection import find_matches, referenced_columns
from pipeline.records.tasks import format_names

log = logging.getLogger(__name__)
Row = dict[str, Any]
Path = tuple[str, ...]  # of keys
ROLE_KEYS = ("role", "from")  # of the turns of a chat
TURN_KEYS = {*ROLE_KEYS, "content", "value"}
MAX_DEPTH = 5  # of the key that holds the rows


def rows_of_object(value: Row, name: str, field: str | None, columns: Mapping[str, str] | None) -> Iterable[Row]:
    """The rows in an object. `field` is data.field, the key that holds the rows; `columns` is data.columns.

    Raises DataError if it has no known shape, or if more than one key holds rows.
    """
    if field is not None:
        return _rows_of_field(value, name, field, columns)
    mapped = _mapped_columns(value, columns)
    if mapped and all(_is_list_of_rows(value[key]) and not _are_turns(key, value[key]) for key in mapped):
        mapped = None  # the key that holds the rows has the name of a column, such as `conversations`
    if mapped is None and (path := _find_rows(value, name)):
        log_opened_key(".".join(path), [key for key in value if key != path[0]], name)
        return _require_objects(_value_at(value, path), f"{name}, {'.'.join(path)}")
    return _table_rows(value, name, mapped, columns) or [value]


def _rows_of_field(value: Row, name: str, field: str, columns: Mapping[str, str] | None) -> Iterable[Row]:
    """The rows under the key data.field; dots separate the keys of a path."""
    try:
        rows = _value_at(value, (field,) if field in value else tuple(field.split(".")))
    except (KeyError, TypeError):
        raise DataError(f"data.field={field}: {name} has no such key; its keys are {format_names(value)}") from None
    if isinstance(rows, list):
        return _require_objects(rows, f"{name}, {field}")
    found = _table_rows(rows, name, _mapped_columns(rows, columns), columns) if isinstance(rows, dict) else []
    if not found:
        raise DataError(f"data.field={field}: {name} has no rows there; expected a list of objects")
    return found


def _require_objects(values: list[Any], location: str) -> Iterator[Row]:
    for number, value in enumerate(values, start=1):
        if not isinstance(value, dict):
            raise not_an_object_error(f"{location}, row {number}", value)
        yield value


def _mapped_columns(value: Row, columns: Mapping[str, str] | None) -> list[str] | None:
    """The keys that would be the columns of a task, or None."""
    choices = [match.columns for match in find_matches(list(value))] if columns is None else [columns]
    names = [name for template in (choices or [{}])[0].values() for name in referenced_columns(template)]
    return names if names and set(names) <= set(value) else None


def _find_rows(value: Row, name: str) -> Path:
    """The path to the only list of objects at the least depth that has one; () if there is none."""
    level: list[tuple[Path, Row]] = [((), value)]
    for _ in range(MAX_DEPTH):
        entries = [((*path, key), item) for path, parent in level for key, item in parent.items()]
        if found := [path for path, item in entries if _is_list_of_rows(item)]:
            if len(found) > 1:
                raise several_lists_error([".".join(path) for path in found], name)
            return found[0]
        level = [(path, item) for path, item in entries if isinstance(item, dict)]
    return ()


def _is_list_of_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and not is_turn(value[0])


def _are_turns(key: str, value: list[Row]) -> bool:
    """Whether the objects under a key that may be a chat's are its turns, though the first one has no role."""
    return key == "messages" or set(value[0]) <= TURN_KEYS


def _value_at(value: Any, path: Path) -> Any:
    for key in path:
        value = value[key]
    return value


def is_turn(value: Row) -> bool:
    """Whether an object is a turn of a chat, so that a list of them is one row's value."""
    return any(isinstance(value.get(key), str) for key in ROLE_KEYS)


def _table_rows(value: Row, name: str, mapped: list[str] | None, columns: Mapping[str, str] | None) -> list[Row]:
    """The rows of an object that is a table; an empty list if it is none."""
    names, data = value.get("columns"), value.get("data")
    if isinstance(names, list) and isinstance(data, list) and all(isinstance(row, list) for row in data):
        if any(len(row) != len(names) for row in data):
            raise DataError(
                f"{name}: the lists in data differ in length from columns; expected {len(names)} values each"
            )
        return [dict(zip(map(str, names), row, strict=True)) for row in data]
    if mapped is None and (rows := _rows_by_index(value, columns)):
        return rows
    kept = _columns_of(value, mapped, name)
    if not kept:
        return []
    if left_out := [key for key in value if key not in kept]:
        log.info(f"{name}: read as columns; left out, because they are no columns: {format_names(left_out)}")
    return [dict(zip(kept, cells, strict=True)) for cells in zip(*kept.values(), strict=True)]


def _rows_by_index(value: Row, columns: Mapping[str, str] | None) -> list[Row]:
    """The rows of an object of objects, each under a key of its own, which is kept as the column `key` unless it counts."""
    items = list(value.values())
    if not items or not all(isinstance(item, dict) for item in items):
        return []
    counts = all(key.isdecimal() for key in value)
    if not counts and any(_mapped_columns(item, columns) is None for item in items):
        return []
    return items if counts else [{"key": key} | item for key, item in value.items()]


def _columns_of(value: Row, mapped: list[str] | None, name: str) -> dict[str, list[Any]]:
    """The columns of an object whose mapped keys hold lists of equal length, or objects with the same keys; {} if not."""
    expected = mapped or list(value)
    columns = {
        key: cells
        for key, item in value.items()
        if (cells := _cells(item, is_mapped=key in (mapped or ()))) is not None
    }
    if not columns or not set(expected) <= set(columns):
        return {}
    indexes = {tuple(value[key]) if isinstance(value[key], dict) else len(value[key]) for key in expected}
    if len(indexes) == 1:
        return {key: cells for key, cells in columns.items() if len(cells) == len(columns[expected[0]])}
    if mapped is None:
        return {}
    counts = ", ".join(f"{key} {len(columns[key])}" for key in expected)
    raise DataError(
        f"{name}: the columns do not have the same rows (values: {counts}); expected one value for each row"
    )


def _cells(value: Any, is_mapped: bool) -> list[Any] | None:
    """The cells of a column, or None if the value is that of one row."""
    if isinstance(value, dict):
        return list(value.values()) if value and (is_mapped or all(map(str.isdecimal, value))) else None
    is_of_one_row = (
        isinstance(value, list) and bool(value) and isinstance(value[0], dict) and (is_mapped or is_turn(value[0]))
    )
    return value if isinstance(value, list) and not is_of_one_row else None


def not_an_object_error(location: str, value: Any) -> DataError:
    kind = {list: "list", str: "text", bool: "truth value", type(None): "null"}.get(type(value), "number")
    return DataError(f'{location}: a JSON {kind}; expected an object, such as {{"question": …}}')


def several_lists_error(keys: list[str], name: str) -> DataError:
    choices = "".join(f"\n  data.field={key}" for key in keys)
    return DataError(f"{name}: more than one key holds a list of objects. Choose the one that holds the rows:{choices}")


def log_opened_key(key: str, others: Iterable[str], name: str) -> None:
    names = format_names(others)
    log.info(f"{name}: the rows are those in the key {key}{f'; left out: {names}' if names else ''}")
