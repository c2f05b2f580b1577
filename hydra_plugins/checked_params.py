"""Checks the parameters while they are composed, so that DVC refuses a bad experiment before it queues it.

DVC composes params.yaml from conf/ by Hydra and lets no code of ours look at the result. It does resolve
interpolations, though, and conf/ holds two of ours:

- `version: ${checked:1}` checks the whole configuration and lists all its faults;
- `sha256: ${sha256:${.path}}` makes the content of a local source part of the parameters.

Hydra imports every module of the package `hydra_plugins` that it finds; .dvc/config tells DVC where that is.
"""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from pipeline.compose.composition import register_resolvers

register_resolvers()


class CheckedParams(SearchPathPlugin):
    """Here so that Hydra counts the module as a plugin; the resolvers are registered by the import."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        assert OmegaConf.has_resolver("checked")
