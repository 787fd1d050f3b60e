"""Tests that the commands and examples of docs/runs.md work in the order in which they are written."""

import doctest
import re
import shlex
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from jaxnet.cli import main

PAGE = Path(__file__).parents[1] / "docs" / "runs.md"


@pytest.mark.slow
def test_the_commands_and_examples_of_the_page_work(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    image = Image.new("RGB", (300, 400), "white")
    ImageDraw.Draw(image).line([(60, 60), (240, 60), (120, 340)], fill="navy", width=40, joint="curve")
    image.save("seven.png")
    text = PAGE.read_text()
    (commands,) = re.findall(r"^```sh\n(.*?)^```$", text, flags=re.S | re.M)
    for command in commands.splitlines():
        monkeypatch.setattr(sys, "argv", shlex.split(command))
        with pytest.raises(SystemExit) as stopped:
            main.main()
        assert not stopped.value.code, capsys.readouterr().err
    assert Path("curves.png").read_bytes().startswith(b"\x89PNG")
    assert re.search(r"^seven.png: 7 \(\d+\.\d%\), ", capsys.readouterr().out, flags=re.M)

    examples = "\n".join(re.findall(r"^```pycon\n(.*?)^```$", text, flags=re.S | re.M))
    test = doctest.DocTestParser().get_doctest(examples, {}, PAGE.name, str(PAGE), 0)
    output = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(test, out=output.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(output)
