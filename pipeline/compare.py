"""Sets the base model and the fine-tuned one side by side.

    python -m pipeline.compare     data/predictions/{base,finetuned}.jsonl, the other stages' metrics
                                   → metrics/compare.json, metrics/report.html, metrics/answers.csv,
                                     metrics/model_card.md

Open metrics/report.html in a browser: question, reference and both answers, the metrics, the curves.
"""

import logging
import textwrap
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.errors import DataError
from pipeline.files import damaged, read_json, read_jsonl, whole, write_json
from pipeline.params import Params
from pipeline.report import curves, figure, rendered, signed
from pipeline.stage import stage

log = logging.getLogger(__name__)

METRICS, PREDICTIONS = Path("metrics"), Path("data/predictions")
OF_BOTH = ("id", "prompt", "reference")
HEADER = ("", "base", "finetuned", "change")
NEXT = (
    f"All answers side by side: {METRICS}/report.html (in a browser), {METRICS}/answers.csv",
    "A model's answers can be wrong; where they speak of health, they are no medical advice.",
)
Row = dict[str, Any]


def deltas(base: dict[str, Any], finetuned: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Each metric that both have, with its change; counts of rows and signatures are none.

    >>> deltas({"rows": 3, "f1": 0.25}, {"rows": 3, "f1": 0.75})
    {'f1': {'base': 0.25, 'finetuned': 0.75, 'delta': 0.5}}
    """
    names = [name for name in base if isinstance(base[name], float) and name in finetuned]
    return {
        name: {"base": base[name], "finetuned": finetuned[name], "delta": finetuned[name] - base[name]}
        for name in names
    }


def paired(base: list[Row], finetuned: list[Row]) -> list[Row]:
    """One row a question: what both share, then base and finetuned with the answer and scores of each.

    DataError if the two did not answer the same rows.
    """
    if [row["id"] for row in base] != [row["id"] for row in finetuned]:
        raise DataError(
            f"base answered {len(base):,} test rows and finetuned {len(finetuned):,}, and they are not the same rows. "
            "Evaluate both on the present test set: dvc repro"
        )
    pairs = []
    for before, after in zip(base, finetuned, strict=True):
        shared = {name: before[name] for name in OF_BOTH if name in before}
        own = [{name: value for name, value in row.items() if name not in OF_BOTH} for row in (before, after)]
        pairs.append({**shared, "base": own[0], "finetuned": own[1]})
    return pairs


def answers_table(pairs: list[Row]) -> pd.DataFrame:
    """The pairs as a flat table: prompt, reference, base.prediction, finetuned.prediction, base.f1, …"""
    return pd.json_normalize(pairs)


def write(pairs: list[Row], facts: dict[str, Any], drawn: dict[str, Any], examples: int) -> None:
    with whole(METRICS / "answers.csv") as temporary:
        answers_table(pairs).to_csv(temporary, index=False)
    page = rendered("report.html.j2", pairs=pairs[:examples], total=len(pairs), curves=drawn, **facts)
    card = rendered("model_card.md.j2", **facts)
    for name, text in (("report.html", page), ("model_card.md", card)):
        with whole(METRICS / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def read_history(path: Path) -> pd.DataFrame:
    """The table that the train stage wrote; DataError if it is not that any more."""
    try:
        return pd.read_csv(path, sep="\t")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise damaged(path, error) from None


def table(metrics: dict[str, dict[str, float]]) -> list[str]:
    """
    >>> print("\\n".join(table({"f1": {"base": 0.25, "finetuned": 0.75, "delta": 0.5}})))
                      base  finetuned     change
    f1                0.25       0.75       +0.5
    """
    rows = [(name, figure(v["base"]), figure(v["finetuned"]), signed(v["delta"])) for name, v in metrics.items()]
    return [f"{name:<12} {base:>9} {tuned:>10} {change:>10}" for name, base, tuned, change in [HEADER, *rows]]


def example(pairs: list[Row]) -> list[str]:
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
    base, finetuned = (read_json(METRICS / "evaluate" / f"{name}.json") for name in ("base", "finetuned"))
    pairs = paired(*(read_jsonl(PREDICTIONS / f"{name}.jsonl") for name in ("base", "finetuned")))
    metrics = deltas(base, finetuned)
    facts = {
        "metrics": metrics,
        "rows": base["rows"],
        "signature": base.get("signature", {}),
        **{name: read_json(METRICS / f"{name}.json") for name in ("clean", "format", "tokenize", "train")},
        "data": read_json(METRICS / "fetch" / "data.json"),
        "model": read_json(METRICS / "fetch" / "model.json"),
    }
    training, validation = (read_history(METRICS / "train" / name) for name in ("history.tsv", "validation.tsv"))
    write(pairs, facts, curves(training, validation), params.compare.examples)
    write_json(METRICS / "compare.json", metrics)
    log.info("\n".join(["", *table(metrics), "", *example(pairs), *NEXT]))


if __name__ == "__main__":
    main()
