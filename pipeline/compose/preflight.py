"""Checks all parameters before DVC runs a stage (and deletes its outputs): schema, local sources, models, this machine.

`require_valid` runs every check. The others return one line per error, and skip what the schema rejects.
"""

from typing import Any

from pydantic import TypeAdapter, ValidationError

from pipeline.config.addresses import display_address, is_remote
from pipeline.config.options import ALL_LINEAR, Adapter, Compute, Distributed, Fsdp, Method, Qlora
from pipeline.config.params import Format
from pipeline.config.sources import Data, FileRows, FolderModel, GeneratedRows, Model, ScratchModel
from pipeline.config.templates import ChatTemplateOption
from pipeline.config.validation import format_errors, param_errors
from pipeline.core.files import local_path
from pipeline.errors import ConfigError, PipelineError
from pipeline.fetch import sources
from pipeline.fetch.chat_template import CHATML
from pipeline.fetch.data_files import require_file
from pipeline.fetch.model_files import require_model_folder
from pipeline.fetch.read_files import peek_rows
from pipeline.fetch.tables import read_options
from pipeline.modeling.model_config import max_positions_of
from pipeline.records.columns import resolve_columns
from pipeline.train.launch import node_errors


def require_valid(values: dict[str, Any]) -> None:
    """Check the parameters by the schema, their local sources, and whether this machine can run them.

    Raises ConfigError with every error, one a line.
    """
    errors = param_errors(values) + source_errors(values)
    errors += training_errors(values) + compute_errors(values) + evaluation_errors(values)
    if errors:
        raise ConfigError(format_errors(errors))


def source_errors(values: dict[str, Any]) -> list[str]:
    """Errors of local files and folders: missing, not what fetch needs, or a model too small for the lengths asked for.

    The column mapping of a local file is checked here by the function that fetch uses.
    """
    errors = _template_errors(values)
    for section, kind in (("data", Data), ("model", Model)):
        source = _parse(kind, values.get(section))
        try:
            errors += _errors_of_source(source, values)
        except PipelineError as error:
            errors.append(f"{section}.path: {error}")
    encoder = _section(values, "evaluate").get("semantic_model")
    if isinstance(encoder, str):
        try:
            require_model_folder(encoder)
        except PipelineError as error:
            errors.append(f"evaluate.semantic_model: {error}")
    return errors


def _template_errors(values: dict[str, Any]) -> list[str]:
    """Errors of the user's own chat templates."""
    from pipeline.chat.template import read_template_file

    options, model = _parse(Format, values.get("format")), _parse(Model, values.get("model"))
    paths = {"model.chat_template": model.chat_template if model else None}
    if options and isinstance(options.template, ChatTemplateOption):
        paths["format.template.path"] = options.template.path
    errors = []
    for key, path in paths.items():
        try:
            if path not in (None, CHATML):
                read_template_file(path)
        except PipelineError as error:
            errors.append(f"{key}: {error}")
    return errors


def _errors_of_source(source: Any, values: dict[str, Any]) -> list[str]:
    if isinstance(source, FileRows):
        return _file_errors(source)
    if isinstance(source, GeneratedRows):
        require_file(source.path)
    elif isinstance(source, FolderModel):
        return _length_errors(max_positions_of(require_model_folder(source.path)), values)
    elif isinstance(source, ScratchModel):
        return _length_errors(source.positions, values)
    return []


def _file_errors(source: FileRows) -> list[str]:
    """Errors of the data files and of the test set's, in the rows that a first look shows."""
    key = "data.path"
    try:
        rows = _peek(source, source.path, key)
        mapping = None if rows is None else resolve_columns(rows.column_names, source.columns, rows)
        if source.test_path is not None:
            key = "data.test_path"
            test_rows = _peek(source, source.test_path, key)
            if not is_remote(source.path) and not is_remote(source.test_path):
                sources.data_and_test_files(source)
            if mapping is not None and test_rows is not None:
                sources.match_test_columns(mapping, test_rows.column_names, display_address(source.test_path))
    except PipelineError as error:
        return [f"{key}: {error}"]
    return []


def _peek(source: FileRows, path: str, key: str) -> Any:
    """The first rows of local files; None for an address, which fetch opens."""
    if is_remote(path):
        sources.require_supported_address(path)
        return None
    return peek_rows(path, read_options(source), key)


