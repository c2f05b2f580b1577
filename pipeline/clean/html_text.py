"""Turns HTML into text, and leaves texts alone that only look like it, such as code with angle brackets."""

import html
import re
from functools import lru_cache
from typing import Any

from pipeline.records.text import is_blank

BLOCKS = (
    "address|article|aside|blockquote|body|br|center|dd|div|dl|dt|fieldset|figcaption|figure|footer|form|h[1-6]|head|header|"
    "hr|html|li|main|nav|ol|p|pre|section|table|tbody|td|tfoot|th|thead|title|tr|ul"
)
INLINE = (
    "a|abbr|acronym|audio|b|bdi|bdo|big|button|canvas|caption|cite|code|col|colgroup|data|del|details|dfn|em|font|iframe|"
    "img|input|ins|kbd|label|link|mark|meta|noscript|o:p|object|option|picture|q|rp|rt|ruby|s|samp|script|select|small|source|"
    "span|strike|strong|style|sub|summary|sup|svg|textarea|time|tt|u|var|video|wbr"
)
ATTRIBUTES = r"""(?:\s+[\w:.-]+(?:\s*=\s*(?:"[^"]*"|'[^']*'|[^\s"'<>=]+))?)*\s*"""
COMMENT = r"<!--(?:(?!<!--).)*?-->|<!doctype\b[^<>]*>"
TAG = rf"</?(?:{BLOCKS}|{INLINE})\b{ATTRIBUTES}/?>|{COMMENT}"
# What only HTML has: an end tag, a tag that needs none, an attribute in quotes, a comment. `vector<a>` has none of these.
IS_HTML = re.compile(
    rf"""</(?:{BLOCKS}|{INLINE})\s*>|<(?:br|hr|img|wbr){ATTRIBUTES}/?>|(?<!\w)<(?:p|li|td|th|tr|dd|dt|option)>|{COMMENT}|"""
    rf"""<(?:{BLOCKS}|{INLINE})(?=\s[^<>]*=\s*["'])\b{ATTRIBUTES}/?>""",
    re.IGNORECASE | re.DOTALL,
)
HAS_BLOCK = re.compile(rf"</?(?:{BLOCKS})\b{ATTRIBUTES}/?>", re.IGNORECASE)
ANY_TAG = re.compile(TAG, re.IGNORECASE | re.DOTALL)
ENTITY = re.compile(r"&(?:[a-zA-Z][a-zA-Z0-9]+|#[0-9]+|#[xX][0-9a-fA-F]+);")
# inscriptis decodes entities once more than a browser, so an ampersand that is meant as one must be escaped twice.
AMPERSAND = re.compile(rf"&(?!{ENTITY.pattern[1:]})|&(?:amp|AMP|#38|#[xX]26);")


def html_to_text(text: str) -> str:
    """The text that a browser would show, if the text has HTML tags or entities; else the text itself.

    The lines of a text without block elements stay as they are. Links become their texts.

    >>> html_to_text("<p>Hi&nbsp;Jo,<br>see <a href='x'>here</a>.</p>"), html_to_text("vector<int> a; if (a < b) AT&T")
    ('Hi Jo,\\nsee here.', 'vector<int> a; if (a < b) AT&T')
    """
    if "<" in text and IS_HTML.search(text):
        return _render(text)
    return ENTITY.sub(_unescape, text) if "&" in text else text


def _unescape(match: re.Match[str]) -> str:
    return html.unescape(match[0]).replace("\u00a0", " ")


def _render(text: str) -> str:
    from inscriptis import get_text

    source = AMPERSAND.sub("&amp;amp;", _escape_brackets(text))
    if not HAS_BLOCK.search(source):
        source = f"<pre>{source}</pre>"  # its line breaks are its layout
    rendered = str(get_text(source, _parser_config()))
    if is_blank(rendered) and not is_blank(ANY_TAG.sub("", text)):  # the parser gives up on elements nested too deeply
        rendered = html.unescape(ANY_TAG.sub("", text))
    lines = (line.rstrip() for line in rendered.replace("\u00a0", " ").split("\n"))
    return "\n".join(lines).strip("\n")


def _escape_brackets(text: str) -> str:
    """The text with brackets that begin no tag escaped: the parser would lose what follows them."""
    parts, position = [], 0
    for match in ANY_TAG.finditer(text):
        parts += [text[position : match.start()].replace("<", "&lt;"), match[0]]
        position = match.end()
    return "".join([*parts, text[position:].replace("<", "&lt;")])


@lru_cache(maxsize=1)
def _parser_config() -> Any:
    from inscriptis.css_profiles import CSS_PROFILES
    from inscriptis.model.config import ParserConfig

    return ParserConfig(css=CSS_PROFILES["strict"].copy())
