"""Composes the text of params.yaml from conf/, byte for byte as `dvc exp run` does, and checks the parameters."""

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
    """Register the two interpolations that conf/ uses, ${checked:…} and ${sha256:…}, with OmegaConf.

    hydra_plugins/checked_params.py explains them.
    """
    OmegaConf.register_new_resolver("checked", _checked, replace=True)
    OmegaConf.register_new_resolver("sha256", _sha256, replace=True)


def _checked(version: int, *, _root_: DictConfig) -> int:
    require_valid({**without_version(_root_), "version": version})
    return version


def without_version(config: DictConfig) -> dict[str, Any]:
    """The configuration's values, interpolations resolved, except `version`: resolving it checks the others."""
    keys = [str(key) for key in config if key != "version"]
    values: Any = OmegaConf.to_container(OmegaConf.masked_copy(config, keys), resolve=True)
    return dict(values)


def require_valid(values: dict[str, Any]) -> None:
    """Check the parameters by the schema, their local sources, and whether this machine can run them.

    Raises ConfigError with every error, one a line.
    """
    errors = param_errors(values) + source_errors(values)
    errors += training_errors(values) + compute_errors(values) + evaluation_errors(values)
    if errors:
        raise ConfigError(format_errors(errors))


def _sha256(path: str | None) -> str | None:
    """The checksum of a local file, folder or glob; None for an address, and if nothing exists (the check reports that)."""
    if not isinstance(path, str) or "://" in path:
        return None
    _, matching = files.local_files(path)
    if not matching and not files.local_path(path).is_dir():
        return None
    return _cached_sha256(path, tuple((file, file.stat().st_mtime_ns) for file in matching))


@lru_cache
def _cached_sha256(path: str, modified: tuple[tuple[Path, int], ...]) -> str:
    return files.sha256_of_source(path)


def compose_params(*overrides: str) -> str:
    """The text of params.yaml, composed from conf/ and Hydra's overrides. Raises ConfigError with every error."""
    from dvc.utils.hydra import compose_and_dump
    from hydra.errors import HydraException

    register_resolvers()
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "params.yaml"
        try:
            compose_and_dump(target, str(CONF.resolve()), None, "config", ".", list(overrides))
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(_message_of(error)) from None
        except ValueError as error:  # from Hydra, for train=null: the value of a group is the name of an option
            raise ConfigError(f"{' '.join(overrides)}: {error}; expected KEY=VALUE or GROUP=OPTION") from None
        return target.read_text(encoding="utf-8")


def _message_of(error: BaseException) -> str:
    """The message of the ConfigError that OmegaConf has wrapped, or else Hydra's own message."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConfigError):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    return str(error)


def parse_params(text: str) -> dict[str, Any]:
    """The values of a params.yaml as the stages read them. PyYAML would read 1e-05 as text, OmegaConf reads a number."""
    values: Any = OmegaConf.to_container(OmegaConf.create(text))
    return dict(values)


def load_params() -> dict[str, Any]:
    """The values of params.yaml in the working directory. Raises ConfigError if it is missing or not valid."""
    require_params()
    values = parse_params(PARAMS.read_text(encoding="utf-8"))
    require_valid(values)
    return values
