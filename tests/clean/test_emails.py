"""pipeline/clean/emails.py on replies as help desks export them."""

import pytest

from pipeline.clean.emails import strip_quoted_reply, strip_signature

QUOTED = {
    "Gmail": "Press reset.\n\nOn Tue, 3 Feb 2024 at 10:11, Jo Ray <jo@example.org> wrote:\n\n> It is stuck.\n> Since Monday.",
    "without a time": "Press reset.\n\nOn Monday, customer wrote:\n> It is stuck.",
    "two lines": "Press reset.\n\nOn Tue, 3 Feb 2024 at 10:11, Josephine Raymond <jo.raymond@example.org>\nwrote:\n\n> Stuck.",
    "not marked": "Press reset.\n\nOn Tue, 3 Feb 2024 at 10:11, Jo Ray <jo@example.org> wrote:\n\nIt is stuck.",
    "German": "Press reset.\n\nAm Di., 3. Feb. 2024 um 10:11 schrieb Jo <jo@example.org>:\n> Hallo",
    "French": "Press reset.\n\nLe mar. 3 févr. 2024 à 10:11, Jo <jo@example.org> a écrit :\n> Bonjour",
    "Spanish": "Press reset.\n\nEl mar, 3 feb 2024 a las 10:11, Jo (<jo@example.org>) escribió:\n> Hola",
    "Portuguese": "Press reset.\n\nEm ter., 3 de fev. de 2024 às 10:11, Jo <jo@example.org> escreveu:\n> Olá",
    "Japanese": "Press reset.\n\n2024年2月3日(火) 10:11 Jo <jo@example.org>:\n> こんにちは",
    "Outlook": "Press reset.\n\nFrom: Jo <jo@example.org>\nSent: Monday, 3 Feb 2024\nTo: Support\nSubject: printer\n\nStuck.",
    "Outlook in German": "Press reset.\n\nVon: Jo\nGesendet: Montag\nAn: Support\nBetreff: Drucker\n\nHallo",
    "Outlook with a line": (
        "Press reset.\n________________________________\nFrom: Jo\nSent: Monday\nTo: Support\nSubject: x\n\nStuck."
    ),
    "original message": "Press reset.\n\n-----Original Message-----\nFrom: Jo\nSent: Monday\nTo: Support\n\nIt is stuck.",
    "quote alone": "Press reset.\n\n> It is stuck.\n>> Really?",
    "answer below": "On Tue, 3 Feb 2024, Jo <jo@example.org> wrote:\n> It is stuck.\n\nPress reset.",
}


@pytest.mark.parametrize("text", QUOTED.values(), ids=QUOTED)
def test_quoted_message_is_removed(text: str) -> None:
    assert strip_quoted_reply(text) == "Press reset."


NOT_QUOTED = {
    "quote alone": "> It is stuck.",
    "header alone": "On Tue, 3 Feb 2024 at 10:11, Jo <jo@example.org> wrote:\n> It is stuck.",
    "answers between": "> Is it stuck?\nYes.\n> Since when?\nMonday.",
    "a form": "Fill in:\nFrom: 1 May\nTo: 3 May\nThen press OK.",
    "somebody wrote": "In 2024 the maker wrote:\nPress reset.",
    "list": "Do this:\n- one\n- two\nDo: restart\nData: 5",
    "code": "    -- a comment\n    select 1 > 0",
}


@pytest.mark.parametrize("text", NOT_QUOTED.values(), ids=NOT_QUOTED)
def test_text_without_a_quoted_message_stays(text: str) -> None:
    assert strip_quoted_reply(text) == text


SIGNED = {
    "closing": "Press reset.\n\nBest regards,\nMaria\nLedgerly Support",
    "one line": "Press reset.\nThanks, Maria",
    "delimiter": "Press reset.\n-- \nMaria\nLedgerly",
    "phone": "Press reset.\n\nSent from my iPhone",
    "German": "Press reset.\n\nMit freundlichen Grüßen\nMaria Lang",
    "French": "Press reset.\n\nCordialement,\nMaria",
    "address": "Press reset.\nCheers\nMaria Lang | Ledgerly | +1 555 010 9999\nwww.example.org",
    "disclaimer": "Press reset.\n\nKind regards\nMaria\n\nThis e-mail is confidential and may be privileged.",
}


@pytest.mark.parametrize("text", SIGNED.values(), ids=SIGNED)
def test_signature_is_removed(text: str) -> None:
    assert strip_signature(text) == "Press reset."


NOT_SIGNED = {
    "nothing else": "Best regards,\nMaria",
    "thanks first": "Thanks, I see.\nPress reset.",
    "sentences": "Hello,\nThanks, this is known.\nTake the cable.\nBest regards to all.",
    "closing before a sentence": "Hello.\nThanks,\nwe will look into it today and call you.",
    "list": "Do this:\n- one\n- two",
    "path": "Open\n/etc/hosts\nand edit it.",
    "postscript": "Press reset.\n\nRegards,\nMaria\n\nP.S. Then call us.",
}


@pytest.mark.parametrize("text", NOT_SIGNED.values(), ids=NOT_SIGNED)
def test_text_without_a_signature_stays(text: str) -> None:
    assert strip_signature(text) == text


def test_signature_above_a_quoted_message_is_removed_and_the_message_stays() -> None:
    quoted = "On Tue, 3 Feb 2024 at 10:11, Jo <jo@example.org> wrote:\n> It is stuck."
    text = f"Press reset.\n\nBest,\nMaria\n\n{quoted}"
    assert strip_signature(text) == f"Press reset.\n\n{quoted}"
    assert strip_signature(strip_quoted_reply(text)) == "Press reset."


@pytest.mark.parametrize("text", ["word " * 50_000, "a: b\n" * 20_000 + "x", "From: x\nTo: y\nz\n" * 10_000])
def test_long_texts_take_no_quadratic_time(text: str) -> None:
    assert strip_signature(strip_quoted_reply(text)) == text
