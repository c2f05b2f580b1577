"""Sets the base model and the fine-tuned one side by side, and says whether they differ by more than chance.

    python -m pipeline.compare     data/predictions/{base,finetuned}.jsonl, the other stages' metrics
                                   → metrics/compare.json, metrics/report.html, metrics/answers.csv,
                                     metrics/verdicts.csv, metrics/model_card.md

Open metrics/report.html in a browser: question, reference and both answers, the verdicts, the curves. compare.json has
the verdicts briefly, for `dvc metrics diff`; verdicts.csv has all that was computed.
"""

import logging
import textwrap
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.compare.report import draw_curves, format_delta, format_interval, format_number, format_p, render_template
from pipeline.compare.verdicts import (
    Comparison,
    align_predictions,
    compare_predictions,
    method_note,
    require_metrics_version,
    verdict_sentence,
)
from pipeline.config.params import Params
from pipeline.core.entrypoint import stage
from pipeline.core.files import atomic_write, damaged_error, read_json, read_jsonl, write_json
from pipeline.core.paths import METRICS, PREDICTIONS
from pipeline.errors import DataError

log = logging.getLogger(__name__)

MODELS = ("base", "finetuned")
OF_BOTH = ("id", "prompt", "reference", "tokens", "bytes")
HEADER = ("", "base", "finetuned", "change", "95% of the change", "p", "verdict")
NEXT = (
    f"All answers side by side: {METRICS}/report.html (in a browser), {METRICS}/answers.csv",
    "A model's answers can be wrong; where they speak of health, they are no medical advice.",
)
Prediction = dict[str, Any]


def predictions_of(name: str) -> tuple[dict[str, Any], list[Prediction]]:
    """(metrics, predictions) of a model; DataError unless evaluate wrote both as it does now."""
    metrics, rows = read_json(METRICS / "evaluate" / f"{name}.json"), read_jsonl(PREDICTIONS / f"{name}.jsonl")
    require_metrics_version(metrics, name)
    if metrics.get("rows") != len(rows):
        raise DataError(
            f"{PREDICTIONS / name}.jsonl has {len(rows):,} rows, and {metrics.get('rows')} were measured: the file is not whole "
            "or of another run. Evaluate the model anew: dvc repro -f evaluate"
        )
    return metrics, rows


def pair_predictions(base: list[Prediction], finetuned: list[Prediction]) -> list[Prediction]:
    """One row a question: what both share, then base and finetuned with the answer and scores of each."""
    pairs = []
    for before, after in zip(base, finetuned, strict=True):
        shared = {name: before[name] for name in OF_BOTH if name in before and before[name] == after.get(name)}
        own = [{name: value for name, value in row.items() if name not in shared} for row in (before, after)]
        pairs.append({**shared, "base": own[0], "finetuned": own[1]})
    return pairs


def comparison_metrics(comparison: Comparison) -> dict[str, Any]:
    """The comparison as metrics: of each measure base, finetuned, delta with its interval, p and verdict where tested."""
    found: dict[str, Any] = {}
    for name, (_, result, _, p, verdict) in comparison.measures.items():
        values = {"base": result.base, "finetuned": result.other, "delta": result.delta}
        values |= {"low": result.low, "high": result.high, "p": p, "verdict": verdict}
        found[name] = {key: value for key, value in values.items() if value is not None}
    about = {"verdict": comparison.verdict, "rows": comparison.rows, "tests": len(comparison.family)}
    return {**found, "overall": {**about, "resamples": comparison.resamples, "seed": comparison.seed}}


def verdicts_table(comparison: Comparison) -> pd.DataFrame:
    """All that was computed, a line a measure; cells are empty where there is nothing to say."""
    return pd.DataFrame(
        {
            "metric": name,
            "kind": judged.measure.kind,
            **_ends("base", judged.paired.base_interval),
            **_ends("finetuned", judged.paired.other_interval),
            **_ends("delta", judged.paired[2:5]),
            **{
                key: getattr(judged.paired, key) for key in ("wins", "ties", "losses", "p_bootstrap", "p_randomisation")
            },
            "p_mcnemar": judged.p_mcnemar,
            "p_corrected": judged.p,
            "verdict": judged.verdict,
            **{"rows": comparison.rows, "resamples": comparison.resamples, "seed": comparison.seed},
        }
        for name, judged in comparison.measures.items()
    )


