"""pipeline/fetch/model_files.py: what is taken of folders as trainers and people leave them, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ModelError
from pipeline.fetch.model_files import find_model_files

TOKENIZER = {"tokenizer.json": "{}", "tokenizer_config.json": "{}"}
CONFIG = {"config.json": '{"model_type": "llama"}'}
REVISION = "0123456789abcdef0123456789abcdef01234567"


def safetensors(**dtypes: str) -> bytes:
    """A file with tensors of no elements; keys: their names, values: their types."""
    header = {name: {"dtype": dtype, "shape": [0], "data_offsets": [0, 0]} for name, dtype in dtypes.items()}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text


WEIGHTS = {"model.safetensors": safetensors(**{"lm_head.weight": "F32", "layers.0.attention.bias": "U8"})}
MODEL = {**CONFIG, **TOKENIZER, **WEIGHTS}
ADAPTER = {
    "adapter_config.json": '{"base_model_name_or_path": "owner/base", "peft_type": "LORA"}',
    "adapter_model.safetensors": safetensors(a="F32"),
}
SHARDS = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
INDEX = {"model.safetensors.index.json": json.dumps({"weight_map": {"a": SHARDS[0], "b": SHARDS[1], "c": SHARDS[0]}})}
SHARDED = {**CONFIG, **TOKENIZER, **INDEX, **{shard: safetensors(a="BF16") for shard in SHARDS}}


def write(folder: Path, files: dict[str, Any]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


TAKEN: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {
    "nothing but a model": (MODEL, list(MODEL), []),
    "documents are left without a word": ({**MODEL, "README.md": "", "LICENSE.txt": "", ".git/HEAD": ""}, list(MODEL), []),
    "adapter beside whole weights": ({**MODEL, **ADAPTER}, list(MODEL), list(ADAPTER)),
    "adapter in a subfolder": ({**MODEL, "adapter/adapter_config.json": "{}"}, list(MODEL), ["adapter/"]),
    "state of a training": (
        {**MODEL, "optimizer.pt": "", "trainer_state.json": "{}", "training_args.bin": "", "checkpoint-9/config.json": "{}"},
        list(MODEL),
        ["checkpoint-9/", "optimizer.pt", "trainer_state.json", "training_args.bin"],
    ),
    "pickles beside safetensors": ({**MODEL, "pytorch_model.bin": ""}, list(MODEL), ["pytorch_model.bin"]),
    "other copies of the weights": (
        {**MODEL, "consolidated.safetensors": "", "original/params.json": "{}", "model.gguf": ""},
        list(MODEL),
        ["consolidated.safetensors", "model.gguf", "original/"],
    ),
    "shards": (SHARDED, list(SHARDED), []),
    "shards beside the whole": ({**SHARDED, **WEIGHTS}, list(MODEL), [*SHARDS, "model.safetensors.index.json"]),
    "shard that the index does not list": (
        {**SHARDED, "model-00003-of-00003.safetensors": ""}, list(SHARDED), ["model-00003-of-00003.safetensors"],
    ),
    "all that tokenizers read": (
        files := {
            **MODEL, "generation_config.json": "{}", "special_tokens_map.json": "{}", "added_tokens.json": "{}",
            "tokenizer.model": "", "vocab.json": "{}", "merges.txt": "", "vocab.txt": "", "chat_template.jinja": "",
            "additional_chat_templates/tools.jinja": "",
        },
        list(files),
        [],
    ),
    "quantization that is null": ({**MODEL, "config.json": '{"quantization_config": null}'}, list(MODEL), []),
}  # fmt: skip


@pytest.mark.parametrize(("files", "needed", "left"), TAKEN.values(), ids=TAKEN)
def test_needed_files_are_taken_and_others_named(
    tmp_path: Path, files: dict[str, Any], needed: list[str], left: list[str]
) -> None:
    found = find_model_files(str(write(tmp_path, files)))
    assert found.needed == sorted(needed)
    assert found.left == sorted(left)
    assert found.has_unused_adapter == ("adapter_config.json" in files)


def without(files: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: content for name, content in files.items() if name not in names}


def quantized(**config: Any) -> dict[str, Any]:
    return {**MODEL, "config.json": json.dumps(config)}


def with_tensor(name: str, dtype: str) -> dict[str, Any]:
    return {**MODEL, "model.safetensors": safetensors(**{name: dtype})}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "adapter alone": (ADAPTER, "mine is an adapter without the model that it was trained on, owner/base. Fine-tune that"),
    "adapter with a configuration": ({**ADAPTER, **CONFIG, **TOKENIZER}, "mine is an adapter without the model"),
    "adapter of an unknown base": ({"adapter_config.json": "no JSON"}, "it was trained on. Fine-tune that model itself"),
    "checkpoints": (
        {"checkpoint-90/config.json": "{}", "checkpoint-100/config.json": "{}", "runs/log": ""},
        "mine has no config.json; the newest of its checkpoints is model.path=mine/checkpoint-100",
    ),
    "checkpoints of an adapter": ({"checkpoint-5/adapter_config.json": "{}"}, "model.path=mine/checkpoint-5"),
    "folder of the Hub's cache": ({"snapshots/abc/config.json": "{}", "refs/main": "abc"}, "model.path=mine/snapshots/abc"),
    "folder of folders": ({"final/config.json": "{}"}, "a model folder in it is model.path=mine/final"),
    "no weights": (without(MODEL, "model.safetensors"), "has no safetensors weights (model.safetensors); expected"),
    "pickles alone": (
        {**without(MODEL, "model.safetensors"), "pytorch_model.bin": "", "training_args.bin": ""},
        "mine has only pickled weights (pytorch_model.bin), which can run code",
    ),
    "missing shard": (without(SHARDED, SHARDS[1]), f"mine lacks 1 of its 2 weight files, the first is {SHARDS[1]}; copy"),
    "missing index": (without(SHARDED, *INDEX), f"{SHARDS[0]} is a part of the weights; their model.safetensors.index.json"),
    "damaged index": ({**SHARDED, **dict.fromkeys(INDEX, "{")}, "model.safetensors.index.json is damaged"),
    "index that leads outside": (
        {**SHARDED, **dict.fromkeys(INDEX, '{"weight_map": {"a": "../secret.safetensors"}}')},
        "model.safetensors.index.json lists ../secret.safetensors, which is not a file of the folder",
    ),
    "makers' format": ({**CONFIG, **TOKENIZER, "consolidated.00.pth": ""}, "only pickled weights (consolidated.00.pth)"),
    "makers' safetensors": ({**CONFIG, "consolidated.safetensors": ""}, "consolidated.safetensors is its makers' own format"),
    "GGUF": ({"llama-q4.gguf": ""}, "mine has no config.json; llama-q4.gguf is llama.cpp's format, which cannot be trained"),
    "variant": ({**CONFIG, "model.fp16.safetensors": ""}, "model.fp16.safetensors is a variant of the weights; rename it"),
    "no tokenizer": (without(MODEL, *TOKENIZER), "mine has no tokenizer"),
    "no JSON": ({**MODEL, "config.json": "{"}, "mine/config.json is not JSON"),
    "JSON list": ({**MODEL, "config.json": "[]"}, "mine/config.json is not a JSON object"),
    "Git LFS": (
        {**MODEL, "model.safetensors": "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"},
        "mine: model.safetensors is a pointer of Git LFS, not the file itself; get the files: git lfs pull",
    ),
    "GPTQ": (quantized(quantization_config={"quant_method": "gptq", "bits": 4}), "(GPTQ, 4 bits) and cannot be fine-tuned"),
    "AWQ": (quantized(quantization_config={"quant_method": "awq", "bits": 4}), "(AWQ, 4 bits)"),
    "bitsandbytes": (
        quantized(quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True, "load_in_4bit": False}),
        "(bitsandbytes, 8 bits) and cannot be fine-tuned. Use the model that was quantized, in 16 or 32 bits; to save "
        "memory, train/method=qlora quantizes that to 4 bits itself",
    ),
    "FP8": (quantized(quantization_config={"quant_method": "fp8", "weight_block_size": [128, 128]}), "(FP8)"),
    "compressed-tensors": (quantized(quantization_config={"quant_method": "compressed-tensors"}), "(compressed-tensors)"),
    "MXFP4": (quantized(quantization_config={"quant_method": "mxfp4"}), "(MXFP4)"),
    "a new method": (quantized(quantization_config={"quant_method": "higgs"}), "(higgs)"),
    "text model of several": (quantized(text_config={"quantization_config": {"quant_method": "awq"}}), "(AWQ)"),
    "old key": (quantized(compression_config={"quant_method": "compressed-tensors"}), "(compressed-tensors)"),
    "integers without a word": (with_tensor("q_proj.weight", "I8"), "(q_proj.weight has type I8)"),
    "8-bit floats without a word": (with_tensor("q_proj.weight", "F8_E4M3"), "(q_proj.weight has type F8_E4M3)"),
    "packed without a word": (with_tensor("q_proj.qweight", "I32"), "(q_proj.qweight has type I32)"),
}  # fmt: skip


@pytest.mark.parametrize(("files", "message"), REFUSED.values(), ids=REFUSED)
def test_folder_that_cannot_be_trained_is_one_error_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, Any], message: str
) -> None:
    write(tmp_path / "mine", files)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError) as error:
        find_model_files("mine")
    assert message in str(error.value)
    assert str(error.value).startswith("mine")


def test_adapter_inside_a_model_folder_points_to_that(tmp_path: Path) -> None:
    write(tmp_path, {**MODEL, **{f"adapter/{name}": content for name, content in ADAPTER.items()}})
    with pytest.raises(ModelError, match=f"The folder above holds complete weights: model.path={tmp_path}$"):
        find_model_files(f"{tmp_path}/adapter", f"model.path={tmp_path}/adapter")


@pytest.mark.parametrize("name", ["vocab.txt", "notes.txt", "model.safetensors", "additional_chat_templates/a.jinja"])
def test_link_out_of_the_folder_is_refused_by_name(tmp_path: Path, name: str) -> None:
    write(tmp_path, {f"mine/{file}": content for file, content in MODEL.items()} | {"secret": "key"})
    link = tmp_path / "mine" / name
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(tmp_path / "secret")
    with pytest.raises(ModelError, match=f"{name} is a link to a file outside the folder, {tmp_path}/secret"):
        find_model_files(str(tmp_path / "mine"))


def test_link_to_a_folder_outside_does_not_open_it(tmp_path: Path) -> None:
    write(tmp_path, {f"mine/{file}": content for file, content in MODEL.items()} | {"secrets/a.jinja": "key"})
    (tmp_path / "mine/additional_chat_templates").symlink_to(tmp_path / "secrets")
    with pytest.raises(ModelError, match=r"additional_chat_templates/a.jinja is a link to a file outside the folder"):
        find_model_files(str(tmp_path / "mine"))


def test_broken_link_is_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path, without(MODEL, "model.safetensors"))
    (tmp_path / "model.safetensors").symlink_to("gone.safetensors")
    with pytest.raises(
        ModelError, match=r"model.safetensors is a broken link to .*gone.safetensors; get the file again"
    ):
        find_model_files(str(tmp_path))


def test_links_within_the_folder_and_to_the_folder_are_followed(tmp_path: Path) -> None:
    write(tmp_path / "mine", {**without(MODEL, "model.safetensors"), **{f"parts/{k}": v for k, v in WEIGHTS.items()}})
    (tmp_path / "mine/model.safetensors").symlink_to("parts/model.safetensors")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    assert find_model_files(str(tmp_path / "link")).needed == sorted(MODEL)


def test_links_of_the_hubs_cache_are_followed_to_its_own_blobs(tmp_path: Path) -> None:
    own, other = tmp_path / "models--owner--mine", tmp_path / "models--owner--other"
    snapshot = own / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    for number, (name, content) in enumerate(MODEL.items()):
        write(own, {f"blobs/{number}": content})
        (snapshot / name).symlink_to(f"../../blobs/{number}")
    assert find_model_files(str(snapshot)).needed == sorted(MODEL)
    write(other, {"blobs/0": "secret"})
    (snapshot / "vocab.txt").symlink_to(other / "blobs/0")
    with pytest.raises(ModelError, match=r"vocab.txt is a link to a file outside the folder"):
        find_model_files(str(snapshot))


def test_links_of_dvc_to_its_cache_are_followed(tmp_path: Path) -> None:
    write(tmp_path, {f"mine/{name}": content for name, content in without(MODEL, "model.safetensors").items()})
    cached = "cache/files/md5/01/23456789abcdef0123456789abcdef"
    write(tmp_path, {cached: WEIGHTS["model.safetensors"]})
    (tmp_path / "mine/model.safetensors").symlink_to(tmp_path / cached)
    assert find_model_files(str(tmp_path / "mine")).needed == sorted(MODEL)
