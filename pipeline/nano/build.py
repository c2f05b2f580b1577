"""Builds `models/nano`, the default base model: a small GPT-NeoX pretrained on articles about every condition.

    python -m pipeline.nano     data/knowledge/conditions.yaml → models/nano/

It knows the facts and has never seen a question, so that fine-tuning only has to teach it to answer. The same recipe gives the
same bytes on the same machine. README.md in the model folder records the recipe and the loss.
"""

import logging
import random
import statistics
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from pipeline.compare.report import render_template
from pipeline.core.entrypoint import report_errors
from pipeline.core.files import atomic_write, sha256_of_path
from pipeline.fetch.scratch_model import new_model, train_tokenizer
from pipeline.modeling.loading import quiet_transformers
from pipeline.nano.articles import generate_edition
from pipeline.synthetic.dialogues import Knowledge, read_knowledge

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

KNOWLEDGE, NANO = Path("data/knowledge/conditions.yaml"), Path("models/nano")


@dataclass(frozen=True)
class Recipe:
    seed: int = 0
    """of the articles and of the initial weights; batches follow the order of the articles"""
    editions: int = 140
    """passes over the knowledge, each in other wordings"""
    vocabulary: int = 4096
    """tokens"""
    positions: int = 512
    layers: int = 4
    hidden_size: int = 192
    heads: int = 4
    length: int = 128
    """tokens in a row: the articles are concatenated and divided into rows of this length"""
    batch_size: int = 8
    """rows in an optimizer step"""
    learning_rate: float = 2e-3
    """AdamW with beta2 0.98, weight decay 0.1, gradients clipped at 1, cosine decay to 0"""
    warmup_steps: int = 100


def generate_articles(knowledge: Knowledge, recipe: Recipe) -> list[str]:
    rng = random.Random(recipe.seed)
    return [article for _ in range(recipe.editions) for article in generate_edition(knowledge, rng)]


def token_batches(texts: list[str], tokenizer: Any, recipe: Recipe) -> "torch.Tensor":
    """input_ids (steps, rows, tokens): the texts, each followed by the end of text. An incomplete last batch is dropped."""
    import torch

    encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
    stream = torch.tensor([token for ids in encoded for token in (*ids, tokenizer.eos_token_id)])
    tokens = recipe.batch_size * recipe.length
    steps = len(stream) // tokens
    return stream[: steps * tokens].view(steps, recipe.batch_size, recipe.length)


def pretrain(model: Any, rows: "torch.Tensor", recipe: Recipe) -> Iterator[float]:
    """Train one optimizer step on each batch; yield its loss in nats per token."""
    import torch
    from transformers import get_cosine_schedule_with_warmup

    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.1, fused=True
    )
    schedule = get_cosine_schedule_with_warmup(optimizer, recipe.warmup_steps, len(rows))
    model.train()
    for input_ids in rows:
        loss = model(input_ids=input_ids, labels=input_ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        yield loss.item()


def build_nano(recipe: Recipe, knowledge: Path, folder: Path) -> dict[str, Any]:
    """Write the model in bfloat16, its tokenizer and its card to `folder`; return the counts and the loss for the card."""
    import torch

    quiet_transformers()
    texts = generate_articles(read_knowledge(knowledge), recipe)
    tokenizer = train_tokenizer(iter(texts), recipe.vocabulary, recipe.positions)
    rows = token_batches(texts, tokenizer, recipe)
    shape = {"layers": recipe.layers, "hidden_size": recipe.hidden_size, "heads": recipe.heads}
    model = new_model(tokenizer, **shape, positions=recipe.positions, seed=recipe.seed)
    log.info(
        f"Training {model.num_parameters():,} parameters on {len(texts):,} articles, {rows.numel():,} tokens: {len(rows):,} steps"
    )
    losses = []
    for loss in (bar := tqdm(pretrain(model, rows, recipe), total=len(rows), unit="step", disable=None)):
        losses.append(loss)
        bar.set_postfix_str(f"loss {loss:.3f}")
        if bar.disable and len(losses) % 100 == 0:
            log.info(f"step {len(losses):,}/{len(rows):,}  loss {loss:.3f}")
    last_edition = losses[-max(1, len(rows) // recipe.editions) :]
    stats = {
        "parameters": model.num_parameters(),
        "articles": len(texts),
        "tokens": rows.numel(),
        "steps": len(rows),
        "loss": round(statistics.fmean(last_edition), 4),
    }
    with atomic_write(folder) as target:
        model.to(torch.bfloat16).save_pretrained(target)
        tokenizer.save_pretrained(target)
        card = render_template(
            "pipeline.nano", "nano.md.j2", recipe=asdict(recipe), knowledge=sha256_of_path(knowledge), **stats
        )
        (target / "README.md").write_text(card, encoding="utf-8")
    return stats


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    with report_errors("nano"):
        stats = build_nano(Recipe(), KNOWLEDGE, NANO)
    log.info(f"loss of the last edition {stats['loss']:.3f} nats per token → {NANO}/")
