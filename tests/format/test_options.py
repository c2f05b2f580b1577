"""The option of format.near: data options choose whether answers count, and whatever a user sets wins."""

import pytest
from support.project import SHIPPED

from pipeline.compose.composition import compose_params, parse_params

FILE = ["data=file", "data.path=rows.csv"]


@pytest.mark.parametrize(
    ("overrides", "fields"),
    [
        ([], ["question", "answer"]),
        (["data=medical"], ["question", "answer"]),
        (FILE, ["question"]),
        (["data=hub", "data.name=owner/rows"], ["question"]),
        ([*FILE, "format.near.fields=[question, answer]"], ["question", "answer"]),
        (["format/near=question"], ["question"]),
    ],
)
def test_data_options_choose_the_fields(
    overrides: list[str], fields: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(SHIPPED)
    monkeypatch.setattr("pipeline.compose.resolvers.require_valid", lambda values: None)
    near = parse_params(compose_params(*overrides))["format"]["near"]
    assert near.pop("fields") == fields
    assert near == {"enabled": True, "strategy": "cluster", "threshold": 0.7, "min_words": 8, "max_cluster_rows": None}