def _ends(name: str, interval: tuple[float, float | None, float | None]) -> dict[str, float | None]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), interval, strict=True))


def answers_table(pairs: list[Prediction]) -> pd.DataFrame:
    """The pairs as a flat table: prompt, reference, base.prediction, finetuned.prediction, base.f1, …"""
    return pd.json_normalize(pairs)


def write_report(
    pairs: list[Prediction], comparison: Comparison, facts: dict[str, Any], drawn: dict[str, Any], examples: int
) -> None:
    for name, table in (("answers.csv", answers_table(pairs)), ("verdicts.csv", verdicts_table(comparison))):
        with atomic_write(METRICS / name) as temporary:
            table.to_csv(temporary, index=False)
    said = {"comparison": comparison, "sentence": verdict_sentence(comparison), "grounds": method_note(comparison)}
    page = render_template(
        "pipeline.compare", "report.html.j2", pairs=pairs[:examples], total=len(pairs), curves=drawn, **said, **facts
    )
    card = render_template("pipeline.compare", "model_card.md.j2", **said, **facts)
    for name, text in (("report.html", page), ("model_card.md", card)):
        with atomic_write(METRICS / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    write_json(METRICS / "compare.json", comparison_metrics(comparison))


def read_history(path: Path) -> pd.DataFrame:
    """The table that the train stage wrote; DataError if it is not that any more."""
    try:
        return pd.read_csv(path, sep="\t")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise damaged_error(path, error) from None


def console_table(comparison: Comparison) -> list[str]:
    """The comparison as lines for the console."""
    rows = [
        (
            name,
            *(
                format_number(result.base),
                format_number(result.other),
                format_delta(result.delta),
                format_interval(result.low, result.high),
            ),
            *(format_p(p), verdict or ""),
        )
        for name, (_, result, _, p, verdict) in comparison.measures.items()
    ]
    return [
        f"{name:<19} {base:>9} {tuned:>10} {change:>10}  {interval:<22} {p:>7}  {verdict}".rstrip()
        for name, base, tuned, change, interval, p, verdict in [HEADER, *rows]
    ]


def console_example(pairs: list[Prediction]) -> list[str]:
    """The first test row that has answers, with both; nothing for plain text, which is not asked."""
    answered = [pair for pair in pairs if "prediction" in pair["base"]]
    shown = [
        (name, textwrap.shorten(text, 110, placeholder=" …"))
        for pair in answered[:1]
        for name, text in (
            ("prompt", pair["prompt"]),
            ("reference", pair["reference"]),
            ("base", pair["base"]["prediction"]),
            ("finetuned", pair["finetuned"]["prediction"]),
        )
    ]
    return [*(f"{name:<12} {text}" for name, text in shown), ""] if shown else []


@stage("compare")
def main(params: Params) -> None:
    log.info("Setting the base model and the fine-tuned one side by side")
    (measured, base), (_, finetuned) = (predictions_of(name) for name in MODELS)
    finetuned = align_predictions(base, finetuned, MODELS)
    comparison = compare_predictions(base, finetuned, params.compare.resamples, params.compare.seed)
    pairs = pair_predictions(base, finetuned)
    facts = {
        "signature": measured.get("signature", {}),
        **{name: read_json(METRICS / f"{name}.json") for name in ("clean", "format", "tokenize", "train")},
        "data": read_json(METRICS / "fetch" / "data.json"),
        "model": read_json(METRICS / "fetch" / "model.json"),
    }
    training, validation = (read_history(METRICS / "train" / name) for name in ("history.tsv", "validation.tsv"))
    write_report(pairs, comparison, facts, draw_curves(training, validation), params.compare.examples)
    log.info("\n".join(["", *console_table(comparison), "", verdict_sentence(comparison), method_note(comparison), ""]))
    log.info("\n".join([*console_example(pairs), *NEXT]))
