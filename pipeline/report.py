"""The page and the model card, rendered from templates; everything that comes from data is escaped."""

import io
from typing import Any

import jinja2
import matplotlib
import pandas as pd
from markupsafe import Markup

matplotlib.use("svg")
from matplotlib import pyplot as plt

# What a metric says, and whether more of it is better (None: neither).
METRICS: dict[str, tuple[str, str, bool | None]] = {
    "exact_match": ("Exact match", "share of answers equal to the reference, as SQuAD v1.1 compares", True),
    "f1": ("Token F1", "words shared with the reference, SQuAD v1.1", True),
    "bleu": ("BLEU", "n-grams shared over the whole test set, 0 to 100", True),
    "rouge1": ("ROUGE-1", "words shared, stemmed, F-measure", True),
    "rouge2": ("ROUGE-2", "pairs of words shared, stemmed, F-measure", True),
    "rougeL": ("ROUGE-L", "longest common subsequence, stemmed, F-measure", True),
    "new_tokens": ("Answer length", "tokens, mean", None),
    "finished": ("Finished", "share of answers that the model itself ended", True),
    "loss": ("Held-out loss", "nats a token of the reference answers", False),
    "perplexity": ("Perplexity", "exp of the held-out loss", False),
}


def figure(value: float) -> str:
    """A figure as people read it: four digits that matter, no exponent for usual sizes.

    >>> figure(0.41237), figure(2110.2), figure(-7.25), figure(1e9)
    ('0.4124', '2,110', '-7.25', '1e+09')
    """
    if abs(value) >= 1e6:
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def signed(value: float) -> str:
    """A change, its sign before it.

    >>> signed(0.5), signed(-0.5), signed(0.0)
    ('+0.5', '-0.5', '0')
    """
    return ("+" if value > 0 else "") + figure(value)


def rendered(template: str, **values: Any) -> str:
    """A template of pipeline/pages/, filled in; HTML is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline", "pages"),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(figure=figure, signed=signed)
    return environment.get_template(template).render(known=METRICS, **values)


def curves(training: pd.DataFrame, validation: pd.DataFrame) -> dict[str, Markup]:
    """Loss and learning rate over the optimizer steps, each as inline SVG: the same bytes for the same history."""
    steps = training["step"]
    losses = {"training": (steps, training["loss"]), "validation": (validation["step"], validation["validation_loss"])}
    return {
        "loss": _curve(losses, "nats a token"),
        "learning rate": _curve({"learning rate": (steps, training["learning_rate"])}, ""),
    }


def _curve(lines: dict[str, tuple[pd.Series, pd.Series]], label: str) -> Markup:
    style = {"svg.hashsalt": "curve", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10}
    with plt.rc_context(style):
        canvas, axes = plt.subplots(figsize=(5.6, 3), layout="constrained")
        for (name, (steps, values)), color in zip(lines.items(), ("#7a8699", "#0b7a5c"), strict=False):
            marker = "o" if len(steps) < 30 else None
            axes.plot(steps, values, label=name, color=color, marker=marker, markersize=3, linewidth=1.6)
        axes.set_xlabel("optimizer step")
        axes.set_ylabel(label)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        if len(lines) > 1:
            axes.legend(frameon=False)
        text = io.StringIO()
        canvas.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        plt.close(canvas)
    svg = text.getvalue()
    return Markup(svg[svg.index("<svg") :])
