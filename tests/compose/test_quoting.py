"""Values in Hydra's grammar: what is written parses to the same value, and an override that does not parse is corrected."""

import shlex
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from pipeline.compose.composition import compose_params
from pipeline.compose.quoting import correct_override, override_error, quote_value, shell_quote
from pipeline.errors import ConfigError

PARSER = OverridesParser.create()
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12) | st.text(
    "ab'\"\\ ,={}[]():#ü*\n\t$", max_size=12
)


def parse(override: str) -> Any:
    parsed = PARSER.parse_override(override)
    assert not parsed.is_sweep_override()
    return parsed.value()


@given(TEXTS)
def test_any_text_is_written_as_a_value_that_parses_back(text: str) -> None:
    override = f"data.path={quote_value(text)}"
    assert parse(override) == text
    assert shlex.split(shell_quote(override)) == [override]


@given(st.dictionaries(st.sampled_from(["question", "answer"]), TEXTS, min_size=1))
def test_any_column_mapping_is_written_so_that_it_parses_back(columns: dict[str, str]) -> None:
    assert parse(f"data.columns={quote_value(columns)}") == columns


@given(TEXTS)
def test_a_correction_parses_to_the_text_that_was_given(text: str) -> None:
    corrected = correct_override(f"data.path={text}")
    if corrected is not None and text[:1] not in ("{", "[") and text[:1] not in ("'", '"'):
        assert parse(corrected) == text


@pytest.mark.parametrize(
    ("override", "corrected"),
    [
        ("data.path=Über Fragen/x.jsonl", "data.path='Über Fragen/x.jsonl'"),
        ("data.path=a,b.csv", "data.path='a,b.csv'"),
        ("data.path=https://example.org/x.csv?page=1", "data.path='https://example.org/x.csv?page=1'"),
        ("data.path=rows#2.csv", "data.path='rows#2.csv'"),
        ("data.path=[new].csv", "data.path='[new].csv'"),
        ("data.path=rows(1).csv", "data.path='rows(1).csv'"),
        ("data.columns={question: Frage, answer: Lösung}", "data.columns={question: Frage, answer: 'Lösung'}"),
        ("data.path=helpdesk.csv", None),
        ("train/method=lora", None),
    ],
)
def test_overrides_are_corrected_only_where_needed(override: str, corrected: str | None) -> None:
    assert correct_override(override) == corrected
    assert (override_error(override) is None) == (corrected is None)


def test_composition_names_the_command_with_quotes() -> None:
    with pytest.raises(ConfigError) as error:
        compose_params("data=file", "data.path=Über Fragen/x.jsonl", "data.limit=1,2")
    assert '''-S "data.path='Über Fragen/x.jsonl'"''' in str(error.value)
    assert "data.limit=1,2: several values; a grid needs dvc exp run --queue" in str(error.value)
