"""The base model of the default: what it has read, that it is the recipe's, and what the default shows with it."""

import json
import random
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest
from safetensors import safe_open
from support.project import ROOT

from pipeline.clean import stage as clean
from pipeline.compose.composition import parse_params
from pipeline.config import params
from pipeline.config.validation import validate_params
from pipeline.core.files import sha256_of_path
from pipeline.fetch.sources import load_rows
from pipeline.format import stage as format
from pipeline.nano.articles import TELLINGS, edition
from pipeline.nano.build import KNOWLEDGE, NANO, Recipe, articles, batches, build_nano
from pipeline.synthetic.dialogues import WORDINGS, read_knowledge

TINY = Recipe(editions=2, vocabulary=400, positions=64, layers=1, hidden_size=32, heads=2, length=32, batch_size=32)
SMALL = {"gout": dict.fromkeys(WORDINGS, "rest"), "hay fever": dict.fromkeys(WORDINGS, "sleep")}


def test_an_edition_tells_every_fact_once_in_notes_that_name_their_condition_first() -> None:
    knowledge = read_knowledge(ROOT / KNOWLEDGE)
    found = list(edition(knowledge, random.Random(0)))
    assert len(found) == 3 * 136
    told = Counter()
    for note in found:
        facts = [(name, fact) for name in knowledge for fact, phrase in knowledge[name].items() if phrase in note]
        (name,) = {name for name, _ in facts}
        assert name.lower() in note.split(". ")[0].lower()
        assert len(facts) in (2, 3)
        told.update(facts)
    assert told == Counter({(name, fact): 1 for name in knowledge for fact in WORDINGS})


def test_every_telling_is_used_and_half_of_the_later_sentences_say_it() -> None:
    chance = random.Random(0)
    text = [article for _ in range(200) for article in edition(SMALL, chance)]
    sentences = Counter(sentence for article in text for sentence in article.removesuffix(".").split(". "))
    for fact, tellings in TELLINGS.items():
        for telling in tellings:
            for subject in ("gout", "hay fever"):
                told = telling.format(name=subject, Name=subject.capitalize(), phrase=SMALL[subject][fact])
                assert sentences[told.removesuffix(".")] > 0
    unnamed = sum(
        count for told, count in sentences.items() if "gout" not in told.lower() and "hay f" not in told.lower()
    )
    # Three of the seven facts open a note, and are told by name.
    assert 0.4 < unnamed / (sentences.total() * 4 / 7) < 0.6


def test_no_telling_has_the_form_of_an_answer() -> None:
    answers = {wording.answer for wordings in WORDINGS.values() for wording in wordings}
    tellings = [telling for group in TELLINGS.values() for telling in group]
    assert {fact: len(group) for fact, group in TELLINGS.items()} == dict.fromkeys(WORDINGS, 6)
    assert len(set(tellings)) == 42
    assert not answers & set(tellings)


class Letters:
    """A tokenizer whose ids are plain to see: a is 1, b is 2, …; the end of text is 0."""

    eos_token_id = 0

    def __call__(self, texts: list[str], add_special_tokens: bool) -> dict[str, list[list[int]]]:
        assert not add_special_tokens
        return {"input_ids": [[ord(letter) - 96 for letter in text] for text in texts]}


def test_articles_stand_one_after_the_other_in_rows_of_one_length() -> None:
    recipe = Recipe(batch_size=2, length=3)
    rows = batches(["abc", "d", "efghijk"], Letters(), recipe)
    assert rows.tolist() == [[[1, 2, 3], [0, 4, 0]], [[5, 6, 7], [8, 9, 10]]]


def test_one_recipe_gives_one_model_and_another_seed_another(tmp_path: Path) -> None:
    came = [build_nano(recipe, ROOT / KNOWLEDGE, tmp_path / name) for name, recipe in (("a", TINY), ("b", TINY))]
    other = build_nano(Recipe(**{**asdict(TINY), "seed": 1}), ROOT / KNOWLEDGE, tmp_path / "c")
    assert came[0] == came[1]
    assert sha256_of_path(tmp_path / "a") == sha256_of_path(tmp_path / "b") != sha256_of_path(tmp_path / "c")
    assert came[0]["articles"] == other["articles"] == 816
    assert came[0]["loss"] < 5.9  # ln 400 = 5.99 is what knowing nothing costs


def test_the_shipped_model_is_small_and_of_the_present_recipe_and_knowledge() -> None:
    card = (ROOT / NANO / "README.md").read_text()
    assert f"| SHA-256 of the knowledge file | {sha256_of_path(ROOT / KNOWLEDGE)} |" in card
    for name, value in asdict(Recipe()).items():
        assert f"| {name} | {value} |" in card
    assert f"{len(articles(read_knowledge(ROOT / KNOWLEDGE), Recipe())):,} articles" in card
    weights = ROOT / NANO / "model.safetensors"
    assert weights.stat().st_size <= 8_000_000
    with safe_open(weights, "pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"BF16"}  # noqa: SIM118


@pytest.fixture(scope="module")
def default() -> params.Params:
    values = parse_params((ROOT / "params.yaml").read_text())
    values["data"]["path"] = str(ROOT / values["data"]["path"])
    return validate_params(values)


def test_the_default_asks_at_least_100_questions_about_facts_that_training_never_tells(default: params.Params) -> None:
    source = load_rows(default.data)
    cleaned = clean.Cleaner(source.taken, default.clean).batch(source.table)
    rows = list(format.conversations_of(cleaned.records))
    splits, _ = format.split_rows(rows, default.format, format.TwinSearch(rows, default.format.near))
    facts = {
        phrase: (name, fact) for name, told in read_knowledge(ROOT / KNOWLEDGE).items() for fact, phrase in told.items()
    }

    def told(split: str) -> set[tuple[str, str]]:
        answers = "\n".join(row.answer for row in splits[split])
        return {key for phrase, key in facts.items() if phrase in answers}

    assert len(told("test")) == len(splits["test"]) >= 100
    assert not told("test") & (told("train") | told("validation"))


def test_the_default_shows_what_fine_tuning_does() -> None:
    base, finetuned = (
        json.loads((ROOT / f"metrics/evaluate/{name}.json").read_text()) for name in ("base", "finetuned")
    )
    assert finetuned["exact_match"] >= 0.3
    assert finetuned["f1"] >= 0.6
    assert finetuned["f1"] >= 2 * base["f1"]
