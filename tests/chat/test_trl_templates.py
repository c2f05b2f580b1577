"""Our labels are those of TRL for every chat template that TRL ships; what is refused or differs is listed here."""

import functools

import pytest

pytest.importorskip("trl")

from bench.chat_templates import SCENARIOS, Cell, compare, read_templates, set_up

TEMPLATES = read_templates()
VISION = ("idefics3", "llava_next", "smolvlm")  # they take lists of parts
NO_TOOLS = ("cohere", "gemma", "gemma3", "llama3", "phi3", "phi3_5", "qwen2_5_vl", "cohere2")
OTHER = {
    ("diffusion_gemma", "tool call"): "different",  # TRL does not learn what the template leaves to the model
    ("diffusion_gemma_training", "tool call"): "refused",  # its marks leave out the token that ends a call
    ("deepseek_r1_distill", "tool call"): "TRL cannot render it",
    ("deepseek_r1_distill_training", "tool call"): "TRL cannot render it",
}
AGREEMENT = ("equal", "same text", "closed", "no marks to compare with")


@functools.cache
def cell(name: str, scenario: str) -> Cell:
    return compare(set_up(TEMPLATES[name]), SCENARIOS[scenario])


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_labels_are_those_of_trl(name: str, scenario: str) -> None:
    family, result = name.removesuffix("_training"), cell(name, scenario).result
    if family in VISION or (family in NO_TOOLS and scenario == "tool call"):
        assert result == "refused"
    else:
        assert result == OTHER.get((name, scenario), result)
        assert result in AGREEMENT or (name, scenario) in OTHER


@pytest.mark.parametrize(
    "name", [name for name in TEMPLATES if name.startswith(("llama3_training", "qwen2_5_training", "gemma_training"))]
)
@pytest.mark.parametrize("scenario", ["one turn", "three turns", "system"])
def test_plain_dialogues_of_common_families_are_equal(name: str, scenario: str) -> None:
    assert cell(name, scenario) == Cell("equal")


@pytest.mark.parametrize(
    ("name", "scenario", "rows"),
    [
        ("qwen3", "three turns", 3),
        ("phi3", "three turns", 3),
        ("gptoss", "three turns", 3),
        ("deepseekv3", "three turns", 3),
        ("nemotron_3_nano", "three turns", 3),
        ("qwen3", "thinking", 2),
        ("qwen2_5", "three turns", 1),
        ("llama3", "three turns", 1),
    ],
)
def test_dialogues_that_are_rendered_otherwise_later_become_a_row_a_turn(name: str, scenario: str, rows: int) -> None:
    assert cell(name, scenario).rows == rows
