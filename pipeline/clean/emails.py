"""Removes what e-mail programs add to a reply: the quoted message before it, and the signature.

The words by which both are recognized come from mail-parser-reply, and a few of its languages' missing ones from here. Its own
cuts are not used: they also take lists, sentences that begin with "Thanks," and lines such as "To: the printer".
"""

import re
from collections.abc import Callable
from functools import lru_cache
from itertools import chain

from pipeline.records.text import is_blank

# "On Tue, 3 Feb 2024 at 10:11, Jo <jo@example.org> wrote:", on one line or two.
WROTE = re.compile(
    r"\b(?:wrote|writes|schrieb|a écrit|escribió|ha scritto|escreveu|schreef|skrev|napisał|napsal|написал|написала|пише|"
    r"kirjoitti|yazdı|írta|a scris|έγραψε)\b|写道|寫道|님이 작성",
    re.IGNORECASE,
)
SENDER_OR_TIME = re.compile(r"\S@\S|\d[:.h]\d\d")
BEFORE_WROTE = re.compile(r"^(?:> ?)*\S.*(?:\d|@)")  # the first of two lines
# The block that Outlook puts above the message it answers, with at least three of its lines.
HEADER_LINE = re.compile(
    r"^(?:> ?)*[* ]*(?:From|Sent|To|Subject|Date|Cc|Von|Gesendet|An|Betreff|Datum|De|Envoyé|À|Objet|Enviado|Para|Asunto|"
    r"Fecha|Da|Inviato|A|Oggetto|Data|Assunto|Van|Verzonden|Aan|Onderwerp|Från|Skickat|Till|Ämne|Fra|Sendt|Til|Emne|Od|"
    r"Wysłano|Do|Temat|Odesláno|Komu|Předmět|От|Отправлено|Кому|Тема|发件人|发送时间|收件人|主题|差出人|送信日時|宛先|件名)"
    r"\*? ?[:：]\*? ?\S",
    re.IGNORECASE,
)
HEADER_LINES = 3
SEPARATOR = re.compile(r"^\s*(?:> ?)*[-_]{3,}[\s\w]{0,40}[-_]{2,}\s*$")  # -----Original Message-----, ________
FORWARDED = re.compile(
    r"^(?:Begin forwarded message|Anfang der weitergeleiteten Nachricht|Début du message transféré)\s?:$"
)
QUOTE = re.compile(r"^\s*>")

MORE_CLOSINGS = (
    "regards|warm regards|many thanks|thanks|thank you|thanks again|sincerely|yours sincerely|yours faithfully|yours truly|"
    "cheers|best|best wishes|warmly|respectfully|freundliche grüße|mit freundlichen grüssen|mit freundlichem gruß|"
    "herzliche grüße|lg|mfg|vg|cordialement|bien cordialement|bien à vous|salutations distinguées|saludos|un saludo|"
    "saludos cordiales|atentamente|atenciosamente|cumprimentos|abraço|obrigado|distinti saluti|saluti|"
    "met vriendelijke groeten|groeten|с уважением|pozdrawiam|z poważaniem|ystävällisin terveisin|saygılarımla"
)
SENT_FROM = re.compile(
    r"^(?:Sent from my|Sent from Outlook|Sent via|Get Outlook for|Gesendet von mein|Von meinem .* gesendet|"
    r"Envoyé de(?:puis)? mon|Enviado desde mi|Enviado do meu|Inviato da|Verzonden vanaf mijn|Skickat från min|Sendt fra min|"
    r"Wysłano z|Отправлено с)\b.{0,60}$",
    re.IGNORECASE,
)
NAME = r"(?:[^\W\d_a-zà-öø-ÿ][\w.'’-]*)"  # begins with a capital, or has none
MAX_SIGNATURE_LINES, MAX_SIGNATURE_WIDTH = 10, 100


def strip_quoted_reply(text: str) -> str:
    """The text without the message that it answers; the text itself if nothing else would be left.

    >>> strip_quoted_reply("Press reset.\\n\\nOn Tue, 3 Feb 2024 at 10:11, Jo wrote:\\n> It is stuck.")
    'Press reset.'
    """
    return _unless_blank(_without_quote, text)


def strip_signature(text: str) -> str:
    """The text without the signature at its end; a quoted message below stays. The text itself if it is nothing else.

    >>> strip_signature("Press reset.\\n\\nBest regards,\\nMaria\\nLedgerly Support")
    'Press reset.'
    """
    return _unless_blank(_without_signature, text)


