"""Every command in the documentation works: it is run here, or by a named test, or a reason says why not.

Experiments are composed, not run: composition checks all parameters, as it does before DVC queues or starts anything.
"""

import json
import re
import shlex
import shutil
import sys
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from dvc.utils.hydra import get_hydra_sweeps
from support.project import ROOT, SHIPPED, run_in

from pipeline import schedule
from pipeline.compose.composition import compose_params
from pipeline.compose.leaves import flatten
from pipeline.errors import ConfigError

PAGES = [*(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"))]
PAGES += sorted((ROOT / "docs").glob("*.md"))
FENCE = re.compile(r"^```(?P<kind>\w+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
ASSIGNMENT = re.compile(r"[A-Z_]+=\S*")
STAGES = {"fetch", "clean", "format", "tokenize", "train", "evaluate", "compare"}
CSV_ONLY = {"rev", "typ", "Created", "parent"}  # columns that dvc exp show --csv adds

# Any stage, any command, and a name in the changelog that is no longer used.
PLACEHOLDERS = ("python -m pipeline.STAGE", "python -m pipeline.NAME", "python -m bench.aa")

# Commands that a test elsewhere runs: pattern → (that test's file, what it holds if it still runs the command).
RUN_ELSEWHERE = {
    r"dvc repro": ("tests/end_to_end/test_pipeline.py", '"dvc", "repro"'),
    r"dvc metrics diff .*": ("tests/end_to_end/test_pipeline.py", '"dvc", "metrics", "diff"'),
    r"dvc plots diff .*": ("tests/end_to_end/test_pipeline.py", '"dvc", "plots", "diff"'),
    r"python -m pipeline\.compose --check": ("tests/compose/test_compose.py", 'compose("--check")'),
    r"python -m pipeline\.compose --adopt": ("tests/compose/test_compose.py", "adopt()"),
    r"python -m pipeline\.start .*": ("tests/start/test_start.py", 'start("tickets.csv", "--yes")'),
    r"python -m pipeline\.pin": ("tests/fetch/test_hub.py", '"pipeline.pin"'),
    r"python -m pipeline\.folds": ("tests/test_folds.py", '"pipeline.folds"'),
    r"python -m pipeline\.train": ("tests/end_to_end/test_compute.py", '"pipeline.train"'),
    r"python -m pipeline\.train train\.max_steps=.*": ("tests/end_to_end/test_console.py", '"hydra.verbose=true"'),
    r"python -m pipeline\.leaderboard .*": ("tests/leaderboard/test_leaderboard.py", '"pipeline.leaderboard"'),
    r"python -m pipeline\.nano": ("tests/nano/test_nano.py", "pipeline.nano"),
    r"python -m pipeline\.inspect.*": ("tests/inspect/test_inspect.py", 'inspect("--row", "3")'),
    r"python -m pipeline\.prove": ("tests/prove/test_prove.py", 'cli.prove(["all"]'),
    r"python -m pipeline\.prove --stages .*": ("tests/prove/test_prove.py", '["prove", "--stages", "train"]'),
    r"python -m pipeline\.prove --against .*": ("tests/prove/test_against.py", '["prove", "--against", "HEAD"]'),
    r"python -m bench\.chat_templates": ("tests/chat/test_trl_templates.py", "from bench.chat_templates import"),
    r"python -m bench\.served": ("tests/end_to_end/test_served.py", '"bench.served"'),
    r"python -m bench\.stopping": ("tests/chat/test_stopping.py", "from bench import stopping"),
    r"python -m bench\.kills": ("tests/end_to_end/test_bench.py", "kills.main("),
    r"python -m bench\.environments": ("tests/end_to_end/test_bench.py", "environments.main("),
    r"python -m bench\.data.*": ("tests/end_to_end/test_bench.py", "bench.data"),
    r"python -m bench\.tokenize": ("tests/end_to_end/test_bench.py", '"bench.tokenize"'),
    r"python -m bench\.near": ("tests/end_to_end/test_bench.py", '"bench.near"'),
    r"python -m bench\.train .*": ("tests/end_to_end/test_bench.py", "train.main("),
    r"python -m bench\.generate .*": ("tests/end_to_end/test_bench.py", '"bench.generate"'),
    r"python -m bench\.aa_test": ("tests/compare/test_verdicts.py", "bench.aa_test"),
}
# Commands that no test runs: pattern → why not.
EXPLAINED = {
    r"make (repro|test|check|docs)": ".ci/run and the workflow run them; they take minutes, and install packages",
    r"\.ci/run": "the workflow runs it; it runs these tests",
    r"source \.venv/bin/activate": "changes the shell alone",
    r"export .*": "changes the shell alone; tests/end_to_end/test_compute.py sets these variables",
    r"pip install [\w -]+": "network",
    r"dvc queue (start -j 2|status)": "minutes: trains what is queued; that it can be queued is composed here",
    r"dvc exp apply NAME": "DVC's own; it needs an experiment",
    r"dvc checkout": "DVC's own",
    r"git restore metrics": "git's own",
    r"(rm|cp) -r .*tests/support/shipped/.*": "changes the tests' own copies of conf/; .ci/run compares them",
    r"dvc repro tokenize fetch@model": "the stages' names are checked below",
    r"python -m pytest .*": "runs tests; the paths are checked below",
}


class Command(NamedTuple):
    page: str
    text: str  # one line, without comments

    @property
    def words(self) -> list[str]:
        """The command's words, without assignments such as OMP_NUM_THREADS=1 before it."""
        words = shlex.split(self.text)
        while len(words) > 1 and ASSIGNMENT.fullmatch(words[0]):
            words.pop(0)
        return words


def commands_of(markdown: str, page: str = "") -> list[Command]:
    """The commands of a page's bash and console blocks."""
    found = []
    for kind, body in FENCE.findall(markdown):
        if kind == "console":
            lines = re.findall(r"^\$ (.*)$", body, re.MULTILINE)
        elif kind in ("bash", "sh", "shell"):
            lines = body.replace("\\\n", " ").splitlines()
        else:
            continue
        words = [shlex.split(line, comments=True) for line in lines]
        found += [Command(page, shlex.join(line)) for line in words if line]
    return found


def inline_code(markdown: str) -> list[str]:
    """The code spans of a page's prose."""
    prose = re.sub(r"^```.*?^```$", "", markdown, flags=re.MULTILINE | re.DOTALL)
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]


def overrides_of(words: list[str]) -> list[str]:
    """The Hydra overrides of a command: after -S, or those of python -m pipeline.compose."""
    if words[:1] == ["dvc"] or words[:1] == ["-S"]:
        return [value for flag, value in pairwise(words) if flag == "-S"]
    return [word for word in words[3:] if not word.startswith(("--", "hydra."))]


EXPERIMENTS_PAGE = (ROOT / "docs/experiments.md").read_text(encoding="utf-8")
COMMANDS = [each for page in PAGES for each in commands_of(page.read_text(encoding="utf-8"), page.name)]
TEXTS = sorted({" ".join(each.words) for each in COMMANDS})
INLINE = sorted({code for page in PAGES for code in inline_code(page.read_text(encoding="utf-8"))})
EXPERIMENTS = sorted(
    {
        each.text: overrides_of(each.words)
        for each in COMMANDS
        if re.match(r"dvc exp run |python -m pipeline\.compose \w", " ".join(each.words)) and "oops" not in each.text
    }.items()
)
HANDLED = {  # pattern → the test of this file that runs the command
    r"dvc exp run .*|python -m pipeline\.compose \w.*": "test_experiments_compose",
    r"dvc metrics show": "test_metrics_show_prints_the_documented_metrics",
    r"dvc exp show --only-changed .*": "test_exp_show_prints_the_documented_columns_of_what_differs",
    r"dvc exp show --drop .*": "test_exp_show_prints_the_chosen_columns",
    r"python -m pipeline\.schedule .*": "test_schedules_are_plotted",
}


def test_the_collection_knows_comments_continuations_and_prompts() -> None:
    page = "```bash\nmake a  # b\nX=1 dvc c \\\n  'd e'\n\n# f\n```\n```console\n$ dvc g\nh\n```\n```python\ni\n```\n"
    assert [each.text for each in commands_of(page)] == ["make a", "X=1 dvc c 'd e'", "dvc g"]
    assert commands_of(page)[1].words == ["dvc", "c", "d e"]


@pytest.mark.parametrize("text", TEXTS)
def test_every_command_is_run_or_explained(text: str) -> None:
    patterns = [*HANDLED, *RUN_ELSEWHERE, *EXPLAINED]
    assert any(re.fullmatch(pattern, text) for pattern in patterns), f"{text}: run it here, or say who does or why not"


@pytest.mark.parametrize("pattern", [*HANDLED, *RUN_ELSEWHERE, *EXPLAINED])
def test_every_entry_of_the_lists_is_of_a_command(pattern: str) -> None:
    assert any(re.fullmatch(pattern, text) for text in TEXTS) or pattern == r"\.ci/run", "no page has this command"
    if pattern in RUN_ELSEWHERE:
        path, content = RUN_ELSEWHERE[pattern]
        assert content in (ROOT / path).read_text(encoding="utf-8")


@pytest.mark.parametrize("text", [text for text in TEXTS if " -m " in text or text.startswith(("make", "dvc repro"))])
def test_modules_options_targets_and_paths_exist(text: str) -> None:
    words = text.split()
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    elif words[0] == "dvc":
        assert {word.split("@")[0] for word in words[2:]} <= STAGES
    elif words[2] == "pytest":
        assert all((ROOT / word).exists() for word in words if "/" in word)
    else:
        require_module(words)


def require_module(words: list[str]) -> None:
    """Fail unless `python -m MODULE --option …` names a module of the project, and options that its source names."""
    spec = find_spec(words[2])
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent
    files = folder.glob("*.py") if spec.submodule_search_locations else [Path(spec.origin)]
    source = "".join(path.read_text(encoding="utf-8") for path in files)
    options = [word for word in words[3:] if word.startswith("--")]
    assert [option for option in options if f'"{option}"' not in source] == []


@pytest.mark.parametrize("code", [code for code in INLINE if code.startswith("python -m ")])
def test_modules_named_in_prose_exist(code: str) -> None:
    if code not in PLACEHOLDERS:
        require_module(re.split(r"\s*[(,;]", code)[0].split())


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the files that the commands name: a table, rows of the medical kind, a model of 1024 positions."""
    folder = tmp_path_factory.mktemp("docs")
    shutil.copytree(SHIPPED, folder, dirs_exist_ok=True)
    for name in ("data/knowledge", "models/nano"):
        shutil.copytree(ROOT / name, folder / name)
    (folder / "helpdesk.csv").write_text("Title,Reply\nWhy?,So.\n")
    (folder / "export.csv").write_text("question;answer\nWhy?;So.\n")
    (folder / "visits.csv").write_text("question,answer,patient_id\nWhy?,So.,1\n")
    (folder / "faq").mkdir()
    for name in ("train", "test"):
        (folder / f"faq/{name}.csv").write_text("question,answer\nWhy?,So.\n")
    (folder / "Über Fragen").mkdir()
    (folder / "Über Fragen/x.jsonl").write_text('{"question": "Why?", "answer": "So."}\n')
    (folder / "rows.jsonl").write_text(json.dumps({"Description": "Why?", "Patient": "Hm.", "Doctor": "So."}) + "\n")
    for name in ("path/to/model", "FOLDER"):
        shutil.copytree(ROOT / "models/nano", folder / name)
        config = json.loads((folder / name / "config.json").read_text())
        (folder / name / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 1024}))
    (folder / "data/tokenized").mkdir()
    pq.write_table(pa.table({"length": [1] * 300}), folder / "data/tokenized/train.parquet")
    return folder


@pytest.fixture
def in_project(users: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory is such a project, on a machine with the GPUs that `compute` wants."""
    monkeypatch.chdir(users)
    monkeypatch.setattr("pipeline.compose.preflight.compute_errors", lambda values: [])
    return users


@pytest.mark.parametrize(("text", "overrides"), EXPERIMENTS, ids=[text for text, _ in EXPERIMENTS])
def test_experiments_compose(in_project: Path, text: str, overrides: list[str]) -> None:
    for combination in get_hydra_sweeps({"params.yaml": overrides}):
        compose_params(*combination["params.yaml"])
    words = shlex.split(text)
    if words[0] == "dvc":
        values = {"-S", "-n"}
        rest = [word for flag, word in pairwise(words[2:]) if flag not in values]
        assert {word for word in rest if not word.startswith("-")} <= STAGES


@pytest.mark.parametrize("code", [code for code in INLINE if code.startswith("-S ") and "…" not in code])
def test_overrides_named_in_prose_compose(in_project: Path, code: str) -> None:
    compose_params(*overrides_of(shlex.split(code)))


def test_the_documented_errors_are_those_of_composition(in_project: Path) -> None:
    (command,) = {each.text for each in COMMANDS if "oops" in each.text}
    with pytest.raises(ConfigError) as caught:
        compose_params(*overrides_of(shlex.split(command)))
    assert str(caught.value) in EXPERIMENTS_PAGE


@pytest.fixture(scope="module")
def finished(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a repository in which the pipeline has run."""
    return Path(shutil.copytree(repository, tmp_path_factory.mktemp("finished") / "project", symlinks=True))


def documented_columns() -> list[str]:
    """The metrics in the table of docs/experiments.md, in its order."""
    table = re.search(r"^\| metric \|.*?\n\n", EXPERIMENTS_PAGE, re.MULTILINE | re.DOTALL)
    assert table
    return [name for line in table[0].strip().splitlines()[2:] for name in re.findall(r"`([^`]+)`", line.split("|")[1])]


def columns_shown(folder: Path, pattern: str) -> list[str]:
    """The columns that the page's `dvc exp show` command prints, of the command that matches a pattern."""
    (command,) = (each for each in commands_of(EXPERIMENTS_PAGE) if re.match(pattern, each.text))
    done = run_in(folder, *command.words, "--csv")
    assert done.returncode == 0, done.stderr
    return [name for name in done.stdout.splitlines()[0].split(",") if name not in CSV_ONLY]


def test_metrics_show_prints_the_documented_metrics(finished: Path) -> None:
    done = run_in(finished, "dvc", "metrics", "show", "--json")
    assert done.returncode == 0, done.stderr
    files = json.loads(done.stdout)[""]["data"]
    assert [name for file in files.values() for name in flatten(file["data"])] == documented_columns()
    assert len(documented_columns()) <= 25


def test_exp_show_prints_the_chosen_columns(finished: Path) -> None:
    assert columns_shown(finished, "dvc exp show --drop") == ["Experiment", "f1.base", "f1", "train.seed"]


def test_exp_show_prints_the_documented_columns_of_what_differs(finished: Path) -> None:
    """After a change of everything that the page's experiments change, by the workspace and its commit."""
    params = yaml.safe_load((finished / "params.yaml").read_text())
    params["train"] |= {"seed": 5, "learning_rate": 0.5}
    (finished / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    for name in ("train", "runtime/train", "evaluate/finetuned"):
        path = finished / f"metrics/{name}.json"
        path.write_text(re.sub(r"\d+\.\d+", "7.5", path.read_text()))
    shown = re.search(r"^  (Experiment .*)$", EXPERIMENTS_PAGE, re.MULTILINE)
    assert shown
    # DVC's CSV leaves out Experiment, too: the names are in its column rev.
    assert ["Experiment", *columns_shown(finished, "dvc exp show --only-changed")] == shown[1].split()


@pytest.mark.parametrize("text", [text for text in TEXTS if "pipeline.schedule" in text])
def test_schedules_are_plotted(
    in_project: Path, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["schedule", *(word for word in text.split()[3:] if word != "NAME")])
    schedule.main()
    assert "→ metrics/schedule.svg" in capsys.readouterr().out


@pytest.mark.slow
def test_the_python_example_answers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    page = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    (code,) = (body for kind, body in FENCE.findall(page) if kind == "python")
    exec(code.replace("models/finetuned", "models/nano"), {})
    assert capsys.readouterr().out.strip()
