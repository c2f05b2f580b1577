"""Entries, standings and output of the leaderboard, from hand-written runs."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ConfigError, DataError
from pipeline.leaderboard.console import format_standings
from pipeline.leaderboard.entries import (
    Entry,
    align_metric_versions,
    differing_keys,
    environment_notes,
    group_by_configuration,
    merge_identical_runs,
    restrict_to_shared_rows,
)
from pipeline.leaderboard.output import OUTPUT_FILES, require_leaderboard_folder, write_leaderboard
from pipeline.leaderboard.runs import Run
from pipeline.leaderboard.standings import Standings, rank_entries

PARAMS = {"train.seed": 0, "train.learning_rate": 0.1}


def run(name: str, scores: list[float], **changes: Any) -> Run:
    """A run with an F1 for each row; `changes` are parameters of train."""
    rows = [{"id": i, "prompt": f"p{i}", "reference": "r", "prediction": "a", "f1": f1} for i, f1 in enumerate(scores)]
    params = {**PARAMS, **{f"train.{key}": value for key, value in changes.items()}}
    return Run(name, f"{name}-commit", rows, {"version": 2, "loss": 0.5}, params, {"data/tokenized": "abc"})


def compare(*runs: Run, by: str | None = None, partial: bool = False) -> Standings:
    return rank_entries(group_by_configuration([*runs]), by, resamples=1000, seed=0, partial=partial)


def draws(share: float, rows: int, seed: int) -> list[float]:
    return np.random.default_rng(seed).binomial(1, share, rows).astype(float).tolist()


def test_names_of_the_same_run_are_merged() -> None:
    first, second, other = run("main", [0.5]), run("HEAD", [0.5]), run("b", [0.25])
    merged, notes = merge_identical_runs([first, other, second])
    assert [merged_run.name for merged_run in merged] == ["main = HEAD", "b"]
    assert notes == ["main = HEAD: names of the same run."]


def test_runs_that_differ_only_in_the_seed_share_an_entry() -> None:
    entries = group_by_configuration([run("a", [0.5]), run("b", [0.5], learning_rate=0.2), run("c", [1.0], seed=1)])
    assert [(entry.name, entry.differences, entry.seeds) for entry in entries] == [
        ("a, c", {"train.learning_rate": 0.1}, [0, 1]),
        ("b", {"train.learning_rate": 0.2}, [0]),
    ]


def test_equal_parameters_with_different_inputs_are_labeled_by_input() -> None:
    other = run("old", [0.5])._replace(inputs={"data/tokenized": "def456789", "pipeline/train/stage.py": "0"})
    entries = group_by_configuration([run("new", [0.5]), other])
    assert [entry.differences for entry in entries] == [
        {"input": "data/tokenized abc and 1 more"},
        {"input": "data/tokenized def4567 and 1 more"},
    ]


def test_keys_of_one_option_are_no_differences_but_missing_keys_are() -> None:
    full = {"train.method.kind": "full", "clean.strip": []}
    lora = {"train.method.kind": "lora", "train.method.rank": 8, "clean.strip": [], "evaluate.engine": "x"}
    assert differing_keys([full, lora]) == ["train.method.kind", "evaluate.engine"]
    assert differing_keys([lora, {**lora, "train.method.rank": 16}]) == ["train.method.rank"]


def test_only_rows_with_the_same_id_prompt_and_reference_are_compared() -> None:
    first, second = run("a", [0.0, 0.25, 0.5, 0.75]), run("b", [1.0, 1.0, 1.0])
    second.rows[1]["reference"] = "another"
    second.rows.reverse()
    restricted, notes = restrict_to_shared_rows([first, second])
    assert [[row["id"] for row in restricted_run.rows] for restricted_run in restricted] == [[0, 2], [0, 2]]
    assert notes == [
        "The runs have different test rows: 4 in a, 3 in b. All values are computed on the 2 that they share: "
        "same id, prompt and reference."
    ]


def test_rows_with_different_prompts_are_left_out_with_a_note() -> None:
    first, second = run("a", [0.0, 0.25]), run("b", [1.0, 1.0])
    second.rows[1]["prompt"] = "another prompt"
    restricted, notes = restrict_to_shared_rows([first, second])
    assert [len(restricted_run.rows) for restricted_run in restricted] == [1, 1]
    assert notes[0].startswith(
        "The runs have different test rows: 2 in a, 2 in b. All values are computed on the 1 that they share"
    )


def test_most_frequent_number_of_rows_is_summarized() -> None:
    few, many = [run(name, [0.0, 0.25]) for name in "abcd"], run("e", [1.0, 1.0, 0.5])
    assert restrict_to_shared_rows([*few, many])[1][0].startswith(
        "The runs have different test rows: 3 in e, 2 in each of the other 4 runs."
    )
    few[3].rows[1]["prompt"] = "another prompt"
    assert restrict_to_shared_rows(few)[1][0].startswith("The runs have different test rows: 2 in each of the 4 runs.")


def test_reordered_rows_are_aligned_without_a_note() -> None:
    first, second = run("a", [0.0, 0.25]), run("b", [0.5, 1.0])
    second.rows.reverse()
    restricted, notes = restrict_to_shared_rows([first, second])
    assert [row["f1"] for row in restricted[1].rows] == [0.5, 1.0]
    assert notes == []


def test_runs_without_a_shared_row_are_rejected() -> None:
    first, second, third = run("a", [0.0]), run("b", [1.0]), run("c", [1.0])
    third.rows[0]["reference"] = "another"
    with pytest.raises(
        DataError, match=r"no test row .* is in all runs: a shares none with c\. Test rows: 1 in a, 1 in b, 1 in c\."
    ):
        restrict_to_shared_rows([first, second, third])


def test_answers_with_different_metric_versions_are_scored_again_with_a_note() -> None:
    old, new = run("old", [0.125]), run("new", [0.125])
    old = old._replace(metrics={"signature": {"bleu": "1.0"}})
    for scored in (old, new):
        scored.rows[0].update(prediction="drink water", reference="drink some water")
    aligned, notes = align_metric_versions([old, new])
    assert [scored.rows[0]["f1"] for scored in aligned] == [0.8, 0.8]
    assert notes == [
        "Different versions of the metrics had scored these runs, so all were scored again: "
        "old with version 1; new with version 2."
    ]
    newer = new._replace(metrics={"version": 2, "signature": {"bleu": "2.0"}})
    assert align_metric_versions([new, newer])[1][0].endswith("new with version 2; new with version 2, bleu 2.0.")
    assert align_metric_versions([new, new]) == ([new, new], [])


def test_runs_from_different_environments_are_noted() -> None:
    runs = [run(name, [1.0]) for name in ("old", "a", "b")]
    records = [{}, {"environment": {"threads": 1, "python": "3.11"}}, {"environment": {"threads": 2, "python": "3.12"}}]
    runs = [run._replace(metrics=metrics) for run, metrics in zip(runs, records, strict=True)]
    assert environment_notes(runs) == [
        "The runs were evaluated in different environments, whose rounding differs: threads 1 (a), 2 (b)."
    ]
    assert environment_notes(runs[:2]) == []


def plain(name: str, losses: list[float] | None, loss: float, version: int = 2, **changes: Any) -> Run:
    rows: list[dict[str, Any]] = [{"id": i, "reference": "text"} for i in range(8)]
    if losses:
        rows = [{**row, "loss": row_loss, "tokens": 1, "bytes": 4} for row, row_loss in zip(rows, losses, strict=True)]
    return run(name, [], **changes)._replace(rows=rows, metrics={"version": version, "loss": loss})


def test_plain_text_is_compared_by_the_loss_per_row() -> None:
    worse, better = plain("a", [2.0] * 7 + [1.0], 0, learning_rate=0.2), plain("b", [1.0] * 7 + [0.5], 0)
    result = compare(worse, better)
    assert result.metric == "loss"
    assert [(ranked.entry.name, ranked.values["loss"].value) for ranked in result.entries] == [
        ("b", 0.9375),
        ("a", 1.875),
    ]
    pair = result.pairs[0]
    assert (pair.delta, pair.wins, pair.ties, pair.losses, pair.verdict) == (-0.9375, 8, 0, 0, "better")
    assert result.entries[0].rating is not None
    assert result.entries[1].rating is not None
    assert result.entries[0].rating.value > 1000 > result.entries[1].rating.value


def test_plain_text_without_loss_per_row_is_ranked_without_verdicts() -> None:
    result = compare(plain("a", None, 2.0, learning_rate=0.2), plain("b", None, 1.0), plain("c", None, 2.0, seed=1))
    values = [(ranked.entry.name, *ranked.values["loss"]) for ranked in result.entries]
    assert values == [("b, c", 1.5, None, None, pytest.approx(0.5**0.5)), ("a", 2.0, None, None, None)]
    assert (result.pairs, [ranked.rating for ranked in result.entries]) == ([], [None, None])
    assert result.notes[0].startswith("Only the held-out loss over all rows is known")
    with pytest.raises(ConfigError, match="have no metric in common"):  # not known for a part of the rows
        compare(plain("a", None, 2.0), plain("b", None, 1.0, learning_rate=0.2), partial=True)


def test_plain_text_with_different_metric_versions_is_rejected() -> None:
    with pytest.raises(
        DataError, match="evaluated with different versions of the metrics: a with version 1; b with version 2"
    ):
        align_metric_versions([plain("a", None, 2.0, version=1), plain("b", None, 2.0)])


def test_equal_answers_are_within_noise_and_have_equal_ratings() -> None:
    same = draws(0.5, 100, seed=0)
    result = compare(run("a", same), run("b", same, learning_rate=0.2))
    assert [(pair.verdict, pair.delta, pair.p_corrected) for pair in result.pairs] == [("within noise", 0.0, 1.0)]
    assert [ranked.rating and round(ranked.rating.value, 6) for ranked in result.entries] == [1000.0, 1000.0]


def test_clear_differences_are_detected_and_corrected_over_all_pairs() -> None:
    runs = [run(f"r{share}", draws(share, 150, seed=i), learning_rate=share) for i, share in enumerate((0.2, 0.9, 0.5))]
    result = compare(*runs)
    assert [ranked.entry.name for ranked in result.entries] == ["r0.9", "r0.5", "r0.2"]
    assert [(pair.first, pair.second, pair.verdict) for pair in result.pairs] == [
        (1, 2, "better"),
        (1, 3, "better"),
        (2, 3, "better"),
    ]
    assert [pair.p_corrected for pair in result.pairs] == pytest.approx([3 / 1001] * 3)
    ratings = [ranked.rating.value for ranked in result.entries if ranked.rating]
    assert ratings == sorted(ratings, reverse=True)


def test_difference_within_the_variation_between_seeds_is_marked() -> None:
    half, more = [0.0, 1.0] * 50, [0.0, 1.0] * 40 + [1.0] * 20
    apart = compare(run("a", half), run("b", more, seed=1), run("c", [0.5] * 95 + [0.0] * 5, learning_rate=0.2))
    # seeds 0.5 and 0.6: sd 0.0707; c at 0.475 is 0.075 below their mean, within 2 · 0.0707 · √(1 + 1/2) = 0.173
    assert apart.entries[0].values["f1"].spread == pytest.approx(0.05 * 2**0.5)
    close = compare(run("a", more), run("b", more, seed=1), run("c", half, learning_rate=0.2))
    assert [(pair.verdict, pair.within_seeds) for pair in close.pairs] == [("better", False)]
    far = compare(run("a", [1.0] * 100), run("b", more, seed=1), run("c", half, learning_rate=0.2))
    assert [(pair.verdict, pair.within_seeds) for pair in far.pairs] == [("better", True)]
    assert "* significant, but no larger than the variation between seeds" in "\n".join(format_standings(far))


def test_single_configuration_is_a_table_of_one_row() -> None:
    result = compare(run("a", [0.0, 1.0, 1.0, 1.0]))
    assert format_standings(result) == [
        "1 configuration on the same 4 test rows, ranked by Token F1",
        "",
        "                                     Token F1           BLEU  Held-out loss",
        " 1 a                                     0.75              0            0.5",
        "   seed 0                              0.25–1            0–0",
        "",
        "Below each value: its 95% interval over the test rows.",
    ]


def test_single_test_row_has_no_interval_no_rating_and_no_verdict() -> None:
    result = compare(run("a", [1.0]), run("b", [0.0], learning_rate=0.2))
    assert [(pair.verdict, pair.low) for pair in result.pairs] == [("too few rows to tell", None)]
    assert result.entries[0].values["f1"] == (1.0, None, None, None)
    assert result.entries[0].rating is None
    assert "With a single test row there are no intervals and no ratings." in "\n".join(format_standings(result))


def test_error_for_an_unusable_metric_lists_the_usable_ones() -> None:
    runs = run("a", [0.5, 1.0]), run("b", [0.5, 0.5], learning_rate=0.2)
    for scored in runs:
        for row in scored.rows:
            row["new_tokens"] = 3
    with pytest.raises(
        ConfigError, match=r"--by rouge: not a metric that all these runs have; choose one of f1, bleu, chrf"
    ):
        compare(*runs, by="rouge")
    with pytest.raises(
        ConfigError, match="--by new_tokens: a higher value is neither better nor worse; choose one of f1, bleu"
    ):
        compare(*runs, by="new_tokens")
    with pytest.raises(ConfigError, match="--resamples 5: too few"):
        rank_entries(group_by_configuration([*runs]), None, resamples=5, seed=0, partial=False)


def test_error_for_a_missing_score_names_run_and_row() -> None:
    other = run("b", [0.5, 0.5], learning_rate=0.2)
    del other.rows[1]["f1"]
    with pytest.raises(DataError, match="b: the prediction of test row 1: f1 is missing"):
        compare(run("a", [0.5, 1.0]), other)


HOSTILE = "<script>alert('x')</script>"


def csv_rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_output_folder_has_all_values_and_escapes_names(tmp_path: Path) -> None:
    result = compare(run(HOSTILE, draws(0.9, 20, 0)), run("b", draws(0.2, 20, 1), learning_rate=0.2))
    write_leaderboard(result, {"instance": "finetuned", "resamples": 1000, "seed": 0}, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(OUTPUT_FILES)
    page = (tmp_path / "out/leaderboard.html").read_text()
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page
    facts = json.loads((tmp_path / "out/leaderboard.json").read_text())
    assert (facts["rows"], facts["by"], facts["resamples"], len(facts["places"]), len(facts["pairs"])) == (
        *(20, "f1", 1000),
        *(2, 1),
    )
    header, _, second = csv_rows(tmp_path / "out/leaderboard.csv")
    assert header[:9] == ["rank", "name", "commits", "seeds", "differs", "f1", "f1.low", "f1.high", "f1.spread"]
    assert second[:5] == ["2", "b", "b-commit", "0", "train.learning_rate=0.2"]
    assert csv_rows(tmp_path / "out/answers.csv")[0] == ["id", "prompt", "reference", HOSTILE, "b"]


def test_folder_with_other_files_is_not_replaced(tmp_path: Path) -> None:
    require_leaderboard_folder(tmp_path / "new")
    (tmp_path / "leaderboard.csv").write_text("")
    require_leaderboard_folder(tmp_path)
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ConfigError, match=r"contains thesis\.tex, which is not a file of a leaderboard"):
        require_leaderboard_folder(tmp_path)
    with pytest.raises(ConfigError, match="is a file; expected a folder"):
        require_leaderboard_folder(tmp_path / "thesis.tex")


def test_only_pairs_of_the_first_entry_are_shown_if_many(tmp_path: Path) -> None:
    runs = [run(f"r{i}", draws(0.9 - i / 10, 30, seed=i), learning_rate=float(i)) for i in range(7)]
    text = format_standings(compare(*runs))
    assert sum(line.startswith(("1 vs. ", "1 better than ")) for line in text) == 6
    assert text[-1] == "The other 15 pairs are in pairs.csv."
    assert max(map(len, text)) <= 100


def test_long_names_and_labels_fit_in_a_hundred_columns() -> None:
    long = {f"key_{i}": "x" * 60 for i in range(2)}
    result = compare(
        run("experiment-with-a-very-long-name-indeed-and-more", [0.5] * 9),
        run("b", [0.25] * 9, learning_rate=0.2, **long),
    )
    assert max(map(len, format_standings(result))) <= 100


def test_seeds_of_an_entry_are_in_the_order_of_its_runs() -> None:
    assert Entry("a", [run("a", [1.0], seed=2), run("b", [1.0], seed=0)], {}).seeds == [2, 0]
