"""The filters of clean: why a row is dropped because of its texts, such as boilerplate, length or language."""

import re
from collections.abc import Callable
from typing import Any

from pipeline.clean.transforms import mask_contacts
from pipeline.config.params import Clean, LengthLimits
from pipeline.core.paths import BASE
from pipeline.errors import ConfigError

LETTER_OR_DIGIT = re.compile(r"[^\W_]")


class Filters:
    """The filters that the clean section turns on."""

    def __init__(self, options: Clean) -> None:
        self.options = options
        self.boilerplate = [re.compile(pattern, re.IGNORECASE) for pattern in options.boilerplate]
        limits = (options.question, options.answer)
        needs_tokens = any(limit.min_tokens or limit.max_tokens for limit in limits)
        self.count_tokens: Callable[[str], int] = _token_counter() if needs_tokens else len
        self.classify_language = _language_classifier(options.languages) if options.languages else None

    def drop_reason(self, question: str, answer: str) -> str | None:
        """The first filter that rejects a row with these cleaned texts; None if the row is kept."""
        options = self.options
        if is_fully_matched(answer, self.boilerplate):
            return "boilerplate"
        if options.max_boilerplate is not None and self._boilerplate_share(answer) > options.max_boilerplate:
            return "mostly_boilerplate"
        if options.contacts == "drop" and any(mask_contacts(text) != text for text in (question, answer)):
            return "contacts"
        if reason := self._length_reason(question, options.question) or self._length_reason(answer, options.answer):
            return reason
        limit = options.max_nonletters
        if limit is not None and max(nonletter_share(question), nonletter_share(answer)) > limit:
            return "mostly_nonletters"
        if self.classify_language and self.classify_language(f"{question}\n{answer}") not in (options.languages or ()):
            return "other_language"
        return None

    def _length_reason(self, text: str, limit: LengthLimits) -> str | None:
        for length_of, least, most in (
            (len, limit.min_characters, limit.max_characters),
            (self.count_tokens, limit.min_tokens, limit.max_tokens),
        ):
            length = length_of(text) if least or most else 0
            if least and length < least:
                return "too_short"
            if most and length > most:
                return "too_long"
        return None

    def _boilerplate_share(self, answer: str) -> float:
        rest = answer
        for pattern in self.boilerplate:
            rest = pattern.sub(" ", rest)
        return 1 - len(LETTER_OR_DIGIT.findall(rest)) / max(1, len(LETTER_OR_DIGIT.findall(answer)))


def is_fully_matched(text: str, patterns: list[re.Pattern[str]]) -> bool:
    """Whether successive matches of the patterns cover every letter and digit of a text that has some."""
    position, character = 0, LETTER_OR_DIGIT.search(text)
    while character:
        position = character.start()
        for pattern in patterns:
            match = pattern.match(text, position)
            if match and match.end() > position:
                position = match.end()
                break
        else:
            return False
        character = LETTER_OR_DIGIT.search(text, position)
    return position > 0


def nonletter_share(text: str) -> float:
    """The share of characters, spaces aside, that are neither letters nor combining marks (diacritics, vowel signs).

    >>> nonletter_share("Hb 12"), nonletter_share("")
    (0.5, 0.0)
    """
    characters = "".join(text.split())
    if characters.isalpha() or not characters:
        return 0.0
    import unicodedata

    return sum(unicodedata.category(character)[0] not in "LM" for character in characters) / len(characters)


def _token_counter() -> Callable[[str], int]:
    """A function that counts the tokens of a text with the base model's tokenizer, special tokens aside."""
    from pipeline.modeling.encoding import load_encoder

    encoder = load_encoder(BASE)
    return lambda text: len(encoder.encode_texts([text])[0])


def _language_classifier(languages: list[str]) -> Callable[[str], str]:
    """A function that detects the language of a text with py3langid. Raises ConfigError if that lacks one of `languages`."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier: Any = LanguageIdentifier.from_model_file(MODEL_FILE)
    known = sorted(identifier.labels)
    if unknown := [language for language in languages if language not in known]:
        raise ConfigError(f"clean.languages: {', '.join(unknown)} unknown; expected some of {', '.join(known)}")
    return lambda text: str(identifier.classify(text)[0])
