"""Tests that a user's code is loaded as it is: packages, src layouts, what it expects at import, and wrong names."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

from jaxnet.crosscheck import targets
from jaxnet.crosscheck.targets import TargetError, import_root, load

LAYER = """
class Layer:
    def forward(self, x):
        return x
    def backward(self, dout):
        return dout
    class Inner:
        def method(self):
            return "inner"
"""


@pytest.fixture(autouse=True)
def clean_imports(monkeypatch, tmp_path):
    """Restores the import path and the loaded modules, and changes to an empty folder."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    yield
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(
            getattr(sys.modules[name], "__file__", "") or getattr(sys.modules[name], "__path__", "")
        ):
            del sys.modules[name]


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


RELATIVE = "from .utils import scale\nfrom .. import top\ndef f(x):\n    return scale * x\npackage = __package__\n"
PACKAGES = ["kit/__init__.py", "kit/deep/__init__.py"]
PROJECTS = {
    "packages": ("kit/deep/layers.py", "kit.deep", PACKAGES, "pyproject.toml"),
    "a src layout": ("src/kit/deep/layers.py", "kit.deep", [f"src/{file}" for file in PACKAGES], "setup.py"),
    "packages without a project": ("kit/deep/layers.py", "kit.deep", PACKAGES, None),
    "folders of a repository": ("kit/deep/layers.py", "kit.deep", [], ".git/HEAD"),
    "folders of a src layout": ("src/kit/deep/layers.py", "kit.deep", [], "pyproject.toml"),
}  # fmt: skip


@pytest.mark.parametrize("name", PROJECTS)
def test_relative_imports_work_as_in_the_project(tmp_path, name):
    file, package, inits, marker = PROJECTS[name]
    folder = Path(file).parent
    files = {
        file: RELATIVE,
        f"{folder}/utils.py": "scale = 3",
        f"{folder.parent}/top.py": "",
        **dict.fromkeys(inits, ""),
    }
    write(tmp_path, files | ({marker: ""} if marker else {}))
    assert load(f"{tmp_path / file}:f")(2) == 6
    assert load(f"{tmp_path / file}:package") == package
    assert load(f"{tmp_path / file}:f") is sys.modules[f"{package}.layers"].f  # the same objects as others import


def test_a_module_above_the_file_is_found(tmp_path):
    write(tmp_path, {"top/shared.py": "value = 4", "top/a/b/mine.py": "import shared\nvalue = shared.value"})
    assert load(f"{tmp_path / 'top/a/b/mine.py'}:value") == 4


def test_a_package_of_the_project_is_found_from_its_tests(tmp_path):
    write(
        tmp_path,
        {"pyproject.toml": "", "src/kit_x/__init__.py": "value = 5", "tests_x/mine.py": "from kit_x import value"},
    )
    assert load(f"{tmp_path / 'tests_x/mine.py'}:value") == 5


def test_modules_beside_a_package_file_do_not_hide_others(tmp_path):
    write(
        tmp_path,
        {
            "kit/__init__.py": "",
            "kit/random.py": "raise RuntimeError",
            "kit/mine.py": "import random\nvalue = random.random",
        },
    )
    assert callable(load(f"{tmp_path / 'kit/mine.py'}:value"))
    assert str(tmp_path / "kit") not in sys.path


def test_a_file_with_the_name_of_a_loaded_module_is_its_own(tmp_path):
    write(tmp_path, {"json.py": "value = 6"})
    assert load(f"{tmp_path / 'json.py'}:value") == 6
    assert hasattr(sys.modules["json"], "loads")


def test_a_module_is_named_by_dots(tmp_path, monkeypatch):
    write(tmp_path, {"kit_m/layers.py": LAYER, "src/kit_s/layers.py": LAYER})
    monkeypatch.chdir(tmp_path)
    assert load("kit_m.layers:Layer").__module__ == "kit_m.layers"
    assert load("kit_s.layers:Layer").__module__ == "kit_s.layers"
    assert load("numpy:sin").__name__ == "sin"
    assert targets.file_of("kit_s.layers:Layer") == Path("src/kit_s/layers.py")


def test_names_have_dots_and_pairs_have_a_comma(tmp_path):
    file = write(tmp_path, {"mine.py": LAYER}) / "mine.py"
    assert load(f"{file}:Layer.Inner").__name__ == "Inner"
    assert [f.__name__ for f in load(f"{file}:Layer.forward,Layer.backward")] == ["forward", "backward"]


def test_a_file_sees_itself_in_argv_and_the_working_folder_of_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["jaxnet check", "--inputs", "3x4"])
    text = "import os, sys, argparse\nargparse.ArgumentParser().parse_args()\n"
    text += "argv, folder, name = sys.argv, os.getcwd(), __name__"
    file = write(tmp_path, {"mine.py": text}) / "mine.py"
    assert load(f"{file}:argv") == [str(file)]
    assert load(f"{file}:folder") == str(tmp_path / "elsewhere")
    assert load(f"{file}:name") == "mine"
    assert sys.argv == ["jaxnet check", "--inputs", "3x4"]


