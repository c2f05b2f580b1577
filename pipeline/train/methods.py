"""The training methods: full fine-tuning, LoRA on a base model in float32, and QLoRA on a base model in 4 bits.

An adapter is written beside the model that it is merged into, to models/finetuned/adapter/. It has a folder of its own
because from_pretrained would apply an adapter next to the merged weights a second time.
"""

import json
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, cast

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)
from transformers.pytorch_utils import Conv1D

from pipeline.config.options import ALL_LINEAR, Full, Qlora
from pipeline.config.params import Train
from pipeline.errors import ConfigError, ModelError
from pipeline.modeling.devices import uses_bf16
from pipeline.modeling.loading import load_model
from pipeline.modeling.model_config import ADAPTER_CONFIG
from pipeline.train.model_source import base_reference, has_added_embeddings

if TYPE_CHECKING:
    from peft import PeftModel

ADAPTER_FOLDER = "adapter"  # in models/finetuned
ADAPTER_WEIGHTS = "adapter_model.safetensors"  # peft's file name
# In these models with a recurrent state, kernels read the weights of this module without calling it: an adapter on it would
# have no effect, so peft refuses it.
STATE_SPACE_MODELS = {"falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"}
BYPASSED_MODULE = "out_proj"
DROPOUT_KEY, OTHER_TASK_KEY = re.compile(r"dropout|pdrop"), re.compile(r"classif|summary|qa_|pooler")


def load_trainable(base: Path, options: Train, device: torch.device) -> PreTrainedModel:
    """The base model, ready for the method and dropout of `options`.

    For LoRA and QLoRA it is a PeftModel, which has all attributes of the model that it wraps. Raises ConfigError if the
    model has no dropout or target module of that name, or if this machine cannot run QLoRA.
    """
    method = options.method
    changes: dict[str, Any] = {}
    if options.dropout is not None:
        changes = dropout_changes(AutoConfig.from_pretrained(base, local_files_only=True), options.dropout)
    if isinstance(method, Qlora):
        if error := missing_for_qlora(device.type):
            raise ConfigError(error)
        changes |= {
            "quantization_config": _nf4_config(uses_bf16(options.precision, device)),
            "device_map": {"": device},
        }
    model = load_model(base, **changes)
    if isinstance(method, Full):
        return model
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    if error := target_module_error(model, method.target_modules):
        raise ConfigError(error)
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=method.rank,
        lora_alpha=method.alpha,  # type: ignore[arg-type]  # annotated as int, but only divided by the rank
        lora_dropout=method.dropout,
        target_modules=_peft_target_modules(model, method.target_modules),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),  # GPT-2's weights are transposed
    )
    set_seed(options.seed)  # for the adapter's random half; the Trainer sets the seed again
    with _ignore_peft_warnings():
        if isinstance(method, Qlora):
            model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=options.gradient_checkpointing)
        return cast(PreTrainedModel, get_peft_model(model, lora).eval())


def finalize_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, base: Path, folder: Path
) -> PreTrainedModel:
    """The model to export: with the base's dropout; an adapter is written to folder/adapter and merged."""
    if has_adapter(model):
        write_adapter(model, tokenizer, base, folder / ADAPTER_FOLDER)
        return merge_adapter(base, folder / ADAPTER_FOLDER)
    original = AutoConfig.from_pretrained(base, local_files_only=True)
    for name in dropout_keys(original):  # train.dropout is for the training alone
        setattr(model.config, name, getattr(original, name))
    return model


def has_adapter(model: Any) -> "TypeGuard[PeftModel]":
    return hasattr(model, "peft_config")


def write_adapter(model: "PeftModel", tokenizer: PreTrainedTokenizerBase, base: Path, folder: Path) -> None:
    """Write the adapter as peft does, but without the empty model card and with sorted lists: the same bytes each time.

    Its tokenizer is beside it, and it names as its base the model that `base` was copied from. If that has fewer embeddings
    (fetch added some), the adapter holds the embeddings, too.
    """
    name, revision = base_reference(base)
    model.save_pretrained(str(folder), save_embedding_layers=has_added_embeddings(base))
    tokenizer.save_pretrained(folder)
    (folder / "README.md").unlink()
    config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    values = {name: sorted(value) if isinstance(value, list) else value for name, value in config.items()}
    values |= {"base_model_name_or_path": name, "revision": revision}
    (folder / ADAPTER_CONFIG).write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def merge_adapter(base: Path, adapter: Path) -> PreTrainedModel:
    """The base model in float32 with the adapter merged into its weights. For QLoRA, too, so that it runs on any machine."""
    from peft import PeftModel

    with _ignore_peft_warnings():
        merged: PreTrainedModel = PeftModel.from_pretrained(load_model(base), adapter).merge_and_unload().eval()
    return merged


