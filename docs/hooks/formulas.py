"""Formulas of the site: LaTeX becomes MathML when a page is built, which browsers render without a script."""

import re
from html import unescape

from latex2mathml.converter import convert

FORMULA = re.compile(r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<latex>.*?)\\[)\]]</(?P=tag)>', flags=re.DOTALL)
# MathML has no space between a function and an argument without brackets, as in log x.
FUNCTION = re.compile(r"<m([io])>(?:exp|log|max|tanh)</m\1>(?!<mo[^>]*>&#x00028;)")
SPACE = '<mspace width="0.17em" />'


def on_page_content(html: str, **_: object) -> str:
    r"""Replaces each formula that the extension arithmatex marked, \(...\) in a line and \[...\] on its own.

    Examples:
        >>> on_page_content('<span class="arithmatex">\\(x\\)</span>')
        '<math xmlns="http://www.w3.org/1998/Math/MathML" display="inline"><mrow><mi>x</mi></mrow></math>'
        >>> SPACE in on_page_content('<div class="arithmatex">\\[\\log x\\]</div>')
        True
        >>> SPACE in on_page_content('<div class="arithmatex">\\[\\log (x)\\]</div>')
        False
    """

    def to_mathml(match: re.Match[str]) -> str:
        block = match["tag"] == "div"
        formula = convert(unescape(match["latex"]).strip(), display="block" if block else "inline")
        formula = FUNCTION.sub(rf"\g<0>{SPACE}", formula)
        return f'<div class="formula">{formula}</div>' if block else formula

    return FORMULA.sub(to_mathml, html)
