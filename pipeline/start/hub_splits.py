"""Which configuration and split of a dataset on the Hub to read, where it has several."""

import os
from typing import Any

from pipeline.errors import DataError
from pipeline.start.questions import Questions


def choose_split(name: str, revision: str, questions: Questions) -> dict[str, Any]:
    """The keys of the data section that select the rows: config, split and test_split. Raises DataError."""
    import datasets

    from pipeline.fetch import hub

    folder = os.fspath(hub.fetch_snapshot(name, revision, "dataset"))
    try:
        configs = datasets.get_dataset_config_names(folder)
        config = configs[0] if len(configs) == 1 else _choose_config(configs, questions)
        splits = [str(split) for split in datasets.get_dataset_split_names(folder, config)]
    except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"{name}: no rows that can be read ({error})") from None
    split = "train" if "train" in splits else splits[0]
    if split not in ("train",) and len(splits) > 1:
        split = splits[questions.choose("Which split has the rows to train on?", splits)]
    changes: dict[str, Any] = {"config": config if len(configs) > 1 else None, "split": split}
    if "test" in splits and split != "test":
        is_used = questions.confirm("Use the dataset's own test split as the test set?", default=False)
        changes["test_split"] = "test" if is_used else None
        if not is_used and not questions.is_interactive:
            print("The dataset has a test split. To use it as the test set, set test_split: test in the data option")
    return changes


def _choose_config(configs: list[str], questions: Questions) -> str:
    default = configs.index("default") if "default" in configs else 0
    return configs[questions.choose("The dataset has several configurations.", configs, default)]