def load_adapter(model: "PeftModel", checkpoint: Path) -> None:
    """Copy every tensor of a checkpoint's adapter into the model. Raises ModelError unless they match one to one."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    saved = load_file(checkpoint / ADAPTER_WEIGHTS)
    expected = {name: tensor.shape for name, tensor in get_peft_model_state_dict(model).items()}
    if {name: tensor.shape for name, tensor in saved.items()} != expected:
        raise ModelError(f"{checkpoint} does not fit the adapter; remove it and train again")
    set_peft_model_state_dict(model, saved)


def linear_modules(model: PreTrainedModel) -> list[str]:
    """The names of the modules that can have an adapter: every linear module but the output head."""
    head = model.get_output_embeddings()
    bypassed = BYPASSED_MODULE if model.config.model_type in STATE_SPACE_MODELS else None
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head and name.rsplit(".", 1)[-1] != bypassed
    ]


def _peft_target_modules(model: PreTrainedModel, target_modules: str | list[str]) -> str | list[str]:
    """The modules by name where peft would refuse "all-linear", as it includes bypassed modules."""
    needs_names = target_modules == ALL_LINEAR and model.config.model_type in STATE_SPACE_MODELS
    return linear_modules(model) if needs_names else target_modules


@contextmanager
def _ignore_peft_warnings() -> Iterator[None]:
    """Hide warnings about transformers' next version, and about peft's own patterns for experts without an adapter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", r"The following (alpha|rank)_pattern keys did not match", RuntimeWarning)
        yield


def target_module_error(model: PreTrainedModel, target_modules: str | list[str]) -> str | None:
    """The error in train.method.target_modules, or None. As in peft, a module's name or its last parts are accepted."""
    if target_modules == ALL_LINEAR:
        return None
    names = linear_modules(model)
    missing = [
        target for target in target_modules if not any(name == target or name.endswith(f".{target}") for name in names)
    ]
    if not missing:
        return None
    available = sorted({name.rsplit(".", 1)[-1] for name in names})
    return (
        f"train.method.target_modules: the model has no linear module {', '.join(missing)} for an adapter; it has "
        f"{', '.join(available)}"
    )


def dropout_keys(config: PretrainedConfig) -> list[str]:
    """The configuration's keys for dropout, whose names differ by architecture; those of heads for other tasks left out.

    >>> from transformers import GPT2Config, GPTNeoXConfig
    >>> dropout_keys(GPTNeoXConfig()), dropout_keys(GPT2Config())
    (['attention_dropout', 'hidden_dropout'], ['attn_pdrop', 'embd_pdrop', 'resid_pdrop'])
    """
    return sorted(
        name
        for name, value in config.to_dict().items()
        if DROPOUT_KEY.search(name) and not OTHER_TASK_KEY.search(name) and type(value) in (int, float)
    )


def dropout_changes(config: PretrainedConfig, dropout: float) -> dict[str, Any]:
    """The configuration's dropout keys with this value. Raises ConfigError if it has none."""
    names = dropout_keys(config)
    if not names:
        raise ConfigError(f"train.dropout: {dropout}, but a {config.model_type} model has no dropout; use null")
    return dict.fromkeys(names, dropout)


def missing_for_qlora(device: str) -> str | None:
    """The error about what QLoRA needs and this machine, or a device of it, lacks; None if it lacks nothing."""
    gpu = "" if device != "cpu" and torch.cuda.is_available() else "a CUDA GPU (compute.device: auto or cuda)"
    library = "" if find_spec("bitsandbytes") else "the library bitsandbytes (pip install bitsandbytes)"
    if not gpu and not library:
        return None
    missing = " and ".join(filter(None, (gpu, library)))
    return f"train.method: qlora needs {missing}, not available here; train/method=lora runs on any machine"


def _nf4_config(bf16: bool) -> Any:
    """The quantization of QLoRA (see the class Qlora)."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if bf16 else torch.float32,
    )


def meta_model(config: PretrainedConfig) -> PreTrainedModel:
    """The modules of a model without its weights, to look up their names."""
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model
