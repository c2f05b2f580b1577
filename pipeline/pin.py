"""Pins what came from the hub: writes the commits that fetch resolved into conf/, in the place of branches and tags.

    python -m pipeline.pin

Reads params.yaml (what was asked for) and metrics/fetch/{data,model}.json (what came); changes conf/{data,model}/*.yaml.
"""

from pipeline.compose import yaml_files
from pipeline.compose.composition import parse_params
from pipeline.core.entrypoint import report_errors, require_params
from pipeline.core.files import read_json
from pipeline.core.paths import CONF, METRICS, PARAMS
from pipeline.errors import ConfigError


def pin() -> list[str]:
    """Pin both sections as far as they came from the hub; the files changed, each with its commit.

    ConfigError if there is nothing to pin, or if no file of conf/ names what was fetched.
    """
    require_params()
    values = parse_params(PARAMS.read_text(encoding="utf-8"))
    done = []
    for section in ("data", "model"):
        fetched = METRICS / "fetch" / f"{section}.json"
        came = read_json(fetched) if fetched.exists() else {}
        if values[section]["source"] == came.get("source") == "hub" and values[section]["name"] == came["name"]:
            done += _pin(section, came["name"], came["revision"])
    if not done:
        raise ConfigError(
            "nothing to pin: nothing that params.yaml names was fetched from the hub (dvc repro fetches it)"
        )
    return done


def _pin(section: str, name: str, commit: str) -> list[str]:
    found = {path: yaml_files.load_yaml(path) for path in sorted((CONF / section).glob("*.yaml"))}
    named = {path: config for path, config in found.items() if config.get("name") == name}
    if not named:
        raise ConfigError(f"no file of conf/{section}/ has name: {name}; write one, or set {section}.revision={commit}")
    for path, config in named.items():
        config["revision"] = commit
        yaml_files.dump_yaml(path, config)
    return [f"{path}: revision {commit}" for path in named]


def main() -> None:
    with report_errors("pin"):
        for line in pin():
            print(line)
        print("To have params.yaml say so too: make params")


if __name__ == "__main__":
    main()
