"""conf/ and params.yaml: composed as DVC does, compared, adopted."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import run_main
from support.project import ROOT, SHIPPED, commit_all, copy_project, python_in, run_in

from pipeline.compose import cli
from pipeline.compose.adopt import adopt
from pipeline.compose.composition import compose_params, parse_params
from pipeline.compose.yaml_files import dump_yaml, load_yaml
from pipeline.config.validation import param_errors
from pipeline.errors import ConfigError

Compose = Callable[..., tuple[int, str, str]]


def options_of(conf: Path) -> list[str]:
    """Every option of every group, such as train/method=lora."""
    paths = [path.relative_to(conf) for path in conf.rglob("*/*.yaml") if "hydra" not in path.parts]
    return sorted(f"{path.parent}={path.stem}" for path in paths)


NEED_GPU = ("train/method=qlora", "compute=fsdp")  # tests/train/test_methods.py, tests/end_to_end/test_compute.py
# Options that a user completes.
COMPLETED = {
    "data=file": ["data.path=rows.csv"],
    "data=hub": ["data.name=owner/rows"],
    "model=folder": ["model.path=models/mine"],
    "model=hub": ["model.name=owner/model"],
}


@pytest.fixture
def compose(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Compose:
    """`python -m pipeline.compose` in this process and its working directory: exit code, standard output and error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        return run_main(cli.main, ["compose", *arguments], monkeypatch, capsys)

    return run


@pytest.fixture
def in_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh copy of the project, which is the working directory."""
    monkeypatch.chdir(project)
    return project


def test_params_are_what_conf_composes(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert compose("--check") == (0, "params.yaml is what conf/ composes.\n", "")


def test_shipped_params_are_what_shipped_conf_composes(compose: Compose, in_project: Path) -> None:
    assert compose("--check") == (0, "params.yaml is what conf/ composes.\n", "")


@pytest.mark.parametrize("option", options_of(ROOT / "conf"))
def test_every_option_of_conf_fits_the_schema(option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """conf/config.yaml may set keys that only the configured option has, so those of the option's group are removed."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    group, name = option.split("=")
    config, values = load_yaml(tmp_path / "conf/config.yaml"), load_yaml(tmp_path / f"conf/{group}/{name}.yaml")
    *sections, section = group.split("/")
    parent = config
    for key in sections:
        parent = parent.get(key, {})
    parent.pop(section, None)
    dump_yaml(tmp_path / "conf/config.yaml", config)
    completed = [
        f"{'.'.join([*sections, section])}.{key}=mine"
        for key in ("path", "name")
        if key in values and values[key] is None
    ]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipeline.compose.resolvers.require_valid", lambda values: None)
    assert param_errors(parse_params(compose_params(option, *completed))) == []


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with a user's own table and model folder."""
    folder = copy_project(tmp_path_factory.mktemp("compose") / "project")
    (folder / "rows.csv").write_text("question,answer\nWhy?,So.\n")
    (folder / "models/mine").mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / "models/mine" / name).write_text("{}")
    return folder


@pytest.mark.parametrize("option", [option for option in options_of(SHIPPED / "conf") if option not in NEED_GPU])
def test_every_shipped_option_composes(shared: Path, option: str, monkeypatch: pytest.MonkeyPatch) -> None:
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
    "ill-typed": ("train.learning_rate=oops", "train.learning_rate: 'oops' is invalid; expected a number"),
    "added with +": ("+train.foo=1", "train.foo: unknown key"),
    "unknown option": ("data=nope", "Could not find 'data/nope'"),
    "missing file": ("data.path=nowhere.yaml", "data.path: no such file: nowhere.yaml"),
}


@pytest.mark.parametrize(("override", "message"), REFUSED.values(), ids=REFUSED)
def test_dvc_refuses_an_invalid_experiment_before_it_queues_it(repository: Path, override: str, message: str) -> None:
    done = run_in(repository, "dvc", "exp", "run", "--queue", "-S", override)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (repository / ".git/refs/exps").exists()


