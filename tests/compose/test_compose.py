"""conf/ and params.yaml: composed as DVC does, compared, adopted."""

import re
import subprocess
from pathlib import Path

import pytest
from support.project import ROOT, commit_all, copy_project, python_in, run_in

from pipeline.compose.adopt import adopt
from pipeline.compose.composition import compose_params, parse_params
from pipeline.config.validation import param_errors
from pipeline.errors import ConfigError

OPTIONS = sorted(
    f"{path.relative_to(ROOT / 'conf').parent}={path.stem}"
    for path in (ROOT / "conf").rglob("*/*.yaml")
    if "hydra" not in path.parts
    and path.stem not in ("qlora", "fsdp")  # which need a card: tests/test_methods.py, tests/test_compute.py
)
# Options that a user completes.
COMPLETED = {
    "data=file": ["data.path=rows.csv"],
    "data=hub": ["data.name=owner/rows"],
    "model=folder": ["model.path=models/mine"],
    "model=hub": ["model.name=owner/model"],
}


def test_the_committed_params_are_what_conf_composes() -> None:
    done = python_in(ROOT, "pipeline.compose", "--check")
    assert (done.returncode, done.stdout) == (0, "params.yaml is what conf/ composes.\n")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with a table and a model folder of a user's own."""
    folder = copy_project(tmp_path_factory.mktemp("compose") / "project")
    (folder / "rows.csv").write_text("question,answer\nWhy?,So.\n")
    (folder / "models/mine").mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / "models/mine" / name).write_text("{}")
    return folder


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_of_every_group_composes(shared: Path, option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shared)
    assert param_errors(parse_params(compose_params(option, *COMPLETED.get(option, [])))) == []


def test_composition_writes_what_dvc_writes(project: Path) -> None:
    commit_all(project)
    python_in(project, "pipeline.compose", "train.learning_rate=2e-5", "format/template=plain")
    ours = (project / "params.yaml").read_bytes()
    subprocess.run(["git", "restore", "params.yaml"], cwd=project, check=True)
    queued = run_in(
        project, "dvc", "exp", "run", "--queue", "-S", "train.learning_rate=2e-5", "-S", "format/template=plain"
    )
    assert queued.returncode == 0, queued.stderr
    stashed = subprocess.run(
        ["git", "show", "refs/exps/celery/stash:params.yaml"], cwd=project, check=True, capture_output=True
    ).stdout
    assert stashed == ours


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return commit_all(copy_project(tmp_path_factory.mktemp("refused") / "project"))


REFUSED = {
    "misspelt": ("train.learning_rat=1", "learning_rat"),
    "ill-typed": ("train.learning_rate=oops", "train.learning_rate: 'oops' is not right; expected a number"),
    "added with +": ("+train.foo=1", "train.foo: unknown key"),
    "unknown option": ("data=nope", "Could not find 'data/nope'"),
    "missing file": ("data.path=nowhere.yaml", "data.path: no such file: nowhere.yaml"),
}


@pytest.mark.parametrize(("override", "message"), REFUSED.values(), ids=REFUSED)
def test_dvc_refuses_a_bad_experiment_before_it_queues_it(repository: Path, override: str, message: str) -> None:
    done = run_in(repository, "dvc", "exp", "run", "--queue", "-S", override)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (repository / ".git/refs/exps").exists()


def test_check_names_the_keys_that_differ(project: Path) -> None:
    python_in(project, "pipeline.compose", "train.seed=7")
    done = python_in(project, "pipeline.compose", "--check")
    assert done.returncode == 3
    assert "  train.seed: 7 here, 0 by conf/\n" in done.stdout


def test_check_refuses_wrong_values_in_params(project: Path) -> None:
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("seed: 0", "seed: zero"))
    done = python_in(project, "pipeline.compose", "--check")
    assert done.returncode == 1
    assert "train.seed: 'zero' is not right" in done.stderr


ADOPTED = {
    "values": ["train.learning_rate=3e-4", "data.rows=900", "train.keep_best=false"],
    "options": ["data=medical", "model=pythia-70m", "data.limit=10"],
    "a preset": ["experiment=tutorial"],
    "a method and a schedule": ["train/method=lora", "train.method.rank=2", "train/schedule=step", "train.seed=3"],
    "a file": ["data=file", "data.path=rows.csv", "data.columns={question: Title, answer: Reply}"],
    "a file without mapping": ["data=file", "data.path=rows.jsonl"],
    "nothing": [],
}


@pytest.mark.parametrize("overrides", ADOPTED.values(), ids=ADOPTED)
def test_adopted_values_are_what_conf_composes_from_then_on(
    project: Path, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    (project / "rows.csv").write_text("Title,Reply\nWhy?,So.\n")
    (project / "rows.jsonl").write_text('{"question": "Why?", "answer": "So."}\n')
    wanted = compose_params(*overrides)
    (project / "params.yaml").write_text(wanted)
    adopt()
    assert (project / "params.yaml").read_text() == wanted == compose_params()
    assert not re.search(r"sha256: [0-9a-f]", "".join(path.read_text() for path in (project / "conf").rglob("*.yaml")))


def test_what_is_adopted_of_a_source_is_not_asked_of_another(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    (project / "rows.csv").write_text("Title,Reply\nWhy?,So.\n")
    (project / "params.yaml").write_text(compose_params(*ADOPTED["a file"]))
    adopt()
    assert parse_params(compose_params())["data"]["path"] == "rows.csv"
    assert "data: adopted" in (project / "conf/config.yaml").read_text()
    assert parse_params(compose_params("data=generated"))["data"]["rows"] == 1500
    (project / "params.yaml").write_text(compose_params("data.limit=7"))  # adopted anew, from what was adopted before
    adopt()
    assert parse_params(compose_params())["data"]["limit"] == 7


def test_what_cannot_be_adopted_leaves_the_configuration_as_it_was(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    before = (project / "conf/config.yaml").read_text()
    text = compose_params("data.limit=5", "clean.question_prefixes=[]")
    (project / "conf/clean/default.yaml").write_text("# @package clean.more\nquestion_prefixes: []\nboilerplate: []\n")
    (project / "params.yaml").write_text(text)
    with pytest.raises(ConfigError):
        adopt()
    assert (project / "conf/config.yaml").read_text() == before
    assert not (project / "conf/data/adopted.yaml").exists()


def test_a_changed_local_source_changes_the_parameters(project: Path) -> None:
    python_in(project, "pipeline.compose")
    knowledge = project / "data/knowledge/conditions.yaml"
    knowledge.write_text(knowledge.read_text() + "\n# changed\n")
    done = python_in(project, "pipeline.compose", "--check")
    assert done.returncode == 3
    assert "data.sha256: " in done.stdout


def test_tokenize_measures_padding_by_the_batches_of_training(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    values = parse_params(compose_params("train.batch_size=3", "train.group_by_length=false"))
    assert (values["tokenize"]["batch_size"], values["tokenize"]["group_by_length"]) == (3, False)
    tutorial = parse_params(compose_params("experiment=tutorial"))["tokenize"]
    assert (tutorial["batch_size"], tutorial["group_by_length"], tutorial["gates"]["max_unended"]) == (1, False, 0.01)
