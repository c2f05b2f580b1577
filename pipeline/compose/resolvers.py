"""The two interpolations of conf/: ${checked:…} checks the parameters, ${sha256:…} is the checksum of a local source.

hydra_plugins/checked_params.py registers them with Hydra, so that `dvc exp run -S` checks what it composes.
"""

import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from pipeline.compose.experiments import notify_of_other_sources, require_usable_folder
from pipeline.compose.preflight import require_valid
from pipeline.core import files


def register_resolvers() -> None:
    """Register the two interpolations that conf/ uses, ${checked:…} and ${sha256:…}, with OmegaConf.

    hydra_plugins/checked_params.py explains them.
    """
    OmegaConf.register_new_resolver("checked", _checked, replace=True)
    OmegaConf.register_new_resolver("sha256", _sha256, replace=True)


def _checked(version: int, *, _root_: DictConfig) -> int:
    values = {**without_version(_root_), "version": version}
    require_usable_folder(sys.argv, Path.cwd())
    require_valid(values)
    notify_of_other_sources(values)
    return version


def without_version(config: DictConfig) -> dict[str, Any]:
    """The configuration's values, interpolations resolved, except `version`: resolving it checks the others."""
    keys = [str(key) for key in config if key != "version"]
    values: Any = OmegaConf.to_container(OmegaConf.masked_copy(config, keys), resolve=True)
    return dict(values)


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
