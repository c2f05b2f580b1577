"""Sets the base model and the fine-tuned one side by side.

    python -m pipeline.compare     data/predictions/{base,finetuned}.jsonl, the other stages' metrics
                                   → metrics/compare.json, metrics/report.html, metrics/answers.csv,
                                     metrics/model_card.md

Open metrics/report.html in a browser: question, reference and both answers, the metrics, the curves.
"""

import logging
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.errors import DataError
from pipeline.files import read_json, read_jsonl, whole, write_json
from pipeline.params import Params
from pipeline.report import curves, rendered
from pipeline.stage import stage

log = logging.getLogger(__name__)

METRICS, PREDICTIONS = Path("metrics"), Path("data/predictions")
OF_BOTH = ("id", "prompt", "reference")
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


@stage("compare")
def main(params: Params) -> None:
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
    training, validation = (
        pd.read_csv(METRICS / "train" / name, sep="\t") for name in ("history.tsv", "validation.tsv")
    )
    write(pairs, facts, curves(training, validation), params.compare.examples)
    write_json(METRICS / "compare.json", metrics)
    for name, value in metrics.items():
        log.info("%-12s %10.4g → %-10.4g %+.4g", name, value["base"], value["finetuned"], value["delta"])
    log.info("The answers side by side: %s", METRICS / "report.html")


if __name__ == "__main__":
    main()
