"""Brings the dataset and the base model; what comes after needs no network.

    python -m pipeline.fetch instance=data     data section  → data/raw/rows.parquet
    python -m pipeline.fetch instance=model    model section → models/base/

Each writes metrics/fetch/INSTANCE.json with the resolved revision: the hub's commit, or a local source's SHA-256.
"""

import logging
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config.params import (
    Data,
    FileRows,
    FolderModel,
    GeneratedRows,
    HubModel,
    HubRows,
    Model,
    Params,
    ScratchModel,
)
from pipeline.core.entrypoint import stage
from pipeline.core.files import atomic_write, sha256_of_path, write_json
from pipeline.core.paths import BASE, METRICS, RAW
from pipeline.errors import DataError, ModelError
from pipeline.fetch import hub, sources
from pipeline.modeling import loading
from pipeline.records.tasks import format_names

log = logging.getLogger(__name__)

# What a model folder may hold beside what a causal language model needs (optimizer states, pickles) stays behind.
MODEL_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")


def fetch_data(source: FileRows | GeneratedRows | HubRows) -> dict[str, Any]:
    """Write the source's rows, columns as they are, to data/raw; return the metrics."""
    loaded = sources.load_rows(source)
    log.info(_told(loaded))
    table = _storable(loaded.table)
    with atomic_write(RAW) as folder:
        folder.mkdir()
        try:
            pq.write_table(table, folder / "rows.parquet", compression="zstd", row_group_size=1 << 16)
        except pa.ArrowException as error:
            raise DataError(f"the source's columns do not fit into Parquet: {error}") from None
        checksum, size = sha256_of_path(folder / "rows.parquet"), (folder / "rows.parquet").stat().st_size
    return {
        "rows": table.num_rows,
        "columns": table.num_columns,
        "bytes": size,
        "source": source.source,
        "name": name_of(source),
        "revision": loaded.revision,
        "sha256": checksum,
    }


def _told(loaded: sources.LoadedRows) -> str:
    used = loaded.taken.sources()
    unused = [name for name in loaded.table.column_names if name not in used]
    return f"Columns: {loaded.taken.told()}{f'; not used: {format_names(unused)}' if unused else ''}"


def _storable(table: pa.Table) -> pa.Table:
    """The table with null for objects that never have a key: Parquet has no form for them."""
    for number, field in enumerate(table.schema):
        kind = _solid(field.type)
        if kind is None:
            table = table.set_column(number, field.name, pa.nulls(table.num_rows))
        elif kind != field.type:
            table = table.set_column(number, field.name, table.column(number).cast(kind))
    return table


def _solid(kind: pa.DataType) -> pa.DataType | None:
    """The type without structs that have no fields; null if nothing is left."""
    if pa.types.is_struct(kind):
        fields = [(field.name, inner) for field in kind if (inner := _solid(field.type)) is not None]
        unchanged = fields == [(field.name, field.type) for field in kind]
        return None if not fields else kind if unchanged else pa.struct(fields)
    if pa.types.is_list(kind):
        inner = _solid(kind.value_type)
        return None if inner is None else kind if inner == kind.value_type else pa.list_(inner)
    return kind


def fetch_model(model: HubModel | FolderModel | ScratchModel) -> dict[str, Any]:
    """Write the model, proved to load, to models/base; return the metrics."""
    with atomic_write(BASE) as folder:
        folder.mkdir()
        revision = _bring(model, folder)
        try:
            proved = _proved(folder)
        except ModelError as error:  # whoever reads it knows the parameter, not the temporary folder
            raise ModelError(str(error).replace(str(folder), _named(model))) from None
        return {**proved, "source": model.source, "name": name_of(model), "revision": revision}


def _named(model: HubModel | FolderModel | ScratchModel) -> str:
    if isinstance(model, ScratchModel):
        return "model=scratch"
    return f"model.name={model.name}" if isinstance(model, HubModel) else f"model.path={model.path}"


def _bring(model: HubModel | FolderModel | ScratchModel, folder: Path) -> str:
    """Copy or build the model in the folder; return its revision."""
    if isinstance(model, HubModel):
        source = hub.fetch_snapshot(model.name, model.revision, "model")
        _copy(loading.require_model_folder(str(source), _named(model)), folder)
        return source.name
    if isinstance(model, FolderModel):
        source = loading.require_model_folder(model.path, _named(model))
        revision = _require_unchanged(model, source)
        _copy(source, folder)
        return revision
    from pipeline.fetch.scratch import build_scratch_model

    build_scratch_model(model, folder)
    return sha256_of_path(folder)


def _require_unchanged(model: FolderModel, folder: Path) -> str:
    found = sha256_of_path(folder)
    if model.sha256 not in (None, found):
        raise ModelError(
            f"model.path={model.path} has changed since params.yaml was composed; compose anew: make params"
        )
    return found


def _copy(source: Path, target: Path) -> None:
    for pattern in MODEL_FILES:
        for file in source.glob(pattern):
            shutil.copyfile(file, target / file.name)


def _proved(folder: Path) -> dict[str, Any]:
    """Load model and tokenizer, so that what cannot work ends here; the tokenizer is written as the library has it."""
    tokenizer = loading.load_tokenizer(folder)
    model = loading.load_model(folder)
    if broken := [name for name, tensor in model.named_parameters() if not tensor.isfinite().all()]:
        raise ModelError(f"{folder}: weights that are not finite numbers: {broken[0]}; save the model anew")
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        raise ModelError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, the model embeds "
            f"{model.get_input_embeddings().num_embeddings}: put the model's own tokenizer beside it"
        )
    tokenizer.save_pretrained(folder)  # names the end-of-text token, which some folders leave to the library to know
    if not (folder / "tokenizer.json").exists():
        raise ModelError(f"{folder}: the tokenizer has no fast version; save one beside the model (tokenizer.json)")
    return {"architecture": type(model).__name__, "parameters": model.num_parameters()}


def name_of(source: Data | Model) -> str:
    """What rows or a model are called: by the hub, or by their path."""
    if isinstance(source, HubRows | HubModel):
        return source.name
    return "random weights" if isinstance(source, ScratchModel) else source.path


def describe_source(source: Data | Model) -> str:
    """Where rows or a model come from, in words."""
    match source:
        case HubRows() | HubModel():
            return f"{source.name} at {source.revision}, from the hub or its cache"
        case GeneratedRows():
            return f"{source.rows:,} dialogues generated from {source.path}"
        case ScratchModel():
            return "a new GPT-NeoX with random weights, its tokenizer trained on the rows"
        case _:
            return source.path


@stage("fetch", instances=("data", "model"))
def main(params: Params, instance: str) -> None:
    log.info(f"Fetching the {instance}: {describe_source(params.data if instance == 'data' else params.model)}")
    metrics = fetch_data(params.data) if instance == "data" else fetch_model(params.model)
    write_json(METRICS / "fetch" / f"{instance}.json", metrics)
    if instance == "data":
        log.info(f"{metrics['rows']:,} rows of {metrics['columns']} columns → {RAW}/")
    else:
        log.info(f"{metrics['architecture']}, {metrics['parameters']:,} parameters → {BASE}/")
