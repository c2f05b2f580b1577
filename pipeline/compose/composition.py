"""Composes the text of params.yaml from conf/, byte for byte as `dvc exp run` does."""

import tempfile
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.compose.preflight import require_valid
from pipeline.compose.quoting import override_error
from pipeline.compose.resolvers import register_resolvers, without_version
from pipeline.config.addresses import display_text
from pipeline.core.entrypoint import require_params
from pipeline.core.paths import CONF, PARAMS
from pipeline.errors import ConfigError


def compose_params(*overrides: str) -> str:
    """The text of params.yaml, composed from conf/ and Hydra's overrides. Raises ConfigError with every error."""
    from dvc.utils.hydra import compose_and_dump
    from hydra.errors import HydraException

    register_resolvers()
    if errors := list(filter(None, map(override_error, overrides))):
        raise ConfigError("\n".join(errors))
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "params.yaml"
        try:
            compose_and_dump(target, str(CONF.resolve()), None, "config", ".", list(overrides))
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(display_text(_message_of(error))) from None
        except ValueError as error:  # from Hydra, for train=null: the value of a group is the name of an option
            raise ConfigError(
                display_text(f"{' '.join(overrides)}: {error}; expected KEY=VALUE or GROUP=OPTION")
            ) from None
        return target.read_text(encoding="utf-8")


def compose_unresolved(*overrides: str) -> DictConfig:
    """The composed conf/ with interpolations unresolved, hence unchecked: data=file alone has no path and is not valid.

    Raises ConfigError with Hydra's message if conf/ does not compose.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException

    register_resolvers()
    try:
        with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
            return compose("config", list(overrides))
    except HydraException as error:
        raise ConfigError(f"conf/ does not compose: {error}") from None


def resolve_params(config: DictConfig) -> dict[str, Any]:
    """The values of a composed configuration with its interpolations resolved; they are not checked."""
    return {**without_version(config), "version": 1}


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
