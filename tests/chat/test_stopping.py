"""A trained chat model ends its answers, because their end is in the labels; without it, it goes on."""

from pathlib import Path

import pytest
from support.project import SHIPPED

from bench import stopping
from bench.chat_models import FAMILIES
from bench.dialogues import generate_dialogues

pytestmark = pytest.mark.slow


def test_answers_end_because_their_end_is_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "ROOT", SHIPPED)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    overrides = ("train.epochs=5", "compute.threads=1")
    params = stopping.prepare(FAMILIES["Qwen2"], generate_dialogues(300), tmp_path, overrides)
    configured, masked = stopping.measure(params, tmp_path)
    assert configured.questions == masked.questions >= 40
    assert configured.stopped >= 0.95 * configured.questions
    assert masked.stopped < 0.3 * masked.questions
