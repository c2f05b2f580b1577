"""The default base model: its pretraining articles, its recipe, and the result of fine-tuning it."""

import json
import random
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest
from safetensors import safe_open
from support.project import ROOT, SHIPPED

from pipeline.clean.cleaner import Cleaner
from pipeline.compose.composition import parse_params
from pipeline.config import params
from pipeline.config.validation import validate_params
from pipeline.core.files import sha256_of_path
from pipeline.fetch.sources import load_rows
from pipeline.format.conversations import conversations_of
from pipeline.format.duplicates import DuplicateSearch
from pipeline.format.split import split_rows
from pipeline.nano.articles import FACT_TEMPLATES, generate_edition
from pipeline.nano.build import KNOWLEDGE, NANO, Recipe, build_nano, generate_articles, token_batches
from pipeline.synthetic.dialogues import WORDINGS, read_knowledge

TINY = Recipe(editions=2, vocabulary=400, positions=64, layers=1, hidden_size=32, heads=2, length=32, batch_size=32)
SMALL = {"gout": dict.fromkeys(WORDINGS, "rest"), "hay fever": dict.fromkeys(WORDINGS, "sleep")}


def test_edition_states_every_fact_once_and_articles_name_their_condition_first() -> None:
    knowledge = read_knowledge(ROOT / KNOWLEDGE)
    articles = list(generate_edition(knowledge, random.Random(0)))
    assert len(articles) == 3 * 136
    stated = Counter()
    for article in articles:
        facts = [(name, fact) for name in knowledge for fact, phrase in knowledge[name].items() if phrase in article]
        (name,) = {name for name, _ in facts}
        assert name.lower() in article.split(". ")[0].lower()
        assert len(facts) in (2, 3)
        stated.update(facts)
    assert stated == Counter({(name, fact): 1 for name in knowledge for fact in WORDINGS})


def test_every_template_is_used_and_half_of_later_sentences_say_it() -> None:
    rng = random.Random(0)
    articles = [article for _ in range(200) for article in generate_edition(SMALL, rng)]
    sentences = Counter(sentence for article in articles for sentence in article.removesuffix(".").split(". "))
    for fact, templates in FACT_TEMPLATES.items():
        for template in templates:
            for subject in ("gout", "hay fever"):
                sentence = template.format(name=subject, Name=subject.capitalize(), phrase=SMALL[subject][fact])
                assert sentences[sentence.removesuffix(".")] > 0
    unnamed = sum(
        count for text, count in sentences.items() if "gout" not in text.lower() and "hay f" not in text.lower()
    )
    # Three of the seven facts open an article and always name the condition.
    assert 0.4 < unnamed / (sentences.total() * 4 / 7) < 0.6


def test_no_template_has_the_form_of_an_answer() -> None:
    answers = {wording.answer for wordings in WORDINGS.values() for wording in wordings}
    templates = {template for group in FACT_TEMPLATES.values() for template in group}
    assert {fact: len(group) for fact, group in FACT_TEMPLATES.items()} == dict.fromkeys(WORDINGS, 6)
    assert len(templates) == 42
    assert not answers & templates


class LetterTokenizer:
    """a is 1, b is 2, …; the end of text is 0."""

    eos_token_id = 0

    def __call__(self, texts: list[str], add_special_tokens: bool) -> dict[str, list[list[int]]]:
        assert not add_special_tokens
        return {"input_ids": [[ord(letter) - 96 for letter in text] for text in texts]}


def test_articles_are_concatenated_into_rows_of_equal_length() -> None:
    recipe = Recipe(batch_size=2, length=3)
    rows = token_batches(["abc", "d", "efghijk"], LetterTokenizer(), recipe)
    assert rows.tolist() == [[[1, 2, 3], [0, 4, 0]], [[5, 6, 7], [8, 9, 10]]]


def test_recipe_is_reproducible_and_another_seed_gives_another_model(tmp_path: Path) -> None:
    stats = [build_nano(recipe, ROOT / KNOWLEDGE, tmp_path / name) for name, recipe in (("a", TINY), ("b", TINY))]
    other = build_nano(Recipe(**{**asdict(TINY), "seed": 1}), ROOT / KNOWLEDGE, tmp_path / "c")
    assert stats[0] == stats[1]
    assert sha256_of_path(tmp_path / "a") == sha256_of_path(tmp_path / "b") != sha256_of_path(tmp_path / "c")
    assert stats[0]["articles"] == other["articles"] == 816
    assert stats[0]["loss"] < 5.9  # ln 400 = 5.99 is the loss of a uniform distribution


def test_shipped_model_is_small_and_has_the_current_recipe_and_knowledge() -> None:
    card = (ROOT / NANO / "README.md").read_text()
    assert f"| SHA-256 of the knowledge file | {sha256_of_path(ROOT / KNOWLEDGE)} |" in card
    for name, value in asdict(Recipe()).items():
        assert f"| {name} | {value} |" in card
    assert f"{len(generate_articles(read_knowledge(ROOT / KNOWLEDGE), Recipe())):,} articles" in card
    weights = ROOT / NANO / "model.safetensors"
    assert weights.stat().st_size <= 8_000_000
    with safe_open(weights, "pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"BF16"}  # noqa: SIM118


@pytest.fixture(scope="module")
def default() -> params.Params:
    values = parse_params((SHIPPED / "params.yaml").read_text())
    values["data"]["path"] = str(ROOT / values["data"]["path"])
    return validate_params(values)


def test_default_has_100_test_questions_about_facts_unseen_in_training(default: params.Params) -> None:
    source = load_rows(default.data)
    cleaned = Cleaner(source.mapping, default.clean).clean_batch(source.table)
    rows = list(conversations_of(cleaned.records, source.mapping.task))
    split = split_rows(rows, default.format, DuplicateSearch(rows, default.format.near))
    facts = {
        phrase: (name, fact)
        for name, phrases in read_knowledge(ROOT / KNOWLEDGE).items()
        for fact, phrase in phrases.items()
    }

    def facts_in(name: str) -> set[tuple[str, str]]:
        answers = "\n".join(row.answer for row in split.rows_of(name))
        return {key for phrase, key in facts.items() if phrase in answers}

    assert len(facts_in("test")) == len(split.rows_of("test")) >= 100
    assert not facts_in("test") & (facts_in("train") | facts_in("validation"))


@pytest.mark.skipif(
    (ROOT / "params.yaml").read_bytes() != (SHIPPED / "params.yaml").read_bytes(),
    reason="metrics/ is of another configuration than the shipped one",
)
def test_default_shows_the_effect_of_fine_tuning() -> None:
    base, finetuned = (
        json.loads((ROOT / f"metrics/evaluate/{name}.json").read_text()) for name in ("base", "finetuned")
    )
    assert finetuned["exact_match"] >= 0.3
    assert finetuned["f1"] >= 0.6
    assert finetuned["f1"] >= 2 * base["f1"]["base"]
