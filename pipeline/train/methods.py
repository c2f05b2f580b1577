"""Which weights a training changes: all of them, or a LoRA adapter's, on a base in float32 or, for QLoRA, in 4 bits.

An adapter is written beside the model that it is merged into, in models/finetuned/adapter/: in a folder of its own, as
from_pretrained would apply one that lies beside merged weights a second time.
"""

import json
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel, set_seed
from transformers.pytorch_utils import Conv1D

from pipeline.config.options import ALL_LINEAR, Full, Qlora
from pipeline.config.params import Train
from pipeline.errors import ConfigError, ModelError
from pipeline.modeling.devices import uses_bf16
from pipeline.modeling.loading import load_model

if TYPE_CHECKING:
    from peft import PeftModel

ADAPTER = "adapter"  # the folder in models/finetuned
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
# Models with a state, whose kernels read the weights of a module past it: peft puts no adapter there.
STATE_SPACE, READ_PAST = {"falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"}, "out_proj"
DROPOUT, OF_OTHER_HEADS = re.compile(r"dropout|pdrop"), re.compile(r"classif|summary|qa_|pooler")


def load_trainable(base: Path, options: Train, device: torch.device) -> "PreTrainedModel | PeftModel":
    """The base model as `options` train it: with the dropout asked for, and an adapter if the method is one.

    ConfigError if there is no such dropout or module in the model, or if this machine cannot run QLoRA.
    """
    method = options.method
    changes: dict[str, Any] = {}
    if options.dropout is not None:
        changes = dropout_changes(AutoConfig.from_pretrained(base, local_files_only=True), options.dropout)
    if isinstance(method, Qlora):
        if lacking := missing_for_qlora(device.type):
            raise ConfigError(lacking)
        changes |= {"quantization_config": _four_bits(uses_bf16(options.precision, device)), "device_map": {"": device}}
    model = load_model(base, **changes)
    if isinstance(method, Full):
        return model
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    if fault := target_module_error(model, method.target_modules):
        raise ConfigError(fault)
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=method.rank,
        lora_alpha=method.alpha,
        lora_dropout=method.dropout,
        target_modules=_targets(model, method.target_modules),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),  # GPT-2's weights lie transposed
    )
    set_seed(options.seed)  # of the adapter's random half; the Trainer sets it anew
    with _without_pefts_warnings():
        if isinstance(method, Qlora):
            model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=options.gradient_checkpointing)
        return get_peft_model(model, lora).eval()


def finalize_model(model: "PreTrainedModel | PeftModel", base: Path, folder: Path) -> PreTrainedModel:
    """The model to keep: with the configuration of the base, an adapter written to folder/adapter and merged."""
    if has_adapter(model):
        write_adapter(model, folder / ADAPTER)
        return merge_adapter(base, folder / ADAPTER)
    original = AutoConfig.from_pretrained(base, local_files_only=True)
    for name in dropout_keys(original):  # of the training alone
        setattr(model.config, name, getattr(original, name))
    return model  # type: ignore[return-value]


def has_adapter(model: Any) -> bool:
    return hasattr(model, "peft_config")


def write_adapter(model: "PeftModel", folder: Path) -> None:
    """The adapter as peft writes it, but for its empty model card, and with sorted lists: the same bytes each time."""
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink()
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    values = {name: sorted(value) if isinstance(value, list) else value for name, value in config.items()}
    (folder / CONFIG).write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def merge_adapter(base: Path, adapter: Path) -> PreTrainedModel:
    """The base model in float32 with the adapter's products added to its weights; QLoRA's too, so that it runs anywhere."""
    from peft import PeftModel

    with _without_pefts_warnings():
        return PeftModel.from_pretrained(load_model(base), adapter).merge_and_unload().eval()


def load_adapter(model: "PeftModel", checkpoint: Path) -> None:
    """Copy a checkpoint's adapter into the model, every tensor; ModelError if they do not match one to one."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    saved = load_file(checkpoint / WEIGHTS)
    expected = {name: value.shape for name, value in get_peft_model_state_dict(model).items()}
    if {name: value.shape for name, value in saved.items()} != expected:
        raise ModelError(f"{checkpoint} does not fit the adapter; remove it and train anew")
    set_peft_model_state_dict(model, saved)


def linear_modules(model: PreTrainedModel) -> list[str]:
    """The names of the modules that an adapter can be put on, the output head left out."""
    head = model.get_output_embeddings()
    past = READ_PAST if model.config.model_type in STATE_SPACE else None
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head and name.rsplit(".", 1)[-1] != past
    ]


def _targets(model: PreTrainedModel, wanted: str | list[str]) -> str | list[str]:
    """All linear modules one by one where peft would refuse some of them."""
    one_by_one = wanted == ALL_LINEAR and model.config.model_type in STATE_SPACE
    return linear_modules(model) if one_by_one else wanted


@contextmanager
def _without_pefts_warnings() -> Iterator[None]:
    """Not about transformers' next version, nor about the patterns by which it looks for experts that are not adapted."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", r"The following (alpha|rank)_pattern keys did not match", RuntimeWarning)
        yield


def target_module_error(model: PreTrainedModel, wanted: str | list[str]) -> str | None:
    """What is wrong with train.method.target_modules, if anything; names and their last parts will do, as in peft."""
    if wanted == ALL_LINEAR:
        return None
    names = linear_modules(model)
    missing = [each for each in wanted if not any(name == each or name.endswith(f".{each}") for name in names)]
    if not missing:
        return None
    there = sorted({name.rsplit(".", 1)[-1] for name in names})
    return (
        f"train.method.target_modules: the model has no linear module {', '.join(missing)} for an adapter; it has "
        f"{', '.join(there)}"
    )


def dropout_keys(config: PretrainedConfig) -> list[str]:
    """The configuration's dropouts, whatever the architecture calls them; those of heads for other tasks left out.

    >>> from transformers import GPT2Config, GPTNeoXConfig
    >>> dropout_keys(GPTNeoXConfig()), dropout_keys(GPT2Config())
    (['attention_dropout', 'hidden_dropout'], ['attn_pdrop', 'embd_pdrop', 'resid_pdrop'])
    """
    return sorted(
        name
        for name, value in config.to_dict().items()
        if DROPOUT.search(name) and not OF_OTHER_HEADS.search(name) and type(value) in (int, float)
    )


def dropout_changes(config: PretrainedConfig, dropout: float) -> dict[str, Any]:
    """The configuration's keys to change; ConfigError if there is none."""
    names = dropout_keys(config)
    if not names:
        raise ConfigError(f"train.dropout: {dropout}, but a {config.model_type} model has no dropout; use null")
    return dict.fromkeys(names, dropout)


def missing_for_qlora(device: str) -> str | None:
    """What QLoRA needs and this machine, or a device of it, has not; None if it has all."""
    card = "" if device != "cpu" and torch.cuda.is_available() else "a CUDA card (compute.device: auto or cuda)"
    library = "" if find_spec("bitsandbytes") else "the library bitsandbytes (pip install bitsandbytes)"
    if not card and not library:
        return None
    lacking = " and ".join(filter(None, (card, library)))
    return f"train.method: qlora needs {lacking}, not there; train/method=lora runs on any machine"


def _four_bits(bf16: bool) -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if bf16 else torch.float32,
    )


def meta_model(config: PretrainedConfig) -> PreTrainedModel:
    """The modules of a model, without its weights."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)
