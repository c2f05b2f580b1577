"""What a folder that is not a loadable model seems to be, and what to do: an adapter alone, checkpoints, other formats."""

import json
import re
from pathlib import Path

from pipeline.errors import ModelError
from pipeline.modeling.model_config import ADAPTER_CONFIG

CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def adapter_alone_error(folder: Path, name: str) -> ModelError:
    """The error about a folder with an adapter but without the weights that it was trained on."""
    base = adapter_base(folder)
    problem = f"{name} is an adapter without the model that it was trained on" + (f", {base}" if base else "")
    if (folder.parent / "config.json").exists() and any(folder.parent.glob("model*.safetensors")):
        return ModelError(f"{problem}. The folder above holds complete weights: model.path={_parent(name)}")
    return ModelError(
        f"{problem}. Fine-tune that model itself (model.name or model.path), or merge the adapter into it first: "
        f'AutoPeftModelForCausalLM.from_pretrained("{_value(name)}").merge_and_unload().save_pretrained("merged"), with '
        'AutoTokenizer.from_pretrained(…).save_pretrained("merged"); then model=folder model.path=merged'
    )


def adapter_base(folder: Path) -> str | None:
    """The name of the model that the folder's adapter was trained on, if adapter_config.json says it."""
    try:
        base = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError):
        return None
    return base if isinstance(base, str) and base else None


def nested_models_hint(folder: Path, name: str) -> str | None:
    """Where models are in a folder that is none itself: the newest of a training's checkpoints, a snapshot of the Hub's
    cache, or another folder."""
    configs = [
        *folder.glob("*/config.json"),
        *folder.glob(f"*/{ADAPTER_CONFIG}"),
        *folder.glob("snapshots/*/config.json"),
    ]
    models = sorted({config.parent for config in configs}, key=lambda path: (path.name, path))
    if not models:
        return None
    checkpoints = [model for model in models if CHECKPOINT.fullmatch(model.name)]
    newest = max(checkpoints, key=lambda path: int(path.name.split("-")[1])) if checkpoints else models[-1]
    found = "the newest of its checkpoints is" if checkpoints else "a model folder in it is"
    return f"{found} model.path={_value(name)}/{newest.relative_to(folder).as_posix()}"


def other_format_hint(folder: Path) -> str | None:
    """Which other format of weights the folder holds, and what to do."""
    names = sorted(file.name for file in folder.iterdir())
    for pattern, hint in {
        r".*\.gguf": "{} is llama.cpp's format, which cannot be trained; get the model that it was converted from",
        r"consolidated.*": "{} is its makers' own format; get the model in transformers' format (with model.safetensors)",
        r".*-\d{5}-of-\d{5}\.safetensors": "{} is a part of the weights; their model.safetensors.index.json is missing",
        r"model\.[^.]+\.safetensors": "{} is a variant of the weights; rename it to model.safetensors to use it",
    }.items():
        if found := next((name for name in names if re.fullmatch(pattern, name)), None):
            return hint.format(found)
    return None


def _value(name: str) -> str:
    """The path or name in the label `model.path=…`; a label that is only a path stays."""
    return re.sub(r"^[a-z_.]+[=:] ?", "", name)


def _parent(name: str) -> str:
    return str(Path(_value(name)).parent)