def _length_errors(positions: int | None, values: dict[str, Any]) -> list[str]:
    """The lengths in tokens that exceed the model's positions."""
    if not positions:
        return []
    limits = {
        "tokenize.max_length": (_section(values, "tokenize").get("max_length"), positions),
        "evaluate.max_new_tokens": (_section(values, "evaluate").get("max_new_tokens"), positions - 1),
    }
    stopping = _section(values, "train", "early_stopping")
    if stopping.get("metric") != "validation_loss":
        limits["train.early_stopping.max_new_tokens"] = (stopping.get("max_new_tokens"), positions - 1)
    return [
        f"{key}: {length} is too long for the model; expected at most {limit} (it has {positions} positions)"
        for key, (length, limit) in limits.items()
        if isinstance(length, int) and length > limit
    ]


def training_errors(values: dict[str, Any]) -> list[str]:
    """Errors of the train section that involve the base model, the rows or this machine."""
    errors = []
    metric = _section(values, "train", "early_stopping").get("metric")
    if metric != "validation_loss" and _section(values, "tokenize").get("loss") == "full":
        errors.append(
            f"train.early_stopping.metric: {metric} scores answers to validation questions, but with tokenize.loss=full "
            "the labels do not separate questions from answers; use validation_loss, or tokenize.loss=assistant"
        )
    method, model = _parse(Method, _section(values, "train").get("method")), _parse(Model, values.get("model"))
    if method is None or model is None:
        return errors
    if isinstance(method, Qlora):
        from pipeline.train.methods import missing_for_qlora  # imports torch, which takes seconds

        errors += filter(None, [missing_for_qlora(_section(values, "compute").get("device", "auto"))])
    return errors + _architecture_errors(model, method, _section(values, "train").get("dropout"))


def compute_errors(values: dict[str, Any]) -> list[str]:
    """What prevents distributed training here, if the compute section asks for it."""
    compute = _parse(Compute, values.get("compute"))
    if not isinstance(compute, Distributed):
        return []
    from pipeline.modeling.devices import gpu_errors  # imports torch, which takes seconds

    errors = node_errors(compute.nodes) + gpu_errors(compute)
    train = _section(values, "train")
    if isinstance(compute, Fsdp) and _section(train, "method").get("kind") == "qlora":
        errors.append("compute: fsdp cannot shard a base model in 4 bits; use compute=ddp, or train/method=lora")
    if isinstance(compute, Fsdp) and train.get("optimizer") == "adafactor":
        errors.append("compute: fsdp cannot shard adafactor's state; use train.optimizer=adamw_torch, or compute=ddp")
    return errors


def evaluation_errors(values: dict[str, Any]) -> list[str]:
    """What the chosen engine of the evaluate section needs and this machine lacks."""
    if _section(values, "evaluate").get("engine") != "vllm":
        return []
    from pipeline.evaluate.vllm_engine import missing_for_vllm  # imports torch, which takes seconds

    return [*filter(None, [missing_for_vllm(_section(values, "compute").get("device", "auto"))])]


def _architecture_errors(model: Any, method: Any, dropout: Any) -> list[str]:
    """The dropout or target modules that the base model does not have, where its configuration is a local file."""
    names_modules = isinstance(method, Adapter) and method.target_modules != ALL_LINEAR
    if not names_modules and not isinstance(dropout, float):
        return []
    from transformers import AutoConfig, GPTNeoXConfig

    from pipeline.train.methods import dropout_changes, meta_model, target_module_error

    if isinstance(model, FolderModel):
        try:
            config = AutoConfig.from_pretrained(local_path(model.path), local_files_only=True)
        except Exception:  # fetch reports what is wrong with it
            return []
    elif isinstance(model, ScratchModel):
        config = GPTNeoXConfig(num_hidden_layers=1)
    else:
        return []
    errors = [target_module_error(meta_model(config), method.target_modules)] if names_modules else []
    try:
        if isinstance(dropout, float):
            dropout_changes(config, dropout)
    except PipelineError as error:
        errors.append(str(error))
    return [error for error in errors if error]


def _parse(kind: Any, section: Any) -> Any:
    """The section as an object of the schema's `kind`; None if the schema rejects it."""
    try:
        return TypeAdapter(kind).validate_python(section)
    except ValidationError:
        return None


def _section(values: dict[str, Any], *names: str) -> dict[str, Any]:
    """A section, or an empty one if the values hold something else, which the schema reports."""
    for name in names:
        values = values.get(name, {})
        if not isinstance(values, dict):
            return {}
    return values
