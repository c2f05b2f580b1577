"""Fetches the dataset and the base model; the later stages need no network.

    python -m pipeline.fetch instance=data     data section  → data/raw/rows.parquet, data/raw/columns.json
    python -m pipeline.fetch instance=model    model section → models/base/

rows.parquet has the source's rows and columns, columns.json maps its columns onto those of a task. Each instance writes
metrics/details/fetch/INSTANCE.json with the resolved revision: the Hub's commit, or the SHA-256 of a local source.
"""

import logging
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config.addresses import display_address
from pipeline.config.params import Params
from pipeline.config.sources import Data, FolderModel, GeneratedRows, HubModel, HubRows, Model, ScratchModel
from pipeline.core.console import preview
from pipeline.core.entrypoint import stage
from pipeline.core.files import atomic_write, sha256_of_path
from pipeline.core.metrics import write_metrics
from pipeline.core.paths import BASE, RAW, RAW_COLUMNS, RAW_ROWS
from pipeline.errors import DataError
from pipeline.fetch import sources
from pipeline.fetch.arrow_tables import plain_table
from pipeline.fetch.model_folder import fetch_model, model_name
from pipeline.records.columns import write_column_mapping
from pipeline.records.tasks import format_names

log = logging.getLogger(__name__)

HEADLINE = {"data": {"rows.source": "rows"}, "model": {"parameters": "parameters"}}

MAX_UNUSED_SHOWN, MAX_NAME_WIDTH = 10, 40  # columns in the log, and characters of a name


def fetch_data(source: Data) -> dict[str, Any]:
    """Write the source's rows and their column mapping to data/raw; return the metrics."""
    loaded = sources.load_rows(source)
    log.info(_describe_columns(loaded))
    if loaded.test_rows:
        log.info(f"Test set: {loaded.test_rows:,} rows of {sources.test_key(source)}")
    table = plain_table(loaded.table)
    with atomic_write(RAW) as folder:
        folder.mkdir()
        rows = folder / RAW_ROWS.name
        try:
            pq.write_table(table, rows, compression="zstd", row_group_size=1 << 16)
        except pa.ArrowException as error:
            raise DataError(f"the source's columns do not fit into Parquet: {error}") from None
        write_column_mapping(folder / RAW_COLUMNS.name, loaded.mapping)
        checksum, size = sha256_of_path(rows), rows.stat().st_size
    return {
        "rows": table.num_rows - loaded.test_rows,
        "test_rows": loaded.test_rows,
        "columns": table.num_columns,
        "bytes": size,
        "source": source.source,
        "name": source_name(source),
        "revision": loaded.revision,
        "test_revision": loaded.test_revision,
        "sha256": checksum,
    }


def _describe_columns(loaded: sources.LoadedRows) -> str:
    used = loaded.mapping.source_columns()
    unused = [name for name in loaded.table.column_names if name not in used]
    shown = format_names(preview(name, MAX_NAME_WIDTH) for name in unused[:MAX_UNUSED_SHOWN])
    more = f" and {len(unused) - MAX_UNUSED_SHOWN:,} more" if len(unused) > MAX_UNUSED_SHOWN else ""
    return f"Columns: {loaded.mapping.describe()}{f'; unused: {shown}{more}' if unused else ''}"


def source_name(source: Data | Model) -> str:
    """The hub's name of a dataset or model, or its path or address, as it may be shown."""
    if isinstance(source, HubRows):
        return source.name
    if isinstance(source, HubModel | FolderModel | ScratchModel):
        return model_name(source)
    return display_address(source.path)


def describe_fetch(source: Data | Model) -> str:
    """What fetch is about to do, for the log."""
    match source:
        case HubRows() | HubModel():
            return f"Fetching {source.name} at {source.revision} from the Hugging Face Hub or its local cache"
        case GeneratedRows():
            return f"Generating {source.rows:,} dialogues from {source.path}"
        case ScratchModel():
            return "Creating a GPT-NeoX with random weights and training its tokenizer on the rows"
        case FolderModel():
            return f"Copying the base model from {source.path}"
        case _:
            return f"Reading the data from {display_address(source.path)}"


@stage("fetch", instances=("data", "model"))
def main(params: Params, instance: str) -> None:
    log.info(describe_fetch(params.data if instance == "data" else params.model))
    metrics = fetch_data(params.data) if instance == "data" else fetch_model(params.model)
    write_metrics(f"fetch/{instance}", metrics, HEADLINE[instance])
    if instance == "data":
        log.info(f"{metrics['rows']:,} rows with {metrics['columns']} column{'s' * (metrics['columns'] != 1)} → {RAW}/")
    else:
        log.info(f"{metrics['architecture']}, {metrics['parameters']:,} parameters → {BASE}/")
