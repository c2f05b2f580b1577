"""Checks the parameters while they are composed, so that DVC refuses an invalid experiment before it queues it.

DVC composes params.yaml from conf/ by Hydra and has no hook for a check of the result. It does resolve interpolations,
though, and conf/ uses two that this module registers:

- `version: ${checked:1}` checks the whole configuration and lists all of its errors;
- `sha256: ${sha256:${.path}}` makes the content of a local source part of the parameters.

Hydra imports every module of the package `hydra_plugins` that it finds; .dvc/config sets the folder to search.
"""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from pipeline.compose.resolvers import register_resolvers

register_resolvers()


class CheckedParams(SearchPathPlugin):
    """Makes Hydra accept the module as a plugin; importing it registers the interpolations."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        assert OmegaConf.has_resolver("checked")
