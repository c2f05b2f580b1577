"""The entry point of every stage: it checks the parameters, reports errors, and records run time and peak memory.

params.yaml and Hydra's overrides on the command line → the stage's function; metrics/runtime/STAGE[/INSTANCE].json.
"""

import functools
import logging
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import hydra
import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.config.params import Params
from pipeline.config.validation import validate_params
from pipeline.core.console import ignore_closed_pipe, printable
from pipeline.core.distributed import exit_with_error, is_distributed, is_main_node
from pipeline.core.files import write_json
from pipeline.core.interruption import SignalReceived
from pipeline.core.orphans import watch_parents
from pipeline.core.paths import CONF, PARAMS, RUNTIME
from pipeline.core.recorded_outputs import require_recorded_inputs
from pipeline.errors import ConfigError, PipelineError

log = logging.getLogger(__name__)

RESTORE_HINT = (
    "DVC removes a stage's outputs before it runs the stage. To restore the last good ones:\n"
    "  dvc checkout\n"
    "  git restore metrics"
)


def stage(name: str, instances: tuple[str, ...] = ()) -> Callable[[Callable[..., None]], Callable[[], None]]:
    """Decorate a function of the checked parameters as the `main` of a stage.

    `main` composes params.yaml in the working directory with the overrides on the command line, which hold for one run.
    A stage that dvc.yaml runs several times has `instances`; its function takes the chosen one as a second argument.
    """

    def decorate(run: Callable[..., None]) -> Callable[[], None]:
        def run_with(cfg: DictConfig) -> None:
            with report_errors(name):
                values = _resolve(cfg)
                instance = _require_instance(name, values.pop("instance"), instances)
                log.debug(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores; parameters: {values}")
                params = validate_params(values)
                if not is_distributed():  # the launcher has checked them
                    require_recorded_inputs()
                _run_and_measure(run, params, name, instance)

        @functools.wraps(run)
        def main() -> None:
            with report_errors(name):
                watch_parents()
                require_params()
            conf = str(CONF.resolve())
            hydra.main(version_base="1.3", config_path=conf, config_name="stage")(run_with)()

        return main

    return decorate


@contextmanager
def report_errors(name: str) -> Iterator[None]:
    """Turn errors that a user can fix into one message and exit code 1; defects keep their traceback.

    In distributed training the message goes to the launcher instead of standard error. `name` begins the message.
    """
    try:
        with ignore_closed_pipe():
            yield
    except PipelineError as error:
        message = str(error)
    except FileNotFoundError as error:
        message = f"{error.filename or error} does not exist; an earlier stage writes it: dvc repro"
    except OSError as error:
        if error.strerror is None:
            raise
        problem = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        message = f"{problem}. Check disk space and permissions, then run it again"
    except KeyboardInterrupt as error:
        message = str(error) if isinstance(error, SignalReceived) else "interrupted"
    except Exception:
        trace = traceback.format_exc()
        exit_with_error(trace, is_defect=True)
        if printable(trace) == trace:
            raise
        message = f"a defect of this project\n{trace}"  # Python itself would print the control characters of the data
    else:
        return
    exit_with_error(message, is_defect=False)
    hint = f"\n\n{RESTORE_HINT}" if "DVC_STAGE" in os.environ else ""
    sys.stdout.flush()
    sys.stderr.write(printable(f"\n{name} stopped: {message.rstrip()}{hint}\n"))
    sys.exit(1)


def require_params() -> None:
    """Raise ConfigError unless the working directory is the project's root and params.yaml is a YAML mapping."""
    if not (CONF / "stage.yaml").exists():
        raise ConfigError("conf/stage.yaml is missing; run this command in the project's root")
    if not PARAMS.exists():
        raise ConfigError("params.yaml is missing; compose it from conf/: make params")
    try:
        values = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"params.yaml is not YAML; compose it from conf/: make params\n{error}") from None
    if not isinstance(values, dict):
        raise ConfigError("params.yaml has no sections; compose it from conf/: make params")


def _resolve(cfg: DictConfig) -> dict[str, Any]:
    try:
        values: Any = OmegaConf.to_container(cfg, resolve=True)
        return dict(values)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {error}; compose params.yaml again: make params") from None


def _require_instance(name: str, instance: str | None, instances: tuple[str, ...]) -> str | None:
    if instances and instance not in instances:
        choices = " or ".join(f"instance={choice}" for choice in instances)
        raise ConfigError(f"python -m pipeline.{name} needs {choices}" + (f", not {instance}" if instance else ""))
    return instance if instances else None


def _run_and_measure(run: Callable[..., None], params: Params, name: str, instance: str | None) -> None:
    """Run the stage; write its seconds and the peak memory of its largest process to metrics/runtime/."""
    started = time.perf_counter()
    if instance:
        run(params, instance)
    else:
        run(params)
    if is_distributed() or not is_main_node(params.compute):
        return  # the launcher on the main node measures
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    peak = max(usage.ru_maxrss for usage in usages) * (1 if sys.platform == "darwin" else 1024)
    seconds = round(time.perf_counter() - started, 2)
    # The stage's name is a key, because DVC's tables show a metric's key without its file.
    measured = {"seconds": {name: seconds}, "peak_memory_gb": {name: round(peak / 1e9, 3)}}
    write_json(RUNTIME / name / f"{instance}.json" if instance else RUNTIME / f"{name}.json", measured)
    log.debug(f"{seconds} s, at most {peak / 1e9:.2f} GB of memory")
