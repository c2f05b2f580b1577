"""A fine-tuned model is asked only through the chat template that rendered its training rows."""

from pathlib import Path

import pytest
from support.chats import CHATML, MARKED_CHATML, chat_folder

from pipeline.chat.row_format import PLAIN_TEXT, ChatFormat
from pipeline.errors import ModelError
from pipeline.evaluate.stage import require_trained_template

CHAT = ChatFormat(source=CHATML, stop_tokens=[])


def test_the_template_of_training_passes(tmp_path: Path) -> None:
    require_trained_template(chat_folder(tmp_path, CHATML), CHAT)
    require_trained_template(chat_folder(tmp_path / "text", None), PLAIN_TEXT)


@pytest.mark.parametrize("saved", [MARKED_CHATML, CHATML + "\n", None], ids=["another", "edited", "none"])
def test_another_template_is_an_error(tmp_path: Path, saved: str | None) -> None:
    with pytest.raises(ModelError, match=r"another chat template than the one that rendered its training rows"):
        require_trained_template(chat_folder(tmp_path, saved), CHAT)


def test_variables_are_part_of_the_template(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="another chat template"):
        require_trained_template(
            chat_folder(tmp_path, CHATML), CHAT.model_copy(update={"chat_template_kwargs": {"enable_thinking": False}})
        )
