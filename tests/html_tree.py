"""Reads HTML that jaxnet wrote."""

import xml.etree.ElementTree as ET


def parsed(html):
    """Returns the tree of HTML in which every element is closed; &nbsp; is the only name that XML lacks."""
    return ET.fromstring(html.replace("&nbsp;", " ").replace("<details open>", '<details open="">'))


def rows_of(tree):
    return [["".join(cell.itertext()).strip() for cell in row] for row in tree.iter("tr")]


def texts_of(tree):
    return ["".join(text.itertext()) for text in tree.iter("text")]
