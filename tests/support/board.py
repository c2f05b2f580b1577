"""A small project for leaderboard tests: real git and DVC, with stages that compute their answers from params.yaml."""

import json
import subprocess
from pathlib import Path
from typing import Any

import yaml
from support.project import run_in

PARAMS = {"train": {"seed": 0, "right": 12}, "evaluate": {"first": 0, "rows": 20}}
DVC_YAML = """
stages:
  train:
    cmd: python work.py train
    deps: [work.py]
    params: [train]
    outs: [models/finetuned]
  evaluate:
    matrix: {model: [finetuned]}
    cmd: python work.py evaluate
    deps: [work.py, models/finetuned]
    params: [evaluate]
    outs: ["data/predictions/${item.model}.jsonl"]
    metrics: ["metrics/evaluate/${item.model}.json": {cache: false}]
"""
# Of every 20 questions, `right` are answered correctly; the seed decides which ones.
WORK = """
import json, sys, yaml
params = yaml.safe_load(open("params.yaml"))
if sys.argv[1] == "train":
    json.dump(params["train"], open("models/finetuned", "w"))
else:
    train, evaluate = json.load(open("models/finetuned")), params["evaluate"]
    with open("data/predictions/finetuned.jsonl", "w") as file:
        for id in range(evaluate["first"], evaluate["first"] + evaluate["rows"]):
            correct = float((id * 7 + train["seed"] * 3) % 20 < train["right"])
            answer = f"it is fact number {id}" if correct else "no idea"
            scores = dict.fromkeys(("exact_match", "f1", "rouge1", "rouge2", "rougeL"), correct)
            row = {"id": id, "prompt": f"Which fact is {id}?", "reference": f"it is fact number {id}", "prediction": answer}
            print(json.dumps({**row, "new_tokens": 3, "finish_reason": "stop", **scores}), file=file)
    json.dump({"rows": evaluate["rows"], "loss": 0.5, "signature": {"bleu": "v1"}}, open("metrics/evaluate/finetuned.json", "w"))
"""
PREDICTIONS = "data/predictions/finetuned.jsonl"


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=tests", "-c", "user.email=tests@example.org")
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def dvc(folder: Path, *arguments: str) -> None:
    done = run_in(folder, "dvc", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def write_params(folder: Path, **changes: Any) -> None:
    """Write params.yaml with changes such as train_right=14."""
    sections = {name: dict(section) for name, section in PARAMS.items()}
    for key, value in changes.items():
        section, name = key.split("_", 1)
        sections[section][name] = value
    (folder / "params.yaml").write_text(yaml.safe_dump(sections, sort_keys=False))


def make_board(folder: Path) -> Path:
    """A repository with one run in two commits on main, the tag `first`, and the experiments more and seed-1."""
    folder.mkdir(exist_ok=True)
    for name in ("models", "data/predictions", "metrics/evaluate"):
        (folder / name).mkdir(parents=True)
    for name, text in (("dvc.yaml", DVC_YAML), ("work.py", WORK), (".gitignore", "/models\n/data\n__pycache__\n")):
        (folder / name).write_text(text)
    write_params(folder)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "config", "user.name", "tests")
    git(folder, "config", "user.email", "tests@example.org")
    dvc(folder, "init", "-q")
    dvc(folder, "repro", "-q")
    commit(folder, "first")
    git(folder, "tag", "first")
    for name, override in (("more", "train.right=18"), ("seed-1", "train.seed=1")):
        dvc(folder, "exp", "run", "-q", "-n", name, "-S", override)
        git(folder, "restore", ".")
    dvc(folder, "checkout", "-q")
    (folder / "README.md").write_text("A second commit.\n")
    commit(folder, "second")
    return folder


def commit(folder: Path, message: str) -> None:
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", message)


def commit_predictions(folder: Path, branch: str, rows: list[dict[str, Any]], **metrics: Any) -> None:
    """Commit `rows` as the predictions of a new branch, in git and DVC, and return to main. `metrics` are changes."""
    git(folder, "switch", "-q", "-c", branch)
    (folder / PREDICTIONS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "metrics/evaluate/finetuned.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "rows": len(rows), **metrics}))
    dvc(folder, "commit", "-q", "-f")
    commit(folder, branch)
    git(folder, "switch", "-q", "main")
    dvc(folder, "checkout", "-q")


def commit_details(folder: Path, branch: str, **metrics: Any) -> Path:
    """Commit the current predictions on a new branch whose metrics are in DVC's cache; return the path of the details."""
    git(folder, "switch", "-q", "-c", branch)
    outs = 'outs: ["data/predictions/${item.model}.jsonl"'
    graph = DVC_YAML.replace(outs, f'{outs}, "metrics/details/evaluate/${{item.model}}.json"')
    (folder / "dvc.yaml").write_text(graph)
    (folder / ".gitignore").write_text("/models\n/data\n/metrics/details\n__pycache__\n")
    details, headline = (folder / f"metrics/{name}/finetuned.json" for name in ("details/evaluate", "evaluate"))
    details.parent.mkdir(parents=True)
    details.write_text(json.dumps({**json.loads(headline.read_text()), **metrics}))
    headline.write_text(json.dumps({"loss": metrics["loss"]}))
    dvc(folder, "commit", "-q", "-f")
    commit(folder, branch)
    return details


def predictions(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / PREDICTIONS).read_text().splitlines()]
