"""The faults that a user can mend. The stages' edge turns each into one message, without a traceback."""


class PipelineError(Exception):
    """What is wrong, what was expected and what to do, in words for the user."""


class ConfigError(PipelineError):
    """The parameters are wrong, or contradict each other."""


class DataError(PipelineError):
    """A file or its rows are not what the stage needs."""


class ModelError(PipelineError):
    """A model or its tokenizer cannot be used, or training it went wrong."""
