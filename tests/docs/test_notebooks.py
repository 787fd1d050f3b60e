"""Tests that the notebooks say the same in both languages, and that what would differ is detected."""

import re
from pathlib import Path

import jupytext
import pytest
from bilingual_notebooks import SUFFIXES, NotebookError, edition, read, to_markdown
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

SOURCES = sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.py"))
ONE_PIXEL = "iVBORw0KGgo="  # base64 of the first bytes of a PNG file


@pytest.fixture
def source(tmp_path):
    """Returns a function that writes a notebook of one code cell and texts in the given languages."""

    def write(*texts):
        cells = [new_markdown_cell(text, metadata={"lang": lang}) for lang, text in texts]
        path = tmp_path / "n.py"
        jupytext.write(new_notebook(cells=[*cells, new_code_cell("x = 1")]), path, fmt="py:percent")
        return path

    return write


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_each_text_of_a_notebook_is_in_both_languages(path):
    texts = [cell for cell in read(path).cells if cell.cell_type == "markdown"]
    assert len(texts) >= 2
    for cell in texts:  # an English text may name a Korean title, and every Korean text has Latin letters in formulas
        share = len(re.findall("[가-힣]", cell.source)) / len(re.findall(r"[^\W\d_]", cell.source))
        assert share > 0.2 if cell.metadata["lang"] == "ko" else share < 0.05, cell.source[:60]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_the_editions_have_all_code_cells_and_half_of_the_texts(path):
    notebook = read(path)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    for language in SUFFIXES:
        cells = edition(notebook, language).cells
        assert [cell.source for cell in cells if cell.cell_type == "code"] == code
        assert len(cells) - len(code) == (len(notebook.cells) - len(code)) / 2


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([("en", "a text")], "'a text' has no Korean translation"),
        ([("ko", "글"), ("en", "a text")], "'글' has lang='ko', expected 'en'"),
        ([("en", "one"), ("en", "two")], "'two' has lang='en', expected 'ko'"),
        ([("en", "# Title"), ("ko", "제목")], r"headings .* only in English \['#'\], only in Korean \[\]"),
        (
            [("en", "10,000 steps"), ("ko", "1,000번")],
            r"numbers .* only in English \['10,000'\], only in Korean \['1,000'\]",
        ),
        ([("en", "`dout`"), ("ko", "`dx`")], r"code .* only in English \['`dout`'\], only in Korean \['`dx`'\]"),
        ([("en", "```\n1\n```"), ("ko", "```\n2\n```")], "code .* differ"),
        ([("en", "so $x$"), ("ko", "그래서")], r"formulas .* only in English \['\$x\$'\], only in Korean \[\]"),
        (
            [("en", "[a](a.md)"), ("ko", "[a](b.ko.md)")],
            r"links .* only in English \['\]\(a.md\)'\], only in Korean \['\]\(b.md\)'\]",
        ),
    ],
)
def test_a_difference_between_the_languages_is_an_error(source, texts, message):
    with pytest.raises(NotebookError, match=rf"n\.py: .*{message}"):
        read(source(*texts))


def test_translations_may_order_their_words_differently(source):
    english, korean = (
        "## `x` before `W`, in 2 steps of [the book](a.md)",
        "## [책](a.ko.md)의 2단계에서 `W`보다 앞선 `x`",
    )
    assert len(read(source(("en", english), ("ko", korean))).cells) == 3


def test_a_page_has_the_outputs_of_its_cells():
    cells = [
        new_markdown_cell("# Title"),
        new_code_cell("print(1)", outputs=[new_output("stream", text="1\n")]),
        new_code_cell("2", outputs=[new_output("execute_result", {"text/plain": "2"})]),
        new_code_cell(
            "table", outputs=[new_output("execute_result", {"text/html": "<table>\n\n</table>", "text/plain": "Table"})]
        ),
        new_code_cell("assert 0", outputs=[new_output("error", ename="AssertionError", evalue="no")]),
        new_code_cell(
            "draw()",
            metadata={"alt_en": "a line"},
            outputs=[new_output("display_data", {"image/png": ONE_PIXEL, "text/plain": "<Figure>"})],
        ),
    ]
    page, pictures = to_markdown(new_notebook(cells=cells), "n", "en")
    assert re.findall(r"^```\{.*\}\n(.*)\n```$", page, flags=re.M) == ["1", "2", "AssertionError: no"]
    assert "![a line](n-1.png)" in page
    assert pictures == {"n-1.png": b"\x89PNG\r\n\x1a\n"}
    assert '<div class="output">\n<table>\n\n</table>\n</div>' in page
    assert not re.search(r"<Figure>|Table", page)
    with pytest.raises(NotebookError, match=r"n: no alt_ko on the cell that draws: 'draw\(\)'"):
        to_markdown(new_notebook(cells=cells), "n", "ko")
