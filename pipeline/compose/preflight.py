"""What can be known of the local sources and of this machine before DVC starts a stage (and deletes its outputs)."""

from typing import Any

from pydantic import TypeAdapter, ValidationError

from pipeline.config.options import ALL_LINEAR, Adapter, Compute, Distributed, Fsdp, Method, Qlora
from pipeline.config.params import Data, FileRows, FolderModel, GeneratedRows, Model, ScratchModel
from pipeline.core.files import local_path
from pipeline.errors import PipelineError
from pipeline.fetch import sources
from pipeline.fetch.streams import is_remote
from pipeline.modeling import loading
from pipeline.records.columns import resolve_columns
from pipeline.train.launch import node_errors


def source_errors(values: dict[str, Any]) -> list[str]:
    """One line for each local file or folder that is not there or not what fetch needs, or too small for its use."""
    faults = []
    for section, kind in (("data", Data), ("model", Model)):
        try:
            source: Any = TypeAdapter(kind).validate_python(values.get(section))
        except ValidationError:
            continue  # the schema's own faults say what is wrong
        try:
            faults += _look_at(source, values)
        except PipelineError as error:
            faults.append(f"{section}.path: {error}")
    encoder = _section(values, "evaluate").get("semantic_model")
    if isinstance(encoder, str):
        try:
            loading.require_model_folder(encoder)
        except PipelineError as error:
            faults.append(f"evaluate.semantic_model: {error}")
    return faults


def _look_at(source: Any, values: dict[str, Any]) -> list[str]:
    if isinstance(source, FileRows):
        if is_remote(source.path):
            sources.require_known_address(source.path)
        else:
            resolve_columns(sources.peek_columns(source.path), source.columns)
    elif isinstance(source, GeneratedRows):
        sources.require_file(source.path)
    elif isinstance(source, FolderModel):
        return _too_long(loading.max_positions_of(loading.require_model_folder(source.path)), values)
    elif isinstance(source, ScratchModel):
        return _too_long(source.positions, values)
    return []


def _too_long(positions: int | None, values: dict[str, Any]) -> list[str]:
    """The lengths, in tokens, for which a model with so many positions has no room."""
    if not positions:
        return []
    wanted = {
        "tokenize.max_length": (_section(values, "tokenize").get("max_length"), positions),
        "evaluate.max_new_tokens": (_section(values, "evaluate").get("max_new_tokens"), positions - 1),
    }
    stopping = _section(values, "train", "early_stopping")
    if stopping.get("metric") != "validation_loss":
        wanted["train.early_stopping.max_new_tokens"] = (stopping.get("max_new_tokens"), positions - 1)
    return [
        f"{key}: {length} is more than the model has room for; expected at most {most} (it has {positions} positions)"
        for key, (length, most) in wanted.items()
        if isinstance(length, int) and length > most
    ]


def training_errors(values: dict[str, Any]) -> list[str]:
    """One line for each thing that the train section asks for and that the base model, the rows or this machine lack."""
    faults = []
    metric = _section(values, "train", "early_stopping").get("metric")
    if metric != "validation_loss" and _section(values, "tokenize").get("loss") == "full":
        faults.append(
            f"train.early_stopping.metric: {metric} is of answers to validation questions, and tokenize.loss=full does "
            "not tell them from the answers; use validation_loss, or tokenize.loss=completion"
        )
    try:
        method: Any = TypeAdapter(Method).validate_python(_section(values, "train").get("method"))
        model: Any = TypeAdapter(Model).validate_python(values.get("model"))
    except ValidationError:
        return faults  # as above
    if isinstance(method, Qlora):
        from pipeline.train.methods import missing_for_qlora  # imports torch, which takes seconds

        faults += filter(None, [missing_for_qlora(_section(values, "compute").get("device", "auto"))])
    return faults + _unfit(model, method, _section(values, "train").get("dropout"))


def compute_errors(values: dict[str, Any]) -> list[str]:
    """One line for each thing that keeps several processes from training here, where the compute section asks for them."""
    try:
        compute: Any = TypeAdapter(Compute).validate_python(values.get("compute"))
    except ValidationError:
        return []  # as above
    if not isinstance(compute, Distributed):
        return []
    from pipeline.modeling.devices import gpu_errors  # imports torch, which takes seconds

    faults = node_errors(compute.nodes) + gpu_errors(compute)
    train = _section(values, "train")
    if isinstance(compute, Fsdp) and _section(train, "method").get("kind") == "qlora":
        faults.append("compute: fsdp does not split a base in 4 bits; use compute=ddp, or train/method=lora")
    if isinstance(compute, Fsdp) and train.get("optimizer") == "adafactor":
        faults.append("compute: fsdp does not split adafactor's state; use train.optimizer=adamw_torch, or compute=ddp")
    return faults


def evaluation_errors(values: dict[str, Any]) -> list[str]:
    """What answering by another engine needs and this machine has not, one line each."""
    if _section(values, "evaluate").get("engine") != "vllm":
        return []
    from pipeline.evaluate.vllm_engine import missing_for_vllm  # imports torch, which takes seconds

    return [*filter(None, [missing_for_vllm(_section(values, "compute").get("device", "auto"))])]


def _unfit(model: Any, method: Any, dropout: Any) -> list[str]:
    """The dropout or the modules that are asked for and that the base lacks, where its configuration is at hand."""
    named = isinstance(method, Adapter) and method.target_modules != ALL_LINEAR
    if not named and not isinstance(dropout, float):
        return []
    from transformers import AutoConfig, GPTNeoXConfig

    from pipeline.train.methods import dropout_changes, meta_model, target_module_error

    if isinstance(model, FolderModel):
        try:
            config = AutoConfig.from_pretrained(local_path(model.path), local_files_only=True)
        except Exception:  # whatever is wrong with it, fetch tells
            return []
    elif isinstance(model, ScratchModel):
        config = GPTNeoXConfig(num_hidden_layers=1)
    else:
        return []
    found = [target_module_error(meta_model(config), method.target_modules)] if named else []
    try:
        if isinstance(dropout, float):
            dropout_changes(config, dropout)
    except PipelineError as error:
        found.append(str(error))
    return [each for each in found if each]


def _section(values: dict[str, Any], *names: str) -> dict[str, Any]:
    """A section, or an empty one where the values hold something else: that is the schema's to tell."""
    for name in names:
        values = values.get(name, {})
        if not isinstance(values, dict):
            return {}
    return values
