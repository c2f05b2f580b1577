"""The hub's real client against a stand-in hub on loopback."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.error_inputs import small_disk
from support.hub import COMMIT, OLDER, Hub, serving
from support.project import ROOT, commit_all, python_in, run_in

from pipeline.synthetic.dialogues import generate_dialogues, read_knowledge

ROWS = [
    {"Description": f"Q. What about case {i}?", "Patient": "Hi", "Doctor": f"Case {i} wants rest and {i} days of it."}
    for i in range(50)
]

AUTO = ("AutoConfig", "AutoModelForCausalLM")


@pytest.fixture
def hub(built: Path, tmp_path: Path) -> Iterator[Hub]:
    """The tutorial's dataset and model by name, small in size; the model gated in one test's copy."""
    dataset = tmp_path / "hub/datasets/ruslanmv/ai-medical-chatbot"
    model = tmp_path / "hub/models/EleutherAI/pythia-70m"
    dataset.mkdir(parents=True)
    (dataset / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (dataset / "loader.py").write_text("raise SystemExit('code from the hub was run')")
    shutil.copytree(built / "models/base", model)
    (model / "pytorch_model.bin").write_bytes(b"pickled")
    with serving(tmp_path / "hub", gated=("owner/gated",)) as served:
        shutil.copytree(model, tmp_path / "hub/models/owner/gated")
        (tmp_path / "hub/models/owner/pickled").mkdir()
        shutil.copy(model / "config.json", tmp_path / "hub/models/owner/pickled/config.json")
        (tmp_path / "hub/models/owner/pickled/pytorch_model.bin").write_bytes(b"pickled")
        for file in (
            "datasets/owner/pickles/train.pkl",
            "datasets/owner/script/script.py",
            "models/owner/code/code.py",
        ):
            (tmp_path / "hub" / file).parent.mkdir(parents=True)
            (tmp_path / "hub" / file).write_text("raise SystemExit('code from the hub was run')")
            (tmp_path / "hub" / file).with_name("README.md").write_text("Read me.")
        for file in model.glob("*.*"):
            shutil.copy(file, tmp_path / "hub/models/owner/code")
        config = {"model_type": "own", "architectures": ["Own"], "auto_map": dict.fromkeys(AUTO, "code.Own")}
        (tmp_path / "hub/models/owner/code/config.json").write_text(json.dumps(config))
        yield served


def online(project: Path, hub: Hub) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(project.parent / "hf")}


def fetch(
    project: Path, hub: Hub, instance: str, *overrides: str, verbose: str = "hydra.verbose=false", **changes: str
) -> tuple[int, str]:
    """(exit code, output) of composing and fetching."""
    composed = python_in(project, "pipeline.compose", *overrides)
    assert composed.returncode == 0, composed.stderr
    environment = {**online(project, hub), **changes}
    done = python_in(project, "pipeline.fetch", f"instance={instance}", verbose, **environment)
    return done.returncode, done.stdout + done.stderr


def test_a_dataset_comes_at_its_commit_and_then_from_the_cache_offline_too(project: Path, hub: Hub) -> None:
    assert fetch(project, hub, "data", "data=medical", "data.limit=20", "model=pythia-70m")[0] == 0
    metrics = json.loads((project / "metrics/fetch/data.json").read_text())
    assert (metrics["rows"], metrics["columns"], metrics["revision"]) == (20, 3, COMMIT)
    raw = (project / "data/raw/rows.parquet").read_bytes()
    assert not any("loader.py" in path for path in hub.asked)

    assert hub.downloads()

    for offline in ("0", "1"):
        hub.asked.clear()
        medical = ("data=medical", "data.limit=20", "model=pythia-70m")
        code, output = fetch(project, hub, "data", *medical, HF_HUB_OFFLINE=offline)
        assert code == 0, output
        assert hub.downloads() == []
        assert (hub.asked == []) == (offline == "1")
        assert (project / "data/raw/rows.parquet").read_bytes() == raw


def test_a_revision_is_fetched_at_its_own_commit(project: Path, hub: Hub) -> None:
    code, output = fetch(project, hub, "data", "data=medical", "data.revision=v1", "model=pythia-70m")
    assert code == 0, output
    assert json.loads((project / "metrics/fetch/data.json").read_text())["revision"] == OLDER
    assert all("/resolve/main/" not in path for path in hub.asked)


def test_a_model_comes_without_what_is_pickled_and_its_commit_is_pinned(project: Path, hub: Hub) -> None:
    code, output = fetch(project, hub, "model", "data=medical", "model=pythia-70m")
    assert code == 0, output
    assert not any("pytorch_model.bin" in path for path in hub.asked)
    assert json.loads((project / "metrics/fetch/model.json").read_text())["revision"] == COMMIT

    pinned = python_in(project, "pipeline.pin")
    assert pinned.returncode == 0, pinned.stderr
    assert f"revision: {COMMIT}\n" in (project / "conf/model/pythia-70m.yaml").read_text()
    assert "256,916 dialogues" in (project / "conf/data/medical.yaml").read_text()
    assert "revision: main" in (project / "conf/data/medical.yaml").read_text()


def test_nothing_to_pin_is_an_error(project: Path) -> None:
    done = python_in(project, "pipeline.pin")
    assert done.returncode == 1
    assert "nothing to pin" in done.stderr


FAULTS = {
    "unknown revision": ("model", ["model=pythia-70m", "model.revision=v9"], "no branch, tag or commit v9"),
    "unknown model": ("model", ["model=hub", "model.name=owner/nothing"], "model.name: no model owner/nothing on the hub"),
    "unknown dataset": ("data", ["data=hub", "data.name=owner/nothing"], "data.name: no dataset owner/nothing on the hub"),
    "gated": ("model", ["model=hub", "model.name=owner/gated"], "access to owner/gated is gated"),
    "pickled weights": ("model", ["model=hub", "model.name=owner/pickled"], "has pickled weights only (pytorch_model.bin)"),
    "pickled data": ("data", ["data=hub", "data.name=owner/pickles"], "opening or running it can do anything: train.pkl. "),
    "data by code": ("data", ["data=hub", "data.name=owner/script"], "opening or running it can do anything: script.py. "),
    "a model by code": ("model", ["model=hub", "model.name=owner/code"], "owner/code does not load as a causal language model"),
    "unknown split": ("data", ["data=medical", "data.split=dev"], "no readable split dev"),
    "not a name": ("model", ["model=hub", "model.name=a/b/c"], "model.name: 'a/b/c' is not a name on the hub"),
    "unknown column": ("data", ["data=medical", "data.columns.answer=Nurse"], "no column Nurse"),
}  # fmt: skip


@pytest.mark.parametrize(("instance", "overrides", "message"), FAULTS.values(), ids=FAULTS)
def test_what_the_hub_refuses_is_one_message(
    project: Path, hub: Hub, instance: str, overrides: list[str], message: str
) -> None:
    code, output = fetch(project, hub, instance, *overrides)
    assert code == 1
    assert message in output
    assert "Traceback" not in output
    assert "was run" not in output
    assert not any(path.endswith((".py", ".pkl", ".bin")) for path in hub.downloads())
    assert not (project / "data/raw").exists()
    assert not (project / "models/base").exists()


@pytest.mark.parametrize("place", ["variable", "file"])
def test_a_token_opens_what_is_gated_and_is_written_nowhere(project: Path, hub: Hub, place: str) -> None:
    logged_in = {"HF_TOKEN": "hf_secret"} if place == "variable" else {}
    if place == "file":  # where `hf auth login` puts it
        (project.parent / "hf").mkdir()
        (project.parent / "hf/token").write_text("hf_secret")
    gated = ("model=hub", "model.name=owner/gated")
    code, output = fetch(project, hub, "model", *gated, verbose="hydra.verbose=true", **logged_in)
    assert code == 0, output
    assert "hf_secret" not in output
    assert run_in(project, "grep", "-r", "hf_secret", ".").returncode == 1


def test_a_hub_that_does_not_answer_is_one_message(project: Path, hub: Hub) -> None:
    code, output = fetch(project, hub, "model", "model=pythia-70m", HF_ENDPOINT="http://127.0.0.1:9")
    assert code == 1
    assert "the hub does not send it (ConnectError)" in output
    assert "Traceback" not in output


def test_a_full_disk_is_one_message_and_the_download_goes_on_when_there_is_room(project: Path, hub: Hub) -> None:
    rows = json.dumps({"question": "Q", "answer": "A" * 5000}) + "\n"
    (hub.root / "datasets/owner/large").mkdir()
    (hub.root / "datasets/owner/large/train.jsonl").write_text(rows * 40)
    large = ("data=hub", "data.name=owner/large")
    assert python_in(project, "pipeline.compose", *large).returncode == 0
    done = run_in(
        project, *small_disk(100, ["python", "-m", "pipeline.fetch", "instance=data"]), **online(project, hub)
    )
    assert done.returncode == 1
    assert re.search(r"fetch stopped: \S+\.incomplete: File too large\. See that there is room", done.stderr)
    assert "Traceback" not in done.stderr
    assert not (project / "data/raw").exists()
    code, output = fetch(project, hub, "data", *large)
    assert code == 0, output
    assert hub.ranges == ["bytes=102400-"]


def test_the_tutorial_runs_whole(project: Path, hub: Hub) -> None:
    """Dataset and model under the real names, small in size; what the tutorial fixes is the preset's."""
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
    there = online(project, hub)
    done = run_in(project, "dvc", "exp", "run", "-S", "experiment=tutorial", **there)
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = {name: json.loads((project / f"metrics/{name}.json").read_text()) for name in ("train", "fetch/data")}
    assert (metrics["train"]["steps"], metrics["train"]["trainable_parameters"]) == (3, metrics["train"]["parameters"])
    assert (metrics["fetch/data"]["rows"], metrics["fetch/data"]["revision"]) == (600, COMMIT)
    card = (project / "metrics/model_card.md").read_text()
    assert "base_model: EleutherAI/pythia-70m\ndatasets:\n- ruslanmv/ai-medical-chatbot\n---" in card
    again = run_in(project, "dvc", "exp", "run", "-S", "experiment=tutorial", **there)
    assert "Running stage" not in again.stdout


def test_the_first_rows_of_a_file_on_the_hub_come_without_the_rest(tmp_path: Path) -> None:
    """In a process of its own, since the hub's file system reads HF_ENDPOINT when it is imported."""
    rows = tmp_path / "hub/datasets/owner/large/train.jsonl"
    rows.parent.mkdir(parents=True)
    rows.write_text("".join(json.dumps({"text": f"{number:0200}"}) + "\n" for number in range(100_000)))
    code = (
        "from pipeline.config.params import FileRows; from pipeline.fetch.sources import load\n"
        "path = 'hf://datasets/owner/large/train.jsonl'\n"
        "found = load(FileRows(source='file', path=path, limit=2, columns=None, sha256=None))\n"
        "print([text[-3:] for text in found.table['text'].to_pylist()], found.revision[64:])"
    )
    with serving(tmp_path / "hub") as hub:
        environment = {**os.environ, "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home")}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
        )
    assert done.stdout == "['000', '001']  of the 65536 bytes that were read\n", done.stderr
    asked = [[int(place) for place in each.removeprefix("bytes=").split("-")] for each in hub.ranges]
    assert sum(last + 1 - first for first, last in asked) < rows.stat().st_size / 2
