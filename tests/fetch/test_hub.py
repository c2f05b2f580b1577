"""Datasets and models of the hub by their options, through the real client and a stand-in hub on loopback."""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session
from support.error_inputs import small_disk
from support.hub import COMMIT, OLDER, Hub, serve_hub
from support.project import ROOT, SHIPPED, commit_all, python_in, run_in, stages_run
from support.snapshots import isolate_client, point_client_to

from pipeline.compose.composition import compose_params, parse_params
from pipeline.config.validation import validate_params
from pipeline.errors import PipelineError
from pipeline.fetch.stage import fetch_data, fetch_model
from pipeline.synthetic.dialogues import generate_dialogues, read_knowledge

Fetch = Callable[..., dict[str, Any]]

ROWS = [
    {"Description": f"Q. What about case {i}?", "Patient": "Hi", "Doctor": f"Case {i} wants rest and {i} days of it."}
    for i in range(50)
]
CODE = "raise SystemExit('code from the hub was run')"


@pytest.fixture
def hub(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The tutorial's dataset and model under their real names but small, a gated model, and repositories to be refused.

    This process's client uses the hub, with a cache and a login of its own.
    """
    root = tmp_path / "hub"

    def write(path: str, content: str | bytes) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content if isinstance(content, bytes) else content.encode())

    write("datasets/ruslanmv/ai-medical-chatbot/train.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS))
    write("datasets/ruslanmv/ai-medical-chatbot/loader.py", CODE)
    model = shutil.copytree(built / "models/base", root / "models/EleutherAI/pythia-70m")
    write("models/EleutherAI/pythia-70m/pytorch_model.bin", b"pickled")
    shutil.copytree(model, root / "models/owner/gated")
    write("models/owner/pickled/config.json", (model / "config.json").read_bytes())
    write("models/owner/pickled/pytorch_model.bin", b"pickled")
    for file in ("datasets/owner/pickles/train.pkl", "datasets/owner/script/script.py", "models/owner/code/code.py"):
        write(file, CODE)
        write(f"{Path(file).parent}/README.md", "Read me.")
    for path in model.glob("*.*"):
        shutil.copy(path, root / "models/owner/code")
    auto = dict.fromkeys(("AutoConfig", "AutoModelForCausalLM"), "code.Own")
    config = {"model_type": "own", "architectures": ["Own"], "auto_map": auto}
    write("models/owner/code/config.json", json.dumps(config))
    isolate_client(tmp_path / "hf", monkeypatch)
    with serve_hub(root, gated=("owner/gated",)) as hub:
        point_client_to(hub.address, monkeypatch)
        yield hub
    close_session()


@pytest.fixture
def fetch(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fetch:
    """Compose the parameters and fetch an instance in this process and an empty folder; the metrics."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")

    def run(instance: str, *overrides: str) -> dict[str, Any]:
        other = "model=pythia-70m" if instance == "data" else "data=medical"
        with monkeypatch.context() as context:
            context.chdir(SHIPPED)
            params = validate_params(parse_params(compose_params(other, *overrides)))
        return fetch_data(params.data) if instance == "data" else fetch_model(params.model)

    return run


def online(project: Path, hub: Hub) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(project.parent / "hf")}


def run_fetch(
    project: Path, hub: Hub, instance: str, *overrides: str, verbose: bool = False, **changes: str
) -> tuple[int, str]:
    """(exit code, output) of the real commands: composing and fetching."""
    composed = python_in(project, "pipeline.compose", *overrides)
    assert composed.returncode == 0, composed.stderr
    environment = {**online(project, hub), **changes}
    arguments = (f"instance={instance}", f"hydra.verbose={str(verbose).lower()}")
    done = python_in(project, "pipeline.fetch", *arguments, **environment)
    return done.returncode, done.stdout + done.stderr


