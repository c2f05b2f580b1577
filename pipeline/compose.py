"""Composes params.yaml from conf/, byte for byte as `dvc exp run` does.

    python -m pipeline.compose            write params.yaml
    python -m pipeline.compose --check    say which keys of params.yaml are wrong (exit code 1) or differ from conf/ (exit code 3)
    python -m pipeline.compose --adopt    write the differing values into conf/config.yaml

Edit conf/, not params.yaml: `dvc exp run` composes anew each time. After `dvc exp apply`, params.yaml rightly
differs; --adopt makes its values the new configuration.
"""

import argparse
import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline import files
from pipeline.conf import CONF
from pipeline.errors import ConfigError
from pipeline.faults import describe, faults_of
from pipeline.preflight import compute_faults, evaluation_faults, source_faults, training_faults
from pipeline.stage import faults_as_messages, require_params

PARAMS = Path("params.yaml")
ABSENT = "(absent)"
DIFFERS = 3
Leaves = dict[str, Any]


def register_resolvers() -> None:
    """Teach OmegaConf the two interpolations of conf/ (see hydra_plugins/checked_params.py)."""
    OmegaConf.register_new_resolver("checked", _checked, replace=True)
    OmegaConf.register_new_resolver("sha256", _sha256, replace=True)


def _checked(version: int, *, _root_: DictConfig) -> int:
    require_sound({**unversioned(_root_), "version": version})
    return version


def unversioned(config: DictConfig) -> dict[str, Any]:
    """The configuration's values, resolved, without `version`, whose resolution is the check."""
    others = [key for key in config if key != "version"]
    return OmegaConf.to_container(OmegaConf.masked_copy(config, others), resolve=True)  # type: ignore[return-value]


def require_sound(values: dict[str, Any]) -> None:
    """Raise ConfigError that lists every fault of the parameters, of the local sources and of the training they ask for."""
    machine = training_faults(values) + compute_faults(values) + evaluation_faults(values)
    faults = faults_of(values) + source_faults(values) + machine
    if faults:
        raise ConfigError(describe(faults))


def _sha256(path: str | None) -> str | None:
    """The content of a local file, folder or glob; null where there is none (the check then says so) and of addresses."""
    if not isinstance(path, str) or "://" in path:
        return None
    _, found = files.local_files(path)
    if not found and not files.local_path(path).is_dir():
        return None
    return _sha256_once(path, tuple((file, file.stat().st_mtime_ns) for file in found))


@lru_cache
def _sha256_once(path: str, modified: tuple[tuple[Path, int], ...]) -> str:
    return files.sha256_of(path)


def composed(*overrides: str) -> str:
    """The text of params.yaml as conf/ and the overrides make it; ConfigError with all faults if it has any."""
    from dvc.utils.hydra import compose_and_dump
    from hydra.errors import HydraException

    register_resolvers()
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "params.yaml"
        try:
            compose_and_dump(target, str(CONF.resolve()), None, "config", ".", list(overrides))
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(_innermost(error)) from None
        except ValueError as error:  # Hydra's, of train=null: a group takes the name of an option
            raise ConfigError(f"{' '.join(overrides)}: {error}; expected KEY=VALUE or GROUP=OPTION") from None
        return target.read_text(encoding="utf-8")


def _innermost(error: BaseException) -> str:
    """What our own check said, freed from what OmegaConf wraps around it; else what Hydra says."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConfigError):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    return str(error)


def leaves(values: Any, key: str = "") -> Leaves:
    """Dotted key → value, a list being a value.

    >>> leaves({"train": {"seed": 0, "epochs": 2}, "version": 1})
    {'train.seed': 0, 'train.epochs': 2, 'version': 1}
    """
    if not isinstance(values, dict) or not values:
        return {key: values}
    return {k: v for name, value in values.items() for k, v in leaves(value, f"{key}.{name}" if key else name).items()}


def differences(here: Leaves, there: Leaves) -> dict[str, tuple[Any, Any]]:
    """Key → (value here, value there) for the keys that differ."""
    keys = [*here, *(key for key in there if key not in here)]
    pairs = {key: (here.get(key, ABSENT), there.get(key, ABSENT)) for key in keys}
    return {key: (a, b) for key, (a, b) in pairs.items() if a != b or isinstance(a, bool) != isinstance(b, bool)}


def read(text: str) -> dict[str, Any]:
    """The values of a params.yaml as the stages see them (1e-05 is a number to OmegaConf, a text to PyYAML)."""
    return OmegaConf.to_container(OmegaConf.create(text))  # type: ignore[return-value]


def present() -> dict[str, Any]:
    """The values of the present params.yaml; ConfigError if it lacks or holds what is wrong."""
    require_params()
    values = read(PARAMS.read_text(encoding="utf-8"))
    require_sound(values)
    return values


def compare() -> int:
    """Say how params.yaml differs from conf/; the exit code."""
    differing = differences(leaves(present()), leaves(read(composed())))
    if not differing:
        print("params.yaml is what conf/ composes.")
        return 0
    print("params.yaml differs from what conf/ composes:")
    for key, (here, there) in differing.items():
        print(f"  {key}: {here} here, {there} by conf/")
    print("To have conf/ again: make params. To keep these values: python -m pipeline.compose --adopt")
    return DIFFERS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.compose", description="Compose params.yaml from conf/.")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--check", action="store_true", help="say which keys are wrong or differ from conf/")
    how.add_argument("--adopt", action="store_true", help="write the differing values into conf/config.yaml")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, such as train.epochs=2")
    arguments = parser.parse_args()
    with faults_as_messages("compose"):
        if arguments.check:
            sys.exit(compare())
        if arguments.adopt:
            from pipeline.adopt import adopt

            print(adopt())
            return
        text = composed(*arguments.overrides)
        with files.whole(PARAMS) as temporary:
            temporary.write_text(text, encoding="utf-8")
        print("params.yaml written.")


if __name__ == "__main__":
    main()
