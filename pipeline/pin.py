"""Pins the dataset and model of the Hub: replaces branches and tags in conf/ with the commits that fetch resolved.

    python -m pipeline.pin

params.yaml (the names) and metrics/details/fetch/{data,model}.json (the commits) → `revision` in conf/{data,model}/*.yaml.
"""

import pipeline.core.interruption  # noqa: F401
from pipeline.compose import yaml_files
from pipeline.compose.composition import parse_params
from pipeline.core.entrypoint import report_errors, require_params
from pipeline.core.metrics import details_path, read_metrics
from pipeline.core.paths import CONF, PARAMS
from pipeline.errors import ConfigError


def pin_revisions() -> list[str]:
    """Pin the dataset and the model if they came from the Hub; return the changed files, each with its commit.

    Raises ConfigError if neither did, or if no file of conf/ has the name.
    """
    require_params()
    params = parse_params(PARAMS.read_text(encoding="utf-8"))
    pinned = []
    for section in ("data", "model"):
        fetched = read_metrics(f"fetch/{section}") if details_path(f"fetch/{section}").exists() else {}
        if params[section]["source"] == fetched.get("source") == "hub" and params[section]["name"] == fetched["name"]:
            pinned += _pin(section, fetched["name"], fetched["revision"])
    if not pinned:
        raise ConfigError(
            "nothing to pin: no dataset or model that params.yaml names was fetched from the Hugging Face Hub "
            "(dvc repro fetches it)"
        )
    return pinned


def _pin(section: str, name: str, commit: str) -> list[str]:
    options = {path: yaml_files.load_yaml(path) for path in sorted((CONF / section).glob("*.yaml"))}
    matching = {path: option for path, option in options.items() if option.get("name") == name}
    if not matching:
        raise ConfigError(f"no file of conf/{section}/ has name: {name}; write one, or set {section}.revision={commit}")
    for path, option in matching.items():
        option["revision"] = commit
        yaml_files.dump_yaml(path, option)
    return [f"{path}: revision {commit}" for path in matching]


def main() -> None:
    with report_errors("pin"):
        for line in pin_revisions():
            print(line)
        print("To update params.yaml: make params")


if __name__ == "__main__":
    main()