def test_what_runs_as_a_script_only_does_not_run(tmp_path):
    file = write(tmp_path, {"mine.py": "value = 7\nif __name__ == '__main__':\n    raise SystemExit(1)"}) / "mine.py"
    assert load(f"{file}:value") == 7


WRONG = {
    "mine.py": "expected FILE.py:NAME", ":f": "expected FILE.py:NAME",
    "mien.py:f": "there is no file mien.py; did you mean mine.py?",
    "folder:f": "folder is a folder, expected FILE.py:NAME", "text.txt:f": "text.txt is not a Python file",
    "no.such.module:f": "there is no module no.such.module in",
    "mine.py:Laier": "no Laier in mine.py, which has Layer, forward; did you mean Layer?",
    "mine.py:Layer.bckward": "no bckward in mine.py.Layer, which has forward, backward, Inner; did you mean backward?",
    "mine.py:Layr.backward": "no Layr in mine.py",
    "exits.py:f": "exits.py exits with status 3 when it is imported: put what it runs under",
    "raises.py:f": "importing raises.py raised ZeroDivisionError: division by zero (raises.py:3)",
    "syntax.py:f": "importing syntax.py raised SyntaxError: '(' was never closed (syntax.py:2)",
    "needs.py:f": "importing needs.py raised ModuleNotFoundError: No module named 'no_such_module_x' (needs.py:1)",
    "parses.py:f": "parses.py exits with status 2 when it is imported (parses.py: error: the following arguments are "
    "required: needed): put what it runs under if __name__ == '__main__'",
    "boxed.py:f": "boxed.py exits with status 2 when it is imported (Missing argument 'x'.): put",
    "says.py:f": "says.py exits with status 1 when it is imported (give a folder): put what it runs under",
    "argv.py:f": "IndexError: list index out of range (argv.py:2); sys.argv has the file alone: read it under if",
    "sub/opens.py:f": "files are opened relative to the working folder: change to the folder of the file",
}  # fmt: skip


BOX = "usage: boxed.py x\n╭─ Error ───────────────╮\n│ Missing argument 'x'. │\n╰───────────────────────╯"


@pytest.mark.parametrize("target", WRONG)
def test_a_wrong_target_is_an_error_that_says_what_is_wrong(tmp_path, monkeypatch, capfd, target):
    files = {
        "mine.py": f"import os\n{LAYER}\ndef forward(x):\n    return x\n", "exits.py": "import sys\nsys.exit(3)",
        "text.txt": "",
        "raises.py": "\n\n1 / 0", "syntax.py": "x = 1\ny = (", "folder/x": "", "needs.py": "import no_such_module_x",
        "argv.py": "import sys\nrate = float(sys.argv[1])", "says.py": "import sys\nsys.exit('give a folder')",
        "boxed.py": f"import sys\nprint({BOX!r}, file=sys.stderr)\nsys.exit(2)",
        "parses.py": "import argparse as a\np = a.ArgumentParser()\np.add_argument('needed')\np.parse_args()",
        "sub/opens.py": "open('data.txt')", "sub/data.txt": "",
    }  # fmt: skip
    monkeypatch.chdir(write(tmp_path, files))
    with pytest.raises(TargetError) as refused:
        load(target)
    assert WRONG[target] in str(refused.value)
    assert capfd.readouterr().err == ""  # the usage of a parser is not printed before the error


def test_what_an_imported_file_writes_to_stderr_appears_and_its_log_works_afterwards(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(write(tmp_path, {"logs.py": "import sys\nstream = sys.stderr\nprint('imported', file=stream)"}))
    stream = load("logs.py:stream")
    assert capfd.readouterr().err == "imported\n"
    print("later", file=stream)
    assert capfd.readouterr().err == "later\n"
    with pytest.raises(TypeError):
        stream.write(b"bytes")  # click asks this way whether a stream takes bytes


def test_the_root_of_a_lone_file_is_its_folder(tmp_path):
    write(tmp_path, {"a/b/mine.py": ""})
    assert import_root(tmp_path / "a/b/mine.py") == tmp_path / "a/b"


@pytest.mark.parametrize("name", ["kit.py", "kit/deep/layers.py"])
def test_the_second_of_two_saves_within_a_second_is_loaded(tmp_path, monkeypatch, name):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = write(tmp_path, {name: "value = 1\n", "pyproject.toml": ""}) / name
    os.utime(file, (1_000_000_000, 1_000_000_000))
    assert load(f"{file}:value") == 1
    assert Path(importlib.util.cache_from_source(str(file))).exists()  # compiled from the first text
    file.write_text("value = 2\n")
    os.utime(file, (1_000_000_000, 1_000_000_000.5))
    for module in {Path(name).stem, ".".join(Path(name).with_suffix("").parts)} & set(sys.modules):
        del sys.modules[module]
    assert load(f"{file}:value") == 2