def test_a_dataset_comes_at_its_commit_then_from_the_cache(
    hub: Hub, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = fetch("data", "data=medical", "data.limit=20")
    assert (metrics["rows"], metrics["columns"], metrics["revision"]) == (20, 3, COMMIT)
    raw = Path("data/raw/rows.parquet").read_bytes()
    assert not any("loader.py" in path for path in hub.requests)
    assert hub.downloads()
    for offline in (False, True):
        hub.requests.clear()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        assert fetch("data", "data=medical", "data.limit=20") == metrics
        assert hub.downloads() == []
        assert (hub.requests == []) == offline
        assert Path("data/raw/rows.parquet").read_bytes() == raw


def test_the_column_mapping_is_stored_beside_the_rows(fetch: Fetch) -> None:
    fetch("data", "data=medical", 'data.columns={question: "{Description} {Patient}", answer: Doctor}')
    assert json.loads(Path("data/raw/columns.json").read_text()) == {
        "task": "question/answer",
        "columns": {"question": "{Description} {Patient}", "answer": "Doctor"},
        "reason": "set by data.columns",
    }


def test_a_revision_is_fetched_at_its_own_commit(hub: Hub, fetch: Fetch) -> None:
    assert fetch("data", "data=medical", "data.revision=v1")["revision"] == OLDER
    assert all("/resolve/main/" not in path for path in hub.requests)


def test_a_model_comes_without_pickles_and_its_commit_is_pinned(project: Path, hub: Hub) -> None:
    """The real commands."""
    code, output = run_fetch(project, hub, "model", "data=medical", "model=pythia-70m")
    assert code == 0, output
    assert not any("pytorch_model.bin" in path for path in hub.requests)
    assert json.loads((project / "metrics/details/fetch/model.json").read_text())["revision"] == COMMIT

    pinned = python_in(project, "pipeline.pin")
    assert pinned.returncode == 0, pinned.stderr
    assert f"revision: {COMMIT} " in (project / "conf/model/pythia-70m.yaml").read_text()
    assert "256,916 dialogues" in (project / "conf/data/medical.yaml").read_text()
    assert "revision: main" in (project / "conf/data/medical.yaml").read_text()


def test_nothing_to_pin_is_an_error(project: Path) -> None:
    done = python_in(project, "pipeline.pin")
    assert done.returncode == 1
    assert "nothing to pin" in done.stderr


REFUSED = {
    "unknown revision": ("model", ["model=pythia-70m", "model.revision=v9"], "no branch, tag or commit v9"),
    "unknown model": (
        "model",
        ["model=hub", "model.name=owner/nothing"],
        "model.name: no model owner/nothing on the Hugging Face Hub",
    ),
    "unknown dataset": (
        "data",
        ["data=hub", "data.name=owner/nothing"],
        "data.name: no dataset owner/nothing on the Hugging Face Hub",
    ),
    "gated": ("model", ["model=hub", "model.name=owner/gated"], "access to owner/gated is gated"),
    "pickled weights": ("model", ["model=hub", "model.name=owner/pickled"], "has only pickled weights (pytorch_model.bin)"),
    "pickled data": ("data", ["data=hub", "data.name=owner/pickles"], "because they can run code: train.pkl. "),
    "data by code": ("data", ["data=hub", "data.name=owner/script"], "because they can run code: script.py. "),
    "a model by code": ("model", ["model=hub", "model.name=owner/code"], "owner/code needs custom code (auto_map"),
    "unknown split": ("data", ["data=medical", "data.split=dev"], "no readable split dev"),
    "not a name": ("model", ["model=hub", "model.name=a/b/c"], "model.name: 'a/b/c' is not a name on the Hugging Face Hub"),
    "unknown column": ("data", ["data=medical", "data.columns.answer=Nurse"], "no column Nurse"),
}  # fmt: skip


@pytest.mark.parametrize(("instance", "overrides", "message"), REFUSED.values(), ids=REFUSED)
def test_a_refused_dataset_or_model_is_one_error(
    hub: Hub,
    fetch: Fetch,
    instance: str,
    overrides: list[str],
    message: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(PipelineError) as error:
        fetch(instance, *overrides)
    assert message in str(error.value)
    assert "was run" not in str(error.value) + "".join(capfd.readouterr())
    assert not any(path.endswith((".py", ".pkl", ".bin")) for path in hub.downloads())
    assert not Path("data/raw").exists()
    assert not Path("models/base").exists()


def test_a_token_opens_a_gated_model_and_is_written_nowhere(project: Path, hub: Hub) -> None:
    """The real command, with all that the libraries log."""
    gated = ("model=hub", "model.name=owner/gated")
    code, output = run_fetch(project, hub, "model", *gated, verbose=True, HF_TOKEN="hf_secret")
    assert code == 0, output
    assert "hf_secret" not in output
    assert run_in(project, "grep", "-r", "hf_secret", ".").returncode == 1


def test_a_login_opens_a_gated_model_and_is_written_nowhere(
    tmp_path: Path, fetch: Fetch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf/token").write_text("hf_secret")  # where `hf auth login` puts it
    assert fetch("model", "model=hub", "model.name=owner/gated")["revision"] == COMMIT
    assert "hf_secret" not in caplog.text + "".join(capfd.readouterr())
    assert run_in(Path(), "grep", "-r", "hf_secret", ".").returncode == 1


def test_a_hub_that_does_not_answer_is_one_message(project: Path, hub: Hub) -> None:
    code, output = run_fetch(project, hub, "model", "model=pythia-70m", HF_ENDPOINT="http://127.0.0.1:9")
    assert code == 1
    assert "cannot be downloaded (ConnectError)" in output
    assert "Traceback" not in output


def test_a_download_resumes_after_a_full_disk(project: Path, hub: Hub, fetch: Fetch) -> None:
    rows = json.dumps({"question": "Q", "answer": "A" * 5000}) + "\n"
    (hub.root / "datasets/owner/large").mkdir()
    (hub.root / "datasets/owner/large/train.jsonl").write_text(rows * 40)
    large = ("data=hub", "data.name=owner/large")
    assert python_in(project, "pipeline.compose", *large).returncode == 0
    done = run_in(
        project, *small_disk(100, ["python", "-m", "pipeline.fetch", "instance=data"]), **online(project, hub)
    )
    assert done.returncode == 1
    assert re.search(r"fetch stopped: \S+\.incomplete: File too large\. Check disk space and permissions", done.stderr)
    assert "Traceback" not in done.stderr
    assert not (project / "data/raw").exists()
    assert fetch("data", *large)["rows"] == 40
    assert hub.ranges == ["bytes=102400-"]


def test_the_tutorial_runs(project: Path, hub: Hub) -> None:
    """The real commands, with the preset's own values; only the dataset and the model are small.

    All that follows fetch runs offline.
    """
    dialogues = generate_dialogues(read_knowledge(project / "data/knowledge/conditions.yaml"), rows=600, seed=0)
    served = hub.root / "datasets/ruslanmv/ai-medical-chatbot/train.jsonl"
    served.write_text("".join(json.dumps(row) + "\n" for row in dialogues))
    tiny = ("layers=2", "hidden_size=32", "heads=2", "vocabulary=400", "positions=2048")
    composed = python_in(project, "pipeline.compose", "model=scratch", *(f"model.{size}" for size in tiny))
    assert composed.returncode == 0, composed.stderr
    assert python_in(project, "pipeline.fetch", "instance=model").returncode == 0
    shutil.rmtree(hub.root / "models/EleutherAI/pythia-70m")
    shutil.move(project / "models/base", hub.root / "models/EleutherAI/pythia-70m")

    commit_all(project)
    tutorial = ("dvc", "exp", "run", "-S", "experiment=tutorial")
    done = run_in(project, *tutorial, "fetch@data", "fetch@model", **online(project, hub))
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(stages_run(done.stdout)) == ["fetch@data", "fetch@model"]
    done = run_in(project, *tutorial)  # offline
    assert done.returncode == 0, done.stdout + done.stderr
    assert not any(stage.startswith("fetch") for stage in stages_run(done.stdout))
    metrics = {
        name: json.loads((project / f"metrics/details/{name}.json").read_text()) for name in ("train", "fetch/data")
    }
    assert (metrics["train"]["steps"], metrics["train"]["trainable_parameters"]) == (3, metrics["train"]["parameters"])
    assert (metrics["fetch/data"]["rows"], metrics["fetch/data"]["revision"]) == (600, COMMIT)
    card = (project / "metrics/model_card.md").read_text()
    assert "base_model: EleutherAI/pythia-70m\ndatasets:\n- ruslanmv/ai-medical-chatbot\n---" in card
    again = run_in(project, *tutorial)
    assert "Running stage" not in again.stdout


def test_a_limit_downloads_only_part_of_a_file_on_the_hub(tmp_path: Path) -> None:
    """In its own process, because the hub's file system reads HF_ENDPOINT when it is imported."""
    rows = tmp_path / "hub/datasets/owner/large/train.jsonl"
    rows.parent.mkdir(parents=True)
    rows.write_text("".join(json.dumps({"text": f"{number:0200}"}) + "\n" for number in range(100_000)))
    code = (
        "from pipeline.config.sources import FileRows; from pipeline.fetch.sources import load_rows\n"
        "path = 'hf://datasets/owner/large/train.jsonl'\n"
        "nulls = dict.fromkeys(FileRows.model_fields)\n"
        "loaded = load_rows(FileRows.model_validate(nulls | {'source': 'file', 'path': path, 'limit': 2}))\n"
        "print([text[-3:] for text in loaded.table['text'].to_pylist()], loaded.revision[64:])"
    )
    with serve_hub(tmp_path / "hub") as hub:
        environment = {**os.environ, "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home")}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
        )
    assert done.stdout == "['000', '001']  of the 65536 bytes that were read\n", done.stderr
    ranges = [[int(end) for end in header.removeprefix("bytes=").split("-")] for header in hub.ranges]
    assert sum(last + 1 - first for first, last in ranges) < rows.stat().st_size / 2
