"""Quantized weights, which cannot be fine-tuned: found in config.json and in the headers of the safetensors files."""

import json
from pathlib import Path
from typing import Any

from pipeline.errors import ModelError

# quant_method in config.json → the name that people use
METHODS = {
    "awq": "AWQ",
    "bitsandbytes": "bitsandbytes",
    "compressed-tensors": "compressed-tensors",
    "fp8": "FP8",
    "fbgemm_fp8": "FP8",
    "gptq": "GPTQ",
    "mxfp4": "MXFP4",
}
INTEGER_TYPES = ("I8", "U8", "F8_E4M3", "F8_E5M2", "F4")
PACKED_SUFFIXES = (".qweight", ".weight_packed", "_proj_blocks")
MAX_HEADER = 100_000_000  # bytes; that of safetensors


def require_full_precision(folder: Path, config: dict[str, Any], weights: list[str], name: str) -> None:
    """Raise ModelError if the weights are quantized. weights: the names of the folder's safetensors files."""
    method = _configured_method(config) or next(filter(None, (_packed_tensor(folder / file) for file in weights)), None)
    if method is None:
        return
    raise ModelError(
        f"{name}: its weights are quantized ({method}) and cannot be fine-tuned. Use the model that was quantized, "
        "in 16 or 32 bits; to save memory, train/method=qlora quantizes that to 4 bits itself"
    )


def _configured_method(config: dict[str, Any]) -> str | None:
    """The quantization that config.json, or the part of it about the text model, names."""
    for section in (config, config.get("text_config")):
        if not isinstance(section, dict):
            continue
        quantization = section.get("quantization_config") or section.get("compression_config")
        if isinstance(quantization, dict):
            return _describe(quantization)
    return None


def _describe(quantization: dict[str, Any]) -> str:
    """
    >>> _describe({"quant_method": "gptq", "bits": 4}), _describe({"load_in_8bit": True})
    ('GPTQ, 4 bits', 'bitsandbytes, 8 bits')
    """
    flags = {4: quantization.get("load_in_4bit"), 8: quantization.get("load_in_8bit")}
    bits = quantization.get("bits") or quantization.get("w_bit") or next((b for b, flag in flags.items() if flag), None)
    method = str(quantization.get("quant_method") or "bitsandbytes")
    return METHODS.get(method.lower(), method) + (f", {bits} bits" if bits else "")


def _packed_tensor(weights: Path) -> str | None:
    """The first tensor whose type or name only quantized weights have. Masks, too, can be bytes, so names count."""
    for tensor, entry in _read_header(weights).items():
        dtype = entry.get("dtype") if isinstance(entry, dict) else None
        if tensor.endswith(PACKED_SUFFIXES) or (tensor.endswith(".weight") and dtype in INTEGER_TYPES):
            return f"{tensor} has type {dtype}"
    return None


def _read_header(weights: Path) -> dict[str, Any]:
    """The names and types of the tensors; empty if the file is damaged, which loading reports."""
    with weights.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > MAX_HEADER:
            return {}
        try:
            header = json.loads(file.read(size))
        except ValueError:
            return {}
    return header if isinstance(header, dict) else {}
