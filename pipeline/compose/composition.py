"""Composes params.yaml from conf/, byte for byte as `dvc exp run` does, and checks it."""

import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.compose.preflight import compute_errors, evaluation_errors, source_errors, training_errors
from pipeline.config.validation import format_errors, param_errors
from pipeline.core import files
from pipeline.core.entrypoint import require_params
from pipeline.core.paths import CONF, PARAMS
from pipeline.errors import ConfigError


def register_resolvers() -> None:
    """Teach OmegaConf the two interpolations of conf/ (see hydra_plugins/checked_params.py)."""
    OmegaConf.register_new_resolver("checked", _checked, replace=True)
    OmegaConf.register_new_resolver("sha256", _sha256, replace=True)


def _checked(version: int, *, _root_: DictConfig) -> int:
    require_valid({**without_version(_root_), "version": version})
    return version


def without_version(config: DictConfig) -> dict[str, Any]:
    """The configuration's values, resolved, without `version`, whose resolution is the check."""
    others = [key for key in config if key != "version"]
    return OmegaConf.to_container(OmegaConf.masked_copy(config, others), resolve=True)  # type: ignore[return-value]


def require_valid(values: dict[str, Any]) -> None:
    """Raise ConfigError that lists every fault of the parameters, of the local sources and of the training they ask for."""
    machine = training_errors(values) + compute_errors(values) + evaluation_errors(values)
    faults = param_errors(values) + source_errors(values) + machine
    if faults:
        raise ConfigError(format_errors(faults))


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
    return files.sha256_of_source(path)


def compose_params(*overrides: str) -> str:
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


def parse_params(text: str) -> dict[str, Any]:
    """The values of a params.yaml as the stages see them (1e-05 is a number to OmegaConf, a text to PyYAML)."""
    return OmegaConf.to_container(OmegaConf.create(text))  # type: ignore[return-value]


def current_params() -> dict[str, Any]:
    """The values of the present params.yaml; ConfigError if it lacks or holds what is wrong."""
    require_params()
    values = parse_params(PARAMS.read_text(encoding="utf-8"))
    require_valid(values)
    return values
