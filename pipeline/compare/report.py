"""Helpers for the report, the model card and other pages: number formats, Jinja templates, training curves.

Values that come from data are HTML-escaped.
"""

import io
from typing import Any

import jinja2
import matplotlib
import pandas as pd
from markupsafe import Markup

from pipeline.core.console import printable

matplotlib.use("svg")
from matplotlib import pyplot as plt

MAX_EXCERPT = 2000  # characters of a prompt or an answer on a page


def format_number(value: float) -> str:
    """Four significant digits, without an exponent below a million.

    >>> format_number(0.41237), format_number(2110.2), format_number(-7.25), format_number(1e9)
    ('0.4124', '2,110', '-7.25', '1e+09')
    """
    if abs(value) >= 1e6:
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def format_delta(value: float) -> str:
    """A difference with its sign.

    >>> format_delta(0.5), format_delta(-0.5), format_delta(0.0)
    ('+0.5', '-0.5', '0')
    """
    return ("+" if value > 0 else "") + format_number(value)


def format_interval(low: float | None, high: float | None) -> str:
    """A confidence interval, or a dash if there is none (a single test row).

    >>> format_interval(0.52348, 0.67786), format_interval(-1.5, 2.0), format_interval(None, None)
    ('0.5235 to 0.6779', '-1.5 to 2', '–')
    """
    return "–" if low is None or high is None else f"{format_number(low)} to {format_number(high)}"


def format_p(p: float | None) -> str:
    """A p-value, or nothing for a metric that is not tested.

    >>> format_p(0.00079), format_p(0.0312), format_p(1.0), format_p(None)
    ('<0.001', '0.031', '1', '')
    """
    if p is None:
        return ""
    return "<0.001" if p < 0.001 else f"{p:.2g}"


def excerpt(text: str) -> str:
    """A text for a page: a long one is cut, so that a browser can show a page of many.

    >>> excerpt("Rest."), excerpt("x" * 5000)[-29:]
    ('Rest.', 'xxx … (3,000 more characters)')
    """
    rest = len(text) - MAX_EXCERPT
    return text if rest <= 0 else f"{text[:MAX_EXCERPT]} … ({rest:,} more characters)"


def render_template(package: str, template: str, **values: Any) -> str:
    """Render a template from the `pages` folder of `package`. Values are escaped in templates that end in .html.j2."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package, "pages"),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters = (format_number, format_delta, format_p, excerpt, printable)
    environment.filters.update({function.__name__: function for function in filters})
    environment.globals.update(format_interval=format_interval)
    return environment.get_template(template).render(**values)


def draw_curves(training: pd.DataFrame, validation: pd.DataFrame) -> dict[str, Markup]:
    """Loss and learning rate by optimizer step, as inline SVG. The same history always gives the same bytes."""
    steps = training["step"]
    losses = {"training": (steps, training["loss"]), "validation": (validation["step"], validation["validation_loss"])}
    return {
        "loss": _draw_curve(losses, "nats per token"),
        "learning rate": _draw_curve({"learning rate": (steps, training["learning_rate"])}, ""),
    }


def _draw_curve(lines: dict[str, tuple["pd.Series[Any]", "pd.Series[Any]"]], label: str) -> Markup:
    with plt.rc_context(
        {"svg.hashsalt": "curve", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10}
    ):
        figure, axes = plt.subplots(figsize=(5.6, 3), layout="constrained")
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
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        plt.close(figure)
    svg = text.getvalue()
    return Markup(svg[svg.index("<svg") :])
