"""Fetches the dataset and the base model; the later stages need no network.

    python -m pipeline.fetch instance=data     data section  → data/raw/rows.parquet, data/raw/columns.json
    python -m pipeline.fetch instance=model    model section → models/base/

rows.parquet has the source's rows and columns, columns.json maps its columns onto those of a task. Each instance writes
metrics/fetch/INSTANCE.json with the resolved revision: the Hub's commit, or the SHA-256 of a local source.
"""

import logging
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config.params import Params
from pipeline.config.sources import Data, FolderModel, GeneratedRows, HubModel, HubRows, Model, ScratchModel
from pipeline.core.entrypoint import stage
from pipeline.core.files import atomic_write, sha256_of_path, write_json
from pipeline.core.paths import BASE, METRICS, RAW, RAW_COLUMNS, RAW_ROWS
from pipeline.errors import DataError, ModelError
from pipeline.fetch import hub, sources
from pipeline.modeling import loading
from pipeline.records.columns import write_column_mapping
from pipeline.records.tasks import format_names

log = logging.getLogger(__name__)

# The files of a model folder that a causal language model needs; optimizer states and pickles are not copied.
MODEL_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")


def fetch_data(source: Data) -> dict[str, Any]:
    """Write the source's rows and their column mapping to data/raw; return the metrics."""
    loaded = sources.load_rows(source)
    log.info(_describe_columns(loaded))
    table = _storable(loaded.table)
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
        "rows": table.num_rows,
        "columns": table.num_columns,
        "bytes": size,
        "source": source.source,
        "name": source_name(source),
        "revision": loaded.revision,
        "sha256": checksum,
    }


def _describe_columns(loaded: sources.LoadedRows) -> str:
    used = loaded.mapping.source_columns()
    unused = [name for name in loaded.table.column_names if name not in used]
    return f"Columns: {loaded.mapping.describe()}{f'; unused: {format_names(unused)}' if unused else ''}"


def _storable(table: pa.Table) -> pa.Table:
    """The table without structs that have no fields, which Parquet cannot store; null columns replace them."""
    for number, field in enumerate(table.schema):
        kind = _storable_type(field.type)
        if kind is None:
            table = table.set_column(number, field.name, pa.nulls(table.num_rows))
        elif kind != field.type:
            table = table.set_column(number, field.name, table.column(number).cast(kind))
    return table


def _storable_type(kind: pa.DataType) -> pa.DataType | None:
    """The type without structs that have no fields; None if nothing remains."""
    if pa.types.is_struct(kind):
        fields = [(field.name, inner) for field in kind if (inner := _storable_type(field.type)) is not None]
        unchanged = fields == [(field.name, field.type) for field in kind]
        return None if not fields else kind if unchanged else pa.struct(fields)
    if pa.types.is_list(kind):
        inner = _storable_type(kind.value_type)
        return None if inner is None else kind if inner == kind.value_type else pa.list_(inner)
    return kind


def fetch_model(model: Model) -> dict[str, Any]:
    """Write the model to models/base, load it as a check, and return the metrics."""
    with atomic_write(BASE) as folder:
        folder.mkdir()
        revision = _copy_or_build(model, folder)
        try:
            stats = _load_and_check(folder)
        except ModelError as error:  # the user knows the parameter, not the temporary folder
            raise ModelError(str(error).replace(str(folder), _parameter_of(model))) from None
        return {**stats, "source": model.source, "name": source_name(model), "revision": revision}


def _parameter_of(model: Model) -> str:
    if isinstance(model, ScratchModel):
        return "model=scratch"
    return f"model.name={model.name}" if isinstance(model, HubModel) else f"model.path={model.path}"


def _copy_or_build(model: Model, folder: Path) -> str:
    """Write the model's files to the folder; return the revision."""
    if isinstance(model, HubModel):
        source = hub.fetch_snapshot(model.name, model.revision, "model")
        _copy(loading.require_model_folder(str(source), _parameter_of(model)), folder)
        return source.name
    if isinstance(model, FolderModel):
        source = loading.require_model_folder(model.path, _parameter_of(model))
        revision = _require_unchanged(model, source)
        _copy(source, folder)
        return revision
    from pipeline.fetch.scratch_model import build_scratch_model

    build_scratch_model(model, folder)
    return sha256_of_path(folder)


def _require_unchanged(model: FolderModel, folder: Path) -> str:
    checksum = sha256_of_path(folder)
    if model.sha256 not in (None, checksum):
        raise ModelError(
            f"model.path={model.path} has changed since params.yaml was composed; compose it again: make params"
        )
    return checksum


def _copy(source: Path, target: Path) -> None:
    for pattern in MODEL_FILES:
        for file in source.glob(pattern):
            shutil.copyfile(file, target / file.name)


def _load_and_check(folder: Path) -> dict[str, Any]:
    """Load model and tokenizer, so that one that cannot work fails here; rewrite the tokenizer; return the metrics."""
    tokenizer = loading.load_tokenizer(folder)
    model = loading.load_model(folder)
    if broken := [name for name, tensor in model.named_parameters() if not tensor.isfinite().all()]:
        raise ModelError(f"{folder}: weights that are not finite numbers: {broken[0]}; save the model again")
    embedding: Any = model.get_input_embeddings()
    if len(tokenizer) > embedding.num_embeddings:
        raise ModelError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, the model embeds {embedding.num_embeddings}: "
            "put the model's own tokenizer beside it"
        )
    tokenizer.save_pretrained(
        folder
    )  # writes the end-of-text token, which some folders leave to the library's defaults
    if not (folder / "tokenizer.json").exists():
        raise ModelError(f"{folder}: the tokenizer has no fast version; save one beside the model (tokenizer.json)")
    return {"architecture": type(model).__name__, "parameters": model.num_parameters()}


def source_name(source: Data | Model) -> str:
    """The hub's name of a dataset or model, or its path."""
    if isinstance(source, HubRows | HubModel):
        return source.name
    return "random weights" if isinstance(source, ScratchModel) else source.path


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
            return f"Reading the data from {source.path}"


@stage("fetch", instances=("data", "model"))
def main(params: Params, instance: str) -> None:
    log.info(describe_fetch(params.data if instance == "data" else params.model))
    metrics = fetch_data(params.data) if instance == "data" else fetch_model(params.model)
    write_json(METRICS / "fetch" / f"{instance}.json", metrics)
    if instance == "data":
        log.info(f"{metrics['rows']:,} rows with {metrics['columns']} columns → {RAW}/")
    else:
        log.info(f"{metrics['architecture']}, {metrics['parameters']:,} parameters → {BASE}/")
