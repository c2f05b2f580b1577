import pipeline.core.interruption  # noqa: F401  # first: the other imports take seconds
from pipeline.inspect.cli import main

if __name__ == "__main__":
    main()
