"""pipeline/clean/html_text.py on literal texts: what is HTML, and what only looks like it."""

import pytest

from pipeline.clean.html_text import html_to_text

HTML = {
    "ticket": (
        "<p>Hello,</p><p>It ends on <b>Friday</b>.<br/>Your data stays.</p><p>Best&nbsp;regards,<br>Jo &amp; Al</p>",
        "Hello,\n\nIt ends on Friday.\nYour data stays.\n\nBest regards,\nJo & Al",
    ),
    "nested divs": ("<div><div><div>When I sign in</div></div><div>it fails</div></div>", "When I sign in\nit fails"),
    "list": ("<ul><li>a</li><li>b</li></ul>", "  * a\n  * b"),
    "table": ("<table><tr><th>k</th><th>v</th></tr><tr><td>a</td><td>1</td></tr></table>", "k  v\na  1"),
    "pre": ("<pre>def f():\n    return 1 &lt; 2</pre>", "def f():\n    return 1 < 2"),
    "link": ('See <a href="https://example.org">here</a>.', "See here."),
    "script, style and comment": ("<style>p{}</style><p>x</p><script>a()</script><!-- c -->", "x"),
    "inline tags keep the lines": ("Line 1\n  line 2 <b>bold</b>\n\nline 3", "Line 1\n  line 2 bold\n\nline 3"),
    "entities alone": ("AT&amp;T &lt;3 &#39;x&#39;", "AT&T <3 'x'"),
    "entity of an entity": ("<p>write &amp;lt; for &lt;</p>", "write &lt; for <"),
    "code beside tags": ("<p>vector<int> v; if (a < b && c) AT&T</p>", "vector<int> v; if (a < b && c) AT&T"),
    "Outlook": ('<p class="MsoNormal">Hi<o:p></o:p></p>', "Hi"),
    "capitals": ("<P>a<BR>b</P>", "a\nb"),
}


@pytest.mark.parametrize(("text", "expected"), HTML.values(), ids=HTML)
def test_html_becomes_text(text: str, expected: str) -> None:
    assert html_to_text(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "if a < b and c > d",
        "vector<int> v; map<string, a> m; Foo<A> f; x<b>y",
        "for (i=0;i<n;i++) cin>>a; if (a<b && c>d)",
        "a <b",
        "#include <vector>\n#include <map>",
        "<https://example.org> and <jo@example.org>",
        "Template<p> x; <T> T id(T t)",
        "?a=1&copy=2 & AT&T &unknown;",
        "<placeholder> </placeholder>",
    ],
)
def test_text_that_is_no_html_stays(text: str) -> None:
    assert html_to_text(text) == text


def test_elements_nested_deeply_lose_no_text() -> None:
    assert html_to_text("<div>" * 3000 + "deep" + "</div>" * 3000) == "deep"


@pytest.mark.parametrize("text", ["<" * 50_000, "<a " * 20_000, "<a b='" * 10_000, "<!--" * 20_000, "&" * 50_000])
def test_unfinished_tags_take_no_quadratic_time(text: str) -> None:
    assert html_to_text(text) == text