def test_check_names_the_keys_that_differ(compose: Compose, in_project: Path) -> None:
    assert compose("train.seed=7") == (0, "Wrote params.yaml.\n", "")
    code, output, _ = compose("--check")
    assert code == 3
    assert "  train.seed: 7 here, 0 from conf/\n" in output


def test_check_rejects_invalid_values_in_params(compose: Compose, in_project: Path) -> None:
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("seed: 0", "seed: zero"))
    code, _, errors = compose("--check")
    assert code == 1
    assert "train.seed: 'zero' is invalid" in errors


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
def test_conf_composes_adopted_values(in_project: Path, overrides: list[str]) -> None:
    Path("rows.csv").write_text("Title,Reply\nWhy?,So.\n")
    Path("rows.jsonl").write_text('{"question": "Why?", "answer": "So."}\n')
    wanted = compose_params(*overrides)
    Path("params.yaml").write_text(wanted)
    adopt()
    assert Path("params.yaml").read_text() == wanted == compose_params()
    assert not re.search(r"sha256: [0-9a-f]", "".join(path.read_text() for path in Path("conf").rglob("*.yaml")))


def test_values_adopted_for_one_source_do_not_apply_to_another(in_project: Path) -> None:
    Path("rows.csv").write_text("Title,Reply\nWhy?,So.\n")
    Path("params.yaml").write_text(compose_params(*ADOPTED["a file"]))
    adopt()
    assert parse_params(compose_params())["data"]["path"] == "rows.csv"
    assert "data: adopted" in Path("conf/config.yaml").read_text()
    assert parse_params(compose_params("data=generated"))["data"]["rows"] == 1500
    Path("params.yaml").write_text(compose_params("data.limit=7"))  # adopts a second time, from the adopted option
    adopt()
    assert parse_params(compose_params())["data"]["limit"] == 7


def test_failed_adoption_leaves_conf_unchanged(in_project: Path) -> None:
    before = Path("conf/config.yaml").read_text()
    text = compose_params("data.limit=5", "compare.seed=3")
    Path("conf/compare/default.yaml").write_text("# @package compare.more\nseed: 0\n")
    Path("params.yaml").write_text(text)
    with pytest.raises(ConfigError):
        adopt()
    assert Path("conf/config.yaml").read_text() == before
    assert not Path("conf/data/adopted.yaml").exists()


def test_conf_that_does_not_compose_is_a_config_error_for_adopt_too(in_project: Path) -> None:
    """A cleaning option without the group of patterns, which the default data option overrides."""
    Path("params.yaml").write_text(compose_params())
    shipped = Path("conf/clean/default.yaml").read_text()
    Path("conf/clean/mine.yaml").write_text(shipped[shipped.index("mend_encoding") :])
    config = Path("conf/config.yaml")
    config.write_text(config.read_text().replace("- clean: default", "- clean: mine"))
    for act in (compose_params, adopt):
        with pytest.raises(ConfigError, match="Could not override 'clean/preset'"):
            act()


def test_changed_local_source_changes_the_parameters(compose: Compose, in_project: Path) -> None:
    assert compose() == (0, "Wrote params.yaml.\n", "")
    knowledge = Path("data/knowledge/conditions.yaml")
    knowledge.write_text(knowledge.read_text() + "\n# changed\n")
    code, output, _ = compose("--check")
    assert code == 3
    assert "data.sha256: " in output


def test_tokenize_measures_padding_by_the_batches_of_training(in_project: Path) -> None:
    values = parse_params(compose_params("train.batch_size=3", "train.group_by_length=false"))
    assert (values["tokenize"]["batch_size"], values["tokenize"]["group_by_length"]) == (3, False)
    tutorial = parse_params(compose_params("experiment=tutorial"))["tokenize"]
    assert (tutorial["batch_size"], tutorial["group_by_length"], tutorial["gates"]["max_unended"]) == (1, False, 0.01)
