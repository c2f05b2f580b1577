"""pipeline/train/model_source.py: peft finds what an adapter names as its base from any folder."""

import json
from pathlib import Path

import pytest

from pipeline.train.model_source import MODEL_SOURCE, base_reference, has_added_embeddings, read_model_source

BASE = Path("models/base")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory is a queued experiment's copy of a checkout, in which the user's model is."""
    copy, original = tmp_path / "tmp/copy", tmp_path / "project"
    for folder in (copy / BASE, copy / "models/own", original / "models/own"):
        folder.mkdir(parents=True)
    monkeypatch.chdir(copy)
    monkeypatch.setenv("DVC_ROOT", str(original))
    return original


def write_source(source: str, name: str, **values: int) -> None:
    (BASE / MODEL_SOURCE).write_text(json.dumps({"source": source, "name": name, "revision": "abc", **values}))


def test_base_from_the_hub_has_its_name_and_commit(checkout: Path) -> None:
    write_source("hub", "owner/model")
    assert base_reference(BASE) == ("owner/model", "abc")


@pytest.mark.parametrize("path", ["models/own", "models/../models/own/", "{checkout}/models/own"])
def test_base_from_a_folder_has_its_path_in_the_original_checkout(checkout: Path, path: str) -> None:
    write_source("folder", path.format(checkout=checkout))
    assert base_reference(BASE) == (f"{checkout}/models/own", None)


def test_base_outside_the_checkout_has_its_own_path(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    for path, expected in (
        ("/models/own", "/models/own"),
        ("~/own", "/home/someone/own"),
        ("../own", f"{checkout.parent}/own"),
    ):
        write_source("folder", path)
        assert base_reference(BASE) == (expected, None)


def test_random_weights_are_only_in_models_base(checkout: Path) -> None:
    write_source("scratch", "random weights")
    assert base_reference(BASE) == (f"{checkout}/models/base", None)
    (BASE / MODEL_SOURCE).unlink()
    assert base_reference(BASE) == (f"{checkout}/models/base", None)


def test_folder_with_an_adapter_beside_its_weights_is_not_named(checkout: Path) -> None:
    write_source("folder", "models/own")
    (checkout / "models/own/adapter_config.json").write_text("{}")
    assert base_reference(BASE) == (f"{checkout}/models/base", None)


def test_path_without_dvc_is_that_in_the_working_directory(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_ROOT")
    write_source("folder", "models/own")
    assert base_reference(BASE) == (f"{Path.cwd()}/models/own", None)


def test_added_embeddings_are_remembered(checkout: Path) -> None:
    assert not has_added_embeddings(BASE)
    write_source("folder", "models/own", embeddings_added=2)
    assert has_added_embeddings(BASE)
    assert read_model_source(BASE).embeddings_added == 2
