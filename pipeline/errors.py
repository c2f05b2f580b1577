"""The errors that a user can fix. `pipeline.core.entrypoint.report_errors` prints each as one message, without a traceback.

    PipelineError        its message names the problem, what was expected and what to do
    ├── ConfigError      a parameter is unknown, missing, out of range or contradicts another or this machine
    ├── DataError        a file is missing, damaged or unreadable, or its rows do not fit the stage
    └── ModelError       a model or tokenizer cannot be loaded or used, or its training failed

Any other exception is a defect of this project and keeps its traceback.
"""

from pipeline.core.console import printable


class PipelineError(Exception):
    """Base class. The message is for the user: what is wrong, what was expected, what to do.

    Its text is printable, because it may quote the data, and DVC prints the errors of the configuration.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class ConfigError(PipelineError):
    """A parameter is unknown, missing, out of range or contradicts another or this machine."""


class DataError(PipelineError):
    """A file is missing, damaged or unreadable, or its rows do not fit the stage."""


class ModelError(PipelineError):
    """A model or tokenizer cannot be loaded or used, or its training failed."""
