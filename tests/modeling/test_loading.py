"""pipeline/modeling/loading.py: loading a model folder never runs code in it."""

import json
from pathlib import Path

import pytest

from pipeline.errors import ModelError
from pipeline.modeling.loading import load_model


def test_custom_code_in_a_model_folder_is_not_run(in_built: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = Path("models/base")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**config, "model_type": "own", "auto_map": {"AutoConfig": "own.C"}})
    )
    (folder / "own.py").write_text("raise SystemExit('run')")
    with pytest.raises(ModelError, match=r"models/base needs custom code \(auto_map in config.json\)"):
        load_model(folder)
    assert "Do you wish" not in "".join(capfd.readouterr())