def _unless_blank(strip: Callable[[list[str]], list[str]], text: str) -> str:
    lines = text.split("\n")
    if (kept := strip(lines)) == lines:
        return text
    return text if is_blank(result := "\n".join(kept).rstrip()) else result


def _without_quote(lines: list[str]) -> list[str]:
    if header := _find_header(lines):
        first, after = header
        before, quoted = lines[:first], lines[after:]
        while before and (is_blank(before[-1]) or SEPARATOR.match(before[-1]) or FORWARDED.match(before[-1].strip())):
            before.pop()
        # Below a quote marked with > may be the answer; without the marks, all that follows is the old message.
        below = [line for line in quoted if not QUOTE.match(line)] if any(map(QUOTE.match, quoted)) else []
        while below and is_blank(below[0]):
            below.pop(0)
        return [*before, *([""] if before and below else []), *below]
    end = len(lines)
    while end and (is_blank(lines[end - 1]) or QUOTE.match(lines[end - 1])):
        end -= 1
    return lines[:end] if any(map(QUOTE.match, lines[end:])) else lines


def _find_header(lines: list[str]) -> tuple[int, int] | None:
    """(the first line of the header above a quoted message, the line after it); None if there is no such message."""
    for number, line in enumerate(lines):
        if _ends_in_colon(line):
            following, before = lines[number + 1 : number + 4], lines[number - 1].strip() if number else ""
            is_second_line = not SENDER_OR_TIME.search(line) and len(line) < 80 and BEFORE_WROTE.match(before)
            if is_second_line and _is_wrote_header(f"{before} {line.strip().lstrip('> ')}", following):
                return number - 1, number + 1
            if _is_wrote_header(line.strip(), following):
                return number, number + 1
        if HEADER_LINE.match(line) and (end := _end_of_header(lines, number)) - number >= HEADER_LINES:
            return number, end
    return None


def _ends_in_colon(line: str) -> bool:
    return line.rstrip().endswith((":", "："))


def _is_wrote_header(line: str, following: list[str]) -> bool:
    """Whether a line is like "Jo <jo@example.org> wrote:": it has two of a sender or time, a known verb, a quote below."""
    has_quote = next((bool(QUOTE.match(other)) for other in following if not is_blank(other)), False)
    return sum(map(bool, (SENDER_OR_TIME.search(line), WROTE.search(line), has_quote))) >= 2


def _end_of_header(lines: list[str], start: int) -> int:
    end = start
    while end < len(lines) and end < start + 12 and HEADER_LINE.match(lines[end]):
        end += 1
    return end


def _without_signature(lines: list[str]) -> list[str]:
    first, _ = _find_header(lines) or (len(lines), 0)
    if (start := _find_signature(lines[:first])) is None:
        return lines
    body = lines[:start]
    while body and is_blank(body[-1]):
        body.pop()
    return [*body, *([""] if lines[first:] else []), *lines[first:]]


def _find_signature(lines: list[str]) -> int | None:
    """The number of the line at which the signature begins, but the first line; None if there is no signature."""
    filled = [number for number, line in enumerate(lines) if not is_blank(line)]
    for position in range(max(1, len(filled) - MAX_SIGNATURE_LINES - 1), len(filled)):
        line, tail = lines[filled[position]].strip(), [lines[number].strip() for number in filled[position + 1 :]]
        if line == "--" or (SENT_FROM.match(line) and len(tail) < 3) or (_closing().match(line) and _are_details(tail)):
            return filled[position]
    return None


def _are_details(lines: list[str]) -> bool:
    """Whether the lines below a closing are names and addresses: the first is no sentence, none is long or a postscript."""
    is_sentence = bool(lines) and lines[0].endswith((".", "?", "!", ":")) and len(lines[0].split()) > 3
    is_long = any(len(line) > MAX_SIGNATURE_WIDTH for line in lines[:3])
    return not (is_sentence or is_long or any(re.match(r"p\.? ?s\b", line, re.IGNORECASE) for line in lines))


@lru_cache(maxsize=1)
def _closing() -> re.Pattern[str]:
    """A line that is a closing, such as "Best regards," or "Thanks, Maria"."""
    from mailparser_reply.constants import MAIL_LANGUAGES

    known = chain.from_iterable(language.get("signatures", []) for language in MAIL_LANGUAGES.values())
    phrases = [phrase.rstrip(",，") for phrase in known if not phrase.startswith("/")]
    return re.compile(
        rf"^(?i:{'|'.join([*phrases, MORE_CLOSINGS])})(?:\s*[,.!，。–-]*|\s*[,–-]\s*{NAME}(?:\s+{NAME}){{0,3}})$"
    )
