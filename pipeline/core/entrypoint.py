"""The edge of every stage: parameters in, checked; faults out as one message; time and memory beside the metrics."""

import functools
import logging
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.config.params import Params
from pipeline.config.validation import validate_params
from pipeline.core.distributed import exit_with_error, is_distributed, is_main_node
from pipeline.core.files import write_json
from pipeline.core.paths import CONF, PARAMS, RUNTIME
from pipeline.errors import ConfigError, PipelineError

log = logging.getLogger(__name__)

RESTORE_HINT = (
    "DVC removes a stage's outputs before it runs it. To have the last good ones back:\n"
    "  dvc checkout\n"
    "  git restore metrics"
)


def stage(name: str, instances: tuple[str, ...] = ()) -> Callable[[Callable[..., None]], Callable[[], None]]:
    """Make a function of the checked parameters (and of the instance, if there are any) the entry of a stage.

    The entry reads the params.yaml of the folder it is run in; Hydra's overrides on the command line hold for one run.
    """

    def decorate(run: Callable[..., None]) -> Callable[[], None]:
        def job(cfg: DictConfig) -> None:
            with report_errors(name):
                values = _resolved(cfg)
                instance = _instance(name, values.pop("instance"), instances)
                log.debug(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores; parameters: {values}")
                _timed(run, validate_params(values), instance, RUNTIME / name)

        @functools.wraps(run)
        def main() -> None:
            with report_errors(name):
                require_params()
            conf = str(CONF.resolve())
            hydra.main(version_base="1.3", config_path=conf, config_name="stage")(job)()

        return main

    return decorate


@contextmanager
def report_errors(name: str) -> Iterator[None]:
    """End the process with exit code 1 and one message for what the user can mend; let defects of ours be seen.

    One of several processes leaves its message to who started them.
    """
    try:
        yield
    except PipelineError as error:
        message = str(error)
    except FileNotFoundError as error:
        message = f"{error.filename or error} is not there; an earlier stage writes it: dvc repro"
    except OSError as error:
        if error.strerror is None:
            raise
        named = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        message = (
            f"{named}. See that there is room on the disk and that you may read and write there, then run it again"
        )
    except KeyboardInterrupt:
        message = "interrupted"
    except Exception:
        exit_with_error(traceback.format_exc(), is_defect=True)
        raise
    else:
        return
    exit_with_error(message, is_defect=False)
    hint = f"\n\n{RESTORE_HINT}" if "DVC_STAGE" in os.environ else ""
    sys.stdout.flush()
    sys.stderr.write(f"\n{name} stopped: {message.rstrip()}{hint}\n")
    sys.exit(1)


def require_params() -> None:
    """Raise ConfigError unless this is the project's root with a params.yaml that is YAML."""
    if not (CONF / "stage.yaml").exists():
        raise ConfigError("conf/stage.yaml is not here: run the stages in the project's root")
    if not PARAMS.exists():
        raise ConfigError("params.yaml is missing; compose it from conf/: make params")
    try:
        values = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"params.yaml is not YAML; compose it from conf/: make params\n{error}") from None
    if not isinstance(values, dict):
        raise ConfigError("params.yaml holds no sections; compose it from conf/: make params")


def _resolved(cfg: DictConfig) -> dict[str, Any]:
    try:
        return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {error}; compose params.yaml anew: make params") from None


def _instance(name: str, given: str | None, instances: tuple[str, ...]) -> str | None:
    if instances and given not in instances:
        choices = " or ".join(f"instance={each}" for each in instances)
        raise ConfigError(f"python -m pipeline.{name} needs {choices}" + (f", not {given}" if given else ""))
    return given if instances else None


def _timed(run: Callable[..., None], params: Params, instance: str | None, runtime: Path) -> None:
    """Run the stage and write its seconds and its peak memory, that of the largest of its processes."""
    started = time.perf_counter()
    if instance:
        run(params, instance)
        runtime = runtime / instance
    else:
        run(params)
    if is_distributed() or not is_main_node(params.compute):
        return  # who started the processes measures them
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    peak = max(usage.ru_maxrss for usage in usages) * (1 if sys.platform == "darwin" else 1024)
    seconds = round(time.perf_counter() - started, 2)
    write_json(runtime.with_suffix(".json"), {"seconds": seconds, "peak_memory_gb": round(peak / 1e9, 3)})
    log.debug(f"{seconds} s, at most {peak / 1e9:.2f} GB of memory")
