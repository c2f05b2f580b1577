"""Why clean drops a row for what its texts say: nothing but boilerplate, too long, another language, and so on."""

import re
from collections.abc import Callable
from typing import Any

from pipeline.clean.transforms import mask_contacts
from pipeline.config.params import Clean, Length
from pipeline.core.paths import BASE
from pipeline.errors import ConfigError

LETTER = re.compile(r"[^\W_]")  # or digit


class Filters:
    """The filters that the parameters ask for; `reason` names the first that a row does not pass."""

    def __init__(self, options: Clean) -> None:
        self.options = options
        self.boilerplate = [re.compile(pattern, re.IGNORECASE) for pattern in options.boilerplate]
        limits = (options.question, options.answer)
        needs_tokens = any(limit.min_tokens or limit.max_tokens for limit in limits)
        self.tokens: Callable[[str], int] = _token_counter() if needs_tokens else len
        self.language = _language_of(options.languages) if options.languages else None

    def reason(self, question: str, answer: str) -> str | None:
        """Why a row with these tidied texts is dropped; None if it is kept."""
        options = self.options
        if is_covered(answer, self.boilerplate):
            return "boilerplate"
        if options.max_boilerplate is not None and self._boilerplate_share(answer) > options.max_boilerplate:
            return "mostly_boilerplate"
        if options.contacts == "drop" and any(mask_contacts(text) != text for text in (question, answer)):
            return "contacts"
        sides = ((question, options.question), (answer, options.answer))
        if outside := next((found for text, limit in sides if (found := self._outside(text, limit))), None):
            return outside
        limit = options.max_nonletters
        if limit is not None and max(nonletter_share(question), nonletter_share(answer)) > limit:
            return "mostly_nonletters"
        if self.language and self.language(f"{question}\n{answer}") not in (options.languages or ()):
            return "other_language"
        return None

    def _outside(self, text: str, limit: Length) -> str | None:
        for size_of, least, most in (
            (len, limit.min_characters, limit.max_characters),
            (self.tokens, limit.min_tokens, limit.max_tokens),
        ):
            size = size_of(text) if least or most else 0
            if least and size < least:
                return "too_short"
            if most and size > most:
                return "too_long"
        return None

    def _boilerplate_share(self, answer: str) -> float:
        left = answer
        for pattern in self.boilerplate:
            left = pattern.sub(" ", left)
        return 1 - len(LETTER.findall(left)) / max(1, len(LETTER.findall(answer)))


def is_covered(text: str, patterns: list[re.Pattern[str]]) -> bool:
    """Whether matches of the patterns, one after another, hold every letter and digit of a text, and it has some."""
    at, found = 0, LETTER.search(text)
    while found:
        at = found.start()
        for pattern in patterns:
            match = pattern.match(text, at)
            if match and match.end() > at:
                at = match.end()
                break
        else:
            return False
        found = LETTER.search(text, at)
    return at > 0


def nonletter_share(text: str) -> float:
    """The share of a text's characters, spaces aside, that are neither letters nor the marks upon them.

    >>> nonletter_share("Hb 12"), nonletter_share("")
    (0.5, 0.0)
    """
    signs = "".join(text.split())
    if signs.isalpha() or not signs:
        return 0.0
    import unicodedata

    return sum(unicodedata.category(sign)[0] not in "LM" for sign in signs) / len(signs)


def _token_counter() -> Callable[[str], int]:
    """How many tokens the base model's tokenizer makes of a text, special ones aside."""
    from pipeline.modeling.encoding import load_encoder

    tokenizer = load_encoder(BASE).tokenizer
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def _language_of(wanted: list[str]) -> Callable[[str], str]:
    """The language of a text, as py3langid tells it; ConfigError for a language that it does not know."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier: Any = LanguageIdentifier.from_model_file(MODEL_FILE)
    known = sorted(identifier.labels)
    if unknown := [each for each in wanted if each not in known]:
        raise ConfigError(f"clean.languages: {', '.join(unknown)} unknown; expected some of {', '.join(known)}")
    return lambda text: identifier.classify(text)[0]
