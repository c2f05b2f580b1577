"""entries.py, standings.py and leaderboard.py on runs written by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ConfigError, DataError
from pipeline.leaderboard.cli import FILES, console_lines, require_ours, write_leaderboard
from pipeline.leaderboard.entries import (
    Entry,
    align_metric_versions,
    differing_keys,
    group_by_configuration,
    merge_identical_runs,
    restrict_to_shared_rows,
)
from pipeline.leaderboard.runs import Run
from pipeline.leaderboard.standings import Standings, rank_entries

PARAMS = {"train.seed": 0, "train.learning_rate": 0.1}


def run(name: str, scores: list[float], **changes: Any) -> Run:
    """A run with an F1 for each row; `changes` are of the parameters."""
    rows = [{"id": i, "prompt": f"p{i}", "reference": "r", "prediction": "a", "f1": f1} for i, f1 in enumerate(scores)]
    params = {**PARAMS, **{f"train.{key}": value for key, value in changes.items()}}
    return Run(name, f"{name}-commit", rows, {"version": 2, "loss": 0.5}, params, {"data/tokenized": "abc"})


def compare(*runs: Run, by: str | None = None, partial: bool = False) -> Standings:
    return rank_entries(group_by_configuration([*runs]), by, resamples=1000, seed=0, partial=partial)


def draws(share: float, rows: int, seed: int) -> list[float]:
    return np.random.default_rng(seed).binomial(1, share, rows).astype(float).tolist()


def test_names_of_one_run_are_taken_together() -> None:
    first, second, other = run("main", [0.5]), run("HEAD", [0.5]), run("b", [0.25])
    kept, notes = merge_identical_runs([first, other, second])
    assert [each.name for each in kept] == ["main = HEAD", "b"]
    assert notes == ["main = HEAD are one and the same run."]


def test_runs_that_differ_in_the_seed_alone_are_one_entry() -> None:
    found = group_by_configuration([run("a", [0.5]), run("b", [0.5], learning_rate=0.2), run("c", [1.0], seed=1)])
    assert [(each.name, each.differs, each.seeds) for each in found] == [
        ("a, c", {"train.learning_rate": 0.1}, [0, 1]),
        ("b", {"train.learning_rate": 0.2}, [0]),
    ]


def test_what_no_parameter_tells_apart_is_told_by_data_and_code() -> None:
    other = run("old", [0.5])._replace(inputs={"data/tokenized": "def456789", "pipeline/train/stage.py": "0"})
    found = group_by_configuration([run("new", [0.5]), other])
    assert [each.differs for each in found] == [
        {"input": "data/tokenized abc and 1 more"},
        {"input": "data/tokenized def4567 and 1 more"},
    ]


def test_keys_that_only_one_option_has_are_not_differences_but_absent_ones_are() -> None:
    full = {"train.method.kind": "full", "clean.strip": []}
    lora = {"train.method.kind": "lora", "train.method.rank": 8, "clean.strip": [], "evaluate.engine": "x"}
    assert differing_keys([full, lora]) == ["train.method.kind", "evaluate.engine"]
    assert differing_keys([lora, {**lora, "train.method.rank": 16}]) == ["train.method.rank"]


def test_only_rows_of_the_same_id_prompt_and_reference_are_compared() -> None:
    first, second = run("a", [0.0, 0.25, 0.5, 0.75]), run("b", [1.0, 1.0, 1.0])
    second.rows[1]["reference"] = "another"
    second.rows.reverse()
    alike, notes = restrict_to_shared_rows([first, second])
    assert [[row["id"] for row in each.rows] for each in alike] == [[0, 2], [0, 2]]
    assert notes == [
        "The runs answered different test rows (a 4, b 3). All figures are of the 2 that they share: "
        "those of the same id, prompt and reference."
    ]


def test_as_many_rows_with_another_question_are_left_out_and_told() -> None:
    first, second = run("a", [0.0, 0.25]), run("b", [1.0, 1.0])
    second.rows[1]["prompt"] = "asked otherwise"
    alike, notes = restrict_to_shared_rows([first, second])
    assert [len(each.rows) for each in alike] == [1, 1]
    assert notes[0].startswith(
        "The runs answered different test rows (a 2, b 2). All figures are of the 1 that they share"
    )


def test_of_many_runs_the_usual_number_of_rows_is_told_once() -> None:
    few, many = [run(name, [0.0, 0.25]) for name in "abcd"], run("e", [1.0, 1.0, 0.5])
    assert restrict_to_shared_rows([*few, many])[1][0].startswith(
        "The runs answered different test rows (e 3, 4 others 2)."
    )
    few[3].rows[1]["prompt"] = "asked otherwise"
    assert restrict_to_shared_rows(few)[1][0].startswith("The runs answered different test rows (all 4 2).")


def test_the_same_rows_in_another_order_are_shared_without_a_word() -> None:
    first, second = run("a", [0.0, 0.25]), run("b", [0.5, 1.0])
    second.rows.reverse()
    alike, notes = restrict_to_shared_rows([first, second])
    assert [row["f1"] for row in alike[1].rows] == [0.5, 1.0]
    assert notes == []


def test_runs_without_a_shared_row_are_refused() -> None:
    first, second, third = run("a", [0.0]), run("b", [1.0]), run("c", [1.0])
    third.rows[0]["reference"] = "another"
    with pytest.raises(DataError, match=r"there is no test row .*: a shares none with c\. Test rows: a 1, b 1, c 1\."):
        restrict_to_shared_rows([first, second, third])


def test_answers_of_other_metric_versions_are_scored_anew_and_it_is_told() -> None:
    old, new = run("old", [0.125]), run("new", [0.125])
    old = old._replace(metrics={"signature": {"bleu": "1.0"}})
    for each in (old, new):
        each.rows[0].update(prediction="drink water", reference="drink some water")
    found, notes = align_metric_versions([old, new])
    assert [each.rows[0]["f1"] for each in found] == [0.8, 0.8]
    assert notes == [
        "Other versions of the metrics had scored these answers, so all were scored anew: "
        "old by version 1; new by version 2."
    ]
    newer = new._replace(metrics={"version": 2, "signature": {"bleu": "2.0"}})
    assert align_metric_versions([new, newer])[1][0].endswith("new by version 2; new by version 2, bleu 2.0.")
    assert align_metric_versions([new, new]) == ([new, new], [])


def plain(name: str, losses: list[float] | None, loss: float, version: int = 2, **changes: Any) -> Run:
    rows: list[dict[str, Any]] = [{"id": i, "reference": "text"} for i in range(8)]
    if losses:
        rows = [{**row, "loss": each, "tokens": 1, "bytes": 4} for row, each in zip(rows, losses, strict=True)]
    return run(name, [], **changes)._replace(rows=rows, metrics={"version": version, "loss": loss})


def test_plain_text_is_compared_by_the_loss_of_its_rows() -> None:
    worse, better = plain("a", [2.0] * 7 + [1.0], 0, learning_rate=0.2), plain("b", [1.0] * 7 + [0.5], 0)
    result = compare(worse, better)
    assert result.by == "loss"
    assert [(place.entry.name, place.figures["loss"].value) for place in result.places] == [("b", 0.9375), ("a", 1.875)]
    duel = result.duels[0]
    assert (duel.delta, duel.wins, duel.ties, duel.losses, duel.verdict) == (-0.9375, 8, 0, 0, "better")
    assert result.places[0].rating is not None
    assert result.places[1].rating is not None
    assert result.places[0].rating.value > 1000 > result.places[1].rating.value


def test_plain_text_with_only_the_loss_of_all_rows_is_ordered_by_it_without_verdicts() -> None:
    result = compare(plain("a", None, 2.0, learning_rate=0.2), plain("b", None, 1.0), plain("c", None, 2.0, seed=1))
    figures = [(place.entry.name, *place.figures["loss"]) for place in result.places]
    assert figures == [("b, c", 1.5, None, None, pytest.approx(0.5**0.5)), ("a", 2.0, None, None, None)]
    assert (result.duels, [place.rating for place in result.places]) == ([], [None, None])
    assert result.notes[0].startswith("Only the held-out loss of all rows together is known")
    with pytest.raises(ConfigError, match="have no metric in common"):  # of some of the rows it is not known
        compare(plain("a", None, 2.0), plain("b", None, 1.0, learning_rate=0.2), partial=True)


def test_plain_text_of_other_metric_versions_is_refused() -> None:
    with pytest.raises(
        DataError, match="other versions of the metrics measured these runs: a by version 1; b by version 2"
    ):
        align_metric_versions([plain("a", None, 2.0, version=1), plain("b", None, 2.0)])


def test_equal_answers_are_within_noise_and_rated_alike() -> None:
    same = draws(0.5, 100, seed=0)
    result = compare(run("a", same), run("b", same, learning_rate=0.2))
    assert [(duel.verdict, duel.delta, duel.p_corrected) for duel in result.duels] == [("within noise", 0.0, 1.0)]
    assert [place.rating and round(place.rating.value, 6) for place in result.places] == [1000.0, 1000.0]


def test_clear_differences_are_found_in_order_and_corrected_over_all_pairs() -> None:
    runs = [run(f"r{share}", draws(share, 150, seed=i), learning_rate=share) for i, share in enumerate((0.2, 0.9, 0.5))]
    result = compare(*runs)
    assert [place.entry.name for place in result.places] == ["r0.9", "r0.5", "r0.2"]
    assert [(duel.first, duel.second, duel.verdict) for duel in result.duels] == [
        (1, 2, "better"),
        (1, 3, "better"),
        (2, 3, "better"),
    ]
    assert [duel.p_corrected for duel in result.duels] == pytest.approx([3 / 1001] * 3)
    ratings = [place.rating.value for place in result.places if place.rating]
    assert ratings == sorted(ratings, reverse=True)


def test_a_difference_that_another_seed_makes_is_marked() -> None:
    half, more = [0.0, 1.0] * 50, [0.0, 1.0] * 40 + [1.0] * 20
    apart = compare(run("a", half), run("b", more, seed=1), run("c", [0.5] * 95 + [0.0] * 5, learning_rate=0.2))
    # seeds 0.5 and 0.6: sd 0.0707; c at 0.475 is 0.075 below their mean, within 2 · 0.0707 · √(1 + 1/2) = 0.173
    assert apart.places[0].figures["f1"].spread == pytest.approx(0.05 * 2**0.5)
    close = compare(run("a", more), run("b", more, seed=1), run("c", half, learning_rate=0.2))
    assert [(duel.verdict, duel.within_seeds) for duel in close.duels] == [("better", False)]
    far = compare(run("a", [1.0] * 100), run("b", more, seed=1), run("c", half, learning_rate=0.2))
    assert [(duel.verdict, duel.within_seeds) for duel in far.duels] == [("better", True)]
    assert "* by no more than another train.seed makes" in "\n".join(console_lines(far))


def test_one_configuration_is_a_table_of_one_row() -> None:
    result = compare(run("a", [0.0, 1.0, 1.0, 1.0]))
    assert console_lines(result) == [
        "1 configuration on the same 4 test rows, the best Token F1 first",
        "",
        "                                     Token F1           BLEU  Held-out loss",
        " 1 a                                     0.75              0            0.5",
        "   seed 0                              0.25–1            0–0",
        "",
        "Below each figure its 95% interval over the test rows.",
    ]


def test_one_test_row_is_too_few_to_tell_and_has_no_interval() -> None:
    result = compare(run("a", [1.0]), run("b", [0.0], learning_rate=0.2))
    assert [(duel.verdict, duel.low) for duel in result.duels] == [("too few rows to tell", None)]
    assert result.places[0].figures["f1"] == (1.0, None, None, None)
    assert result.places[0].rating is None
    assert "One test row has no spread" in "\n".join(console_lines(result))


def test_metrics_that_cannot_order_are_refused_with_those_that_can() -> None:
    runs = run("a", [0.5, 1.0]), run("b", [0.5, 0.5], learning_rate=0.2)
    for each in runs:
        for row in each.rows:
            row["new_tokens"] = 3
    with pytest.raises(
        ConfigError, match=r"--by rouge: these runs have no such metric in common; there are f1, bleu, chrf"
    ):
        compare(*runs, by="rouge")
    with pytest.raises(ConfigError, match="--by new_tokens: more of it is neither better nor worse"):
        compare(*runs, by="new_tokens")
    with pytest.raises(ConfigError, match="--resamples 5: too few"):
        rank_entries(group_by_configuration([*runs]), None, resamples=5, seed=0, partial=False)


def test_a_score_that_one_row_lacks_is_told_by_run_and_row() -> None:
    other = run("b", [0.5, 0.5], learning_rate=0.2)
    del other.rows[1]["f1"]
    with pytest.raises(DataError, match="b: the prediction of test row 1: f1 is missing"):
        compare(run("a", [0.5, 1.0]), other)


HOSTILE = "<script>alert('x')</script>"


def test_the_folder_holds_every_figure_and_escapes_names(tmp_path: Path) -> None:
    result = compare(run(HOSTILE, draws(0.9, 20, 0)), run("b", draws(0.2, 20, 1), learning_rate=0.2))
    write_leaderboard(result, {"instance": "finetuned", "resamples": 1000, "seed": 0}, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(FILES)
    page = (tmp_path / "out/leaderboard.html").read_text()
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page
    facts = json.loads((tmp_path / "out/leaderboard.json").read_text())
    assert (facts["rows"], facts["by"], facts["resamples"], len(facts["places"]), len(facts["pairs"])) == (
        *(20, "f1", 1000),
        *(2, 1),
    )
    table = (tmp_path / "out/leaderboard.csv").read_text().splitlines()
    assert table[0].startswith("rank,name,commits,seeds,differs,f1,f1.low,f1.high,f1.spread,")
    assert table[2].startswith("2,b,b-commit,0,train.learning_rate=0.2,")
    assert (tmp_path / "out/answers.csv").read_text().splitlines()[0] == f"id,prompt,reference,{HOSTILE},b"


def test_a_folder_of_somebody_else_is_not_replaced(tmp_path: Path) -> None:
    require_ours(tmp_path / "new")
    (tmp_path / "leaderboard.csv").write_text("")
    require_ours(tmp_path)
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ConfigError, match=r"holds thesis\.tex, which is no part of a leaderboard"):
        require_ours(tmp_path)
    with pytest.raises(ConfigError, match="is a file; expected a folder"):
        require_ours(tmp_path / "thesis.tex")


def test_many_pairs_are_told_by_the_first_place(tmp_path: Path) -> None:
    runs = [run(f"r{i}", draws(0.9 - i / 10, 30, seed=i), learning_rate=float(i)) for i in range(7)]
    text = console_lines(compare(*runs))
    assert sum(line.startswith("1 against") for line in text) == 6
    assert text[-1] == "The other 15 pairs are in pairs.csv."
    assert max(map(len, text)) <= 100


def test_long_names_and_labels_stay_in_a_hundred_columns() -> None:
    long = {f"key_{i}": "x" * 60 for i in range(2)}
    result = compare(
        run("experiment-with-a-very-long-name-indeed-and-more", [0.5] * 9),
        run("b", [0.25] * 9, learning_rate=0.2, **long),
    )
    assert max(map(len, console_lines(result))) <= 100


def test_an_entry_knows_its_seeds_in_order() -> None:
    assert Entry("a", [run("a", [1.0], seed=2), run("b", [1.0], seed=0)], {}).seeds == [2, 0]
