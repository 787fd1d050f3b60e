"""Tests `jaxnet check` as its user meets it: options, printed reports, colour, JSON, annotations, refused options."""

import json
import platform
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import jaxnet
from jaxnet.cli import main
from jaxnet.cli.check import terminal_color
from jaxnet.cli.check.github_annotation import annotation
from jaxnet.crosscheck import Cause, Leaf, Report, Verdict
from jaxnet.crosscheck.gradient_line import SourceLine, gradient_line, gradient_within
from jaxnet.crosscheck.inspect.random_inputs import off_zero

PAGE = Path(__file__).parents[2] / "docs" / "shell.md"

CODE = """
import numpy as np

class Affine:
    def __init__(self, W, b, factor=1):
        self.W, self.b, self.factor = W, b, factor

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def backward(self, dout):
        self.dW, self.db = self.x.T @ dout * self.factor, dout.sum(axis=0)
        return dout @ self.W.T

def squares(x):
    return (x**2).sum()

def slope(x):
    return 2 * x

def wrong_slope(x):
    return 3 * x

class WrongForOne:
    def __init__(self, w):
        self.factor = 2 if w[0] > 0 else 3

    def forward(self, x):
        self.x = x
        return x**2

    def backward(self, dout):
        return dout * self.factor * self.x

def nothing(x):
    return x

def sine(x):
    return np.sin(x)

def scale_forward(x, times=1):
    return np.sin(x) * [times, times][times - 1], times
def scale_backward(dout, times):
    return dout

def cube(x):
    return np.power(np.asarray(x), 3)

class Decayed:
    def __init__(self):
        self.params = {"W": np.arange(4.0).reshape(4, 1)}

    def loss(self, X, y, reg=0.0):
        W, error = self.params["W"], X @ self.params["W"] - y
        return 0.5 * (error**2).sum() + reg * (W**2).sum(), {"W": X.T @ error + reg * W}
def cube_grad(x):
    return 3 * x**2

class Unsummed(Affine):
    def backward(self, dout):
        self.dW = 3 * self.x.T @ dout
        self.db = dout
        return dout @ self.W.T

class Half:
    def forward(self, x):
        return x / 2
    def bakward(self, dout):
        return dout / 2

def affine_forward(x, w):
    return x @ w, (x, w)
def affine_backward(dout, cache):
    x, w = cache
    return dout @ w.T, 2 * x.T @ dout

def product(x):
    return x * x
def grad_product(x):
    return 3 * x

class Fixed(Affine):
    def backward(self, dout):
        super().backward(dout)
        del self.dW
        return dout @ self.W.T
"""
AFFINE = "mine.py:Affine --init 4x3 3 --inputs 5x4"
DW_LINE = 2 + CODE.splitlines().index("    def backward(self, dout):")
WRONG_SLOPE_LINE = 2 + CODE.splitlines().index("def wrong_slope(x):")


@pytest.fixture
def check(monkeypatch, capsys, tmp_path):
    """Runs `jaxnet check` in this process, in a folder with the code above; returns status, stdout and stderr."""
    (tmp_path / "mine.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)

    def run(options):
        monkeypatch.setattr(sys, "argv", ["jaxnet", "check", *options.split()])
        sys.modules.pop("mine", None)
        with pytest.raises(SystemExit) as stopped:
            main.main()
        return stopped.value.code, *capsys.readouterr()

    yield run
    sys.modules.pop("mine", None)


def test_a_pass_is_one_line(check):
    status, out, _ = check(AFFINE)
    assert status == 0
    assert re.fullmatch(r"PASS  Affine \(W, b, x\): relative error \d\.\de-\d\d, detects \de-\d\d\n", out)


@pytest.mark.slow
def test_a_fail_begins_with_the_sentence_and_ends_with_the_line_of_the_backward(check):
    status, out, _ = check("mine.py:Affine --init 4x3 3 factor=2 --inputs 5x4")
    lines = out.rstrip().splitlines()
    assert status == 1
    assert lines[:2] == [
        "FAIL  Affine",
        "  W: the backward is wrong; it equals the true gradient times 2: an extra factor",
    ]
    assert lines[-1] == f"  the gradient is computed at mine.py:{DW_LINE}"
    assert [line.split()[:2] for line in lines if " PASS  " in line] == [["b", "PASS"], ["x", "PASS"]]


def test_the_gradient_of_a_function_is_another_function(check):
    assert check("mine.py:squares --gradient slope --inputs 5")[0] == 0
    status, out, _ = check("mine.py:squares --gradient mine.py:wrong_slope --inputs 5")
    assert status == 1
    assert "times 1.5" in out
    assert f"mine.py:{WRONG_SLOPE_LINE}" in out


@pytest.mark.slow
def test_the_derivative_of_jax_is_not_taken_for_the_gradient_that_is_beside_a_function(check):
    status, out, _ = check("mine.py:product --inputs 5")
    reason = "product has no rule of its own: JAX's derivative was checked, not grad_product; pass --gradient"
    assert status == 3
    assert reason in " ".join(out.split())
    assert check("mine.py:product --inputs 5 --gradient grad_product")[0] == 1


def test_a_forward_pass_alone_is_no_pass_if_its_backward_stands_beside_it(check):
    status, out, _ = check("mine.py:affine_forward --inputs 5x4 4x3")
    assert status == 3
    assert "was checked, not affine_backward; pass mine.py:affine_forward,affine_backward" in " ".join(out.split())


def test_a_report_names_the_options_of_the_shell(check):
    out = " ".join(check("mine.py:Fixed --init 4x3 3 --inputs 5x4 --github")[1].split())
    assert out.count("pass --constants W") == 2
    assert "constants=" not in out


def test_each_wrong_gradient_has_a_row_and_its_line(check):
    status, out, _ = check("mine.py:Unsummed --init 4x3 3 --inputs 5x4")
    first = 1 + CODE.splitlines().index("        self.dW = 3 * self.x.T @ dout")
    assert status == 1
    words = "the gradient for b has shape (5, 3), expected (3,): sum it over axis 0, which makes it right"
    assert words in " ".join(out.split())
    assert [line.split()[:2] for line in out.splitlines() if re.match(r"  . +[A-Z]{4}", line)] == [
        ["W", "FAIL"], ["b", "FAIL"], ["x", "PASS"],
    ]  # fmt: skip
    assert f"  the gradient is computed at mine.py:{first} for W, mine.py:{first + 1} for b" in out.splitlines()


@pytest.mark.slow
def test_the_worst_of_several_points_counts(check):
    assert check("mine.py:WrongForOne --init 1 --inputs 2x3 --seed 0")[0] == 0
    status, out, _ = check("mine.py:WrongForOne --init 1 --inputs 2x3 --points 6")
    signs = [off_zero(np.random.default_rng(seed), (1,))[0] > 0 for seed in range(6)]
    assert status == 1
    assert out.startswith(f"FAIL  WrongForOne at 6 inputs: {signs.count(False)} FAIL\n")
    for seed, right in enumerate(signs):
        assert f"  WrongForOne with seed {seed}  {'PASS' if right else 'FAIL'}" in out.splitlines()


@pytest.mark.slow
def test_several_points_that_pass_are_one_line(check):
    status, out, _ = check(f"{AFFINE} --points 2")
    assert status == 0
    assert re.fullmatch(r"PASS  Affine \(W, b, x\) at 2 inputs: relative error .*, detects .*\n", out)


@pytest.mark.slow
def test_verbose_prints_the_table_at_each_point(check):
    _, out, _ = check(f"{AFFINE} --points 2 --verbose")
    assert out.count("relative error  explained") == 2
    assert all(f"PASS  Affine with seed {seed} (W, b, x)" in out for seed in range(2))


@pytest.mark.slow
def test_the_table_of_float32_says_that_its_errors_are_those_of_float64(check):
    line = "these errors are of the code in float64; the gradients in float32 were"
    assert line in check(f"{AFFINE} --float32 --verbose")[1]
    assert line not in check(f"{AFFINE} --verbose")[1]


def test_a_layer_of_both_precisions_is_not_said_to_be_compared_with_itself(check, tmp_path):
    made = "\nclass Mixed(Affine):\n    def __init__(self):\n        super().__init__(np.eye(4), np.ones(4))\n"
    (tmp_path / "mine.py").write_text(CODE + made)
    out = " ".join(check("mine.py:Mixed --inputs 5x4 --float32 --verbose")[1].split())
    assert "the gradients in float32 were compared with those in float64" in out


@pytest.mark.slow
def test_a_plot_ends_with_its_name_and_is_a_png(check, tmp_path):
    status, out, _ = check(f"{AFFINE} --plot v.png")
    assert (status, out.splitlines()[-1]) == (0, "v.png")
    assert (tmp_path / "v.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_order_2_checks_the_second_derivative_too(check):
    assert (
        check("jax.numpy:sin --inputs 5 --order 2")[1]
        .splitlines()[1]
        .startswith("PASS  the gradient of sin (x, dout): ")
    )


@pytest.mark.slow
def test_the_seed_decides_the_inputs(check):
    printed = {seed: check(f"{AFFINE} --seed {seed}")[1] for seed in (0, 1)}
    assert printed[0] != printed[1]
    assert printed[0] == check(AFFINE)[1]


@pytest.mark.slow
def test_keyword_only_inputs_are_named(check):
    Path("functions.py").write_text(
        "def f(x, *, gain=1.0):\n    return gain * x, gain\ndef g(dout, gain):\n    return gain * dout\n"
        "def h(x, *, n):\n    return x**n\ndef dh(x, dout, *, n):\n    return dout * x ** (n - 1)\n"
    )
    for inputs in ("5 gain=2", "x=5x4"):
        status, out, _ = check(f"functions.py:f,g --inputs {inputs}")
        assert (status, out[:10]) == (0, "PASS  f,g ")
    status, out, _ = check("functions.py:h --gradient dh --inputs 5 n=3")
    assert status == 1
    assert "divided by 3" in out or "times 0.333" in out


@pytest.mark.slow
def test_numbers_become_tensors_where_pytorch_refuses_them(check):
    pytest.importorskip("torch")
    Path("functions.py").write_text(
        "import torch\nclass Scale(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, x, s):\n"
        "        ctx.save_for_backward(x, s)\n        return s * x\n    @staticmethod\n    def backward(ctx, dout):\n"
        "        x, s = ctx.saved_tensors\n        return dout * s, 2 * (dout * x).sum()\n"
    )
    for number in ("0.7", "array:0.7", "shape:()", "s=0.7"):
        status, out, _ = check(f"functions.py:Scale --inputs 5x4 {number}")
        assert status == 1
        assert re.search(r"^  s +FAIL", out, re.M)
    assert "the gradients in float32 were" in check("functions.py:Scale --inputs 5x4 0.7 --float32")[1]


@pytest.mark.slow
def test_functions_of_pytorch_take_tensors(check):
    pytest.importorskip("torch")
    Path("functions.py").write_text("import torch\ndef f(x, w):\n    return torch.sin(x) @ w\n")
    assert check("functions.py:f --inputs 4x3 3x2")[0] == 0


@pytest.mark.slow
def test_a_function_of_autograd_is_checked_by_its_apply(check):
    pytest.importorskip("torch")
    Path("squares.py").write_text(
        "import torch\nclass Square(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, x):\n"
        "        ctx.save_for_backward(x)\n        return x**2\n    @staticmethod\n    def backward(ctx, dout):\n"
        "        return 3 * ctx.saved_tensors[0] * dout\n"
    )
    status, out, _ = check("squares.py:Square --inputs 4x3")
    assert status == 1
    assert "times 1.5" in out
    assert re.search(r"squares\.py:9\n", out)


@pytest.mark.slow
def test_verdicts_are_coloured_only_where_they_are_wanted(check, monkeypatch):
    assert "\x1b" not in check(AFFINE)[1]
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert check(AFFINE)[1].startswith("\x1b[1;32mPASS\x1b[0m  Affine (W, b, x)")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in check(AFFINE)[1]


@pytest.mark.parametrize(
    ("term", "is_terminal", "expected"), [("xterm", True, True), ("dumb", True, False), ("xterm", False, False)]
)
def test_a_terminal_has_colours_unless_it_is_dumb(monkeypatch, term, is_terminal, expected):
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal, raising=False)
    assert terminal_color.has_color() is expected


def test_only_verdicts_at_the_start_or_in_a_column_are_coloured():
    text = "FAIL  f\n  the word FAIL here\n  W  PASS          1e-10\n  b  INCONCLUSIVE  1"
    assert terminal_color.colored(text).count("\x1b[0m") == 3
    assert re.sub(r"\x1b\[[\d;]*m", "", terminal_color.colored(text)) == text
    assert "the word FAIL here" in terminal_color.colored(text)


def keys_of(value):
    if isinstance(value, dict):
        return {
            key
            for name, part in value.items()
            for key in ({name} | keys_of(part) if name not in ("values", "gaps") else {name})
        }
    return {key for part in value for key in keys_of(part)} if isinstance(value, list) else set()


@pytest.mark.slow
def test_json_is_one_object_with_versions_and_costs(check):
    status, out, _ = check("mine.py:Affine mine.py:Affine --init 4x3 3 factor=2 --inputs 5x4 --seed 3 --json")
    data = json.loads(out)
    assert status == 1
    assert (data["schema"], data["verdict"], data["seed"]) == (1, "FAIL", 3)
    assert data["versions"]["jaxnet"] == jaxnet.__version__
    assert data["versions"]["python"] == platform.python_version()
    assert data["versions"]["numpy"] == np.__version__
    assert {leaf["detail"] for report in data["reports"] for leaf in report["leaves"]} == {""}
    assert data["calls"] == sum(report["calls"] for report in data["reports"]) > 50
    assert data["seconds"] == pytest.approx(sum(report["seconds"] for report in data["reports"]))
    (wrong, *right) = data["reports"][0]["leaves"]
    assert (wrong["name"], wrong["verdict"], wrong["cause"]) == ("W", "FAIL", "ANALYTIC_WRONG")
    assert wrong["relative_error"] == pytest.approx(1, rel=0.5)
    assert [leaf["verdict"] for leaf in right] == ["PASS", "PASS"]


def test_json_is_valid_for_numbers_that_are_not_finite(check):
    status, out, _ = check("mine.py:squares --gradient nothing --inputs py:np.zeros(3) --json")
    data = json.loads(out, parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))
    assert status in (1, 3)
    assert None in [leaf["rounding_ratio"] for report in data["reports"] for leaf in report["leaves"]]


def test_every_key_of_the_json_is_documented(check):
    documented = set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), flags=re.M))
    keys = keys_of(json.loads(check(f"{AFFINE} --json")[1]))
    assert len(keys) > 30
    assert keys - {"jaxnet", "python", "numpy", "jax", "torch"} == documented


@pytest.mark.slow
def test_a_github_annotation_names_the_line_of_the_gradient(check, tmp_path):
    (tmp_path / ".git").mkdir()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "layers.py").write_text(CODE)
    _, out, _ = check("sub/layers.py:Affine --init 4x3 3 factor=2 --inputs 5x4 --github")
    (command,) = [line for line in out.splitlines() if line.startswith("::")]
    assert command.startswith(f"::error file=sub/layers.py,line={DW_LINE},title=FAIL%3A Affine::W: the backward is")
    assert "%0AW[" in command
    assert "::" not in check(f"{AFFINE} --github")[1]


def test_an_annotation_escapes_what_github_reads():
    leaf = Leaf("x", Verdict.INCONCLUSIVE, Cause.WRONG_FORM, detail="100 % of\r\nb")
    report = Report("f, g: 5%", None, (leaf,), lines={"x": SourceLine(Path("/nowhere/a,b:c.py"), 7)})
    text = annotation(report)
    assert text == (
        "::warning file=/nowhere/a%2Cb%3Ac.py,line=7,title=INCONCLUSIVE%3A f%2C g%3A 5%25::100 %25 of%0D%0Ab"
    )
    assert annotation(replace(report, lines={})).startswith("::warning title=")


class SelfTrained:
    def loss(self, y):
        return ((self.out - y) ** 2).sum()

    def zero_grad(self):
        self.gW = 0

    def step(self, X, y):
        d = 2 * (X @ self.W + self.b - y)
        gW = X.T @ d
        self.W -= 0.1 * gW
        self.b -= 0.1 * d.sum(0)
        return self.loss(y)


@pytest.mark.parametrize(("leaf", "code"), [("W", "gW = X.T @ d"), ("b", "self.b -= 0.1 * d.sum(0)")])
def test_the_gradient_of_a_model_that_trains_itself_is_not_said_to_be_computed_in_its_loss(leaf, code):
    assert gradient_line(SelfTrained(), leaf=leaf).code == code


def test_the_gradient_of_a_tuple_is_not_said_to_be_computed_in_its_cost():
    class Net:
        def forward(self, x):
            return x @ self.W

        def backward(self, dout):
            self.dW = self.x.T @ dout

    def backward(dout, x):
        dW = x.T @ dout
        return {"W": dW}

    def cost(y, t):
        return ((y - t) ** 2).sum()

    assert gradient_line((Net(), cost), leaf="W").code == "self.dW = self.x.T @ dout"
    assert gradient_line((Net().forward, backward, cost), leaf="W").code == "dW = x.T @ dout"


def test_the_line_in_a_module_of_torch_is_that_of_the_function_that_it_applies(check, tmp_path):
    pytest.importorskip("torch")
    code = (
        "import torch\n"
        "class Double(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, x): return 2 * x\n"
        "    @staticmethod\n    def backward(ctx, dout):\n        return 3 * dout\n"
        "class Block(torch.nn.Module):\n    def forward(self, x): return Double.apply(x)\n"
        "class Net(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.block = Block()\n    def forward(self, x): return self.block(x)\n"
        "def double(x): return Double.apply(x) + 1\n"
    )
    (tmp_path / "mine.py").write_text(code)
    for name in ("Double", "Block", "Net", "double"):
        status, out, _ = check(f"mine.py:{name} --inputs 3")
        assert (status, out.rstrip().splitlines()[-1]) == (1, "  the gradient is computed at mine.py:7")


def test_the_line_of_a_gradient_that_is_not_written_in_python_is_unknown():
    assert gradient_line(np.sin) is None


REFUSED = {
    "no points": (f"{AFFINE} --points 0", "points: 0, expected"),
    "json and watch": (f"{AFFINE} --json --watch", "--json: given beside --watch, expected one of them"),
    "json and github": (f"{AFFINE} --json --github", "--json: given beside --github"),
    "a plot that is no PNG": (f"{AFFINE} --plot c.xyz", "plot: c.xyz, expected a name that ends in .png"),
    "plot and gradient": ("mine.py:squares --gradient slope --inputs 5 --plot v.png", "--plot: given beside"),
    "points of nothing": ("--points 3", "points: applies only to FILE.py:NAME"),
    "no such gradient": ("mine.py:squares --gradient slop --inputs 5", "no slop in mine.py"),
    "arguments of no class": ("mine.py:squares --init 3 --inputs 5", "init: mine.py:squares is no class"),
    "a folder": (".:f --inputs 5", "is a folder, expected FILE.py:NAME"),
    "no gradient": ("mine.py:sine --inputs 5", "jaxnet check: sine: "),
    "a near name": ("mine.py:Afine --inputs 5", "did you mean Affine?"),
    "a file and a name": ("mine.py Affine", "mine.py Affine: expected FILE.py:NAME, or module.name:NAME; did you mean "
                          "mine.py:Affine?"),
    "a pair with a space": ("mine.py:sine slope --inputs 5", "did you mean mine.py:sine,slope?"),
    "two colons": ("mine.py::Affine", "did you mean mine.py:Affine?"),
    "a dot": ("mine.Affine", "did you mean mine.py:Affine?"),
    "the file twice": ("mine.py:sine,mine.py:slope", "did you mean mine.py:sine,slope?"),
    "no file of arrays": ("mine.py:Affine --init x.npz --inputs 5x4", "check: x.npz: there is no such file; name a"),
    "a method": ("mine.py:Affine.forward --inputs 5x4", "is a method, expected its class: check mine.py:Affine"),
    "the forward pass alone": ("mine.py:scale_forward --inputs 5", "mean mine.py:scale_forward,scale_backward?"),
    "a function with its gradient beside": ("mine.py:cube --inputs 5", "pass --gradient cube_grad, or use jax.numpy"),
    "a forward pass without a backward": ("mine.py:Half --inputs 5", "Half has forward and no backward(dout); did you "
                                          "mean bakward?"),
    "a number as a shape": ("mine.py:scale_forward,scale_backward --inputs 5 2", "; times got 2, which is read as a "
                            "shape: =2 is the number"),
    "a number in a dict": ("mine.py:scale_forward,scale_backward --inputs 5 {\"times\":3}", "; times got 3, which is "
                           "read as a shape: =3 is the number"),
    "a shape in two values": ("mine.py:Unsummed --init 4x3 3 --inputs 5 4", "; --inputs has 2 values, expected 1: x; "
                              "did you mean 5x4?"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_checked_is_one_line_and_status_2(check, name):
    options, message = REFUSED[name]
    status, _, err = check(options)
    assert status == 2
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_misspelled_option_names_the_near_one(check):
    status, _, err = check("mine.py:Affine --intputs 5x4")
    assert status == 2
    assert "--inputs" in err


def test_the_help_has_no_noise_around_options(check):
    out = check("--help")[1]
    assert "--inputs [VALUE ...]" in out
    assert not re.search(r"\[\[|\(default: \)|--no-", out)


def test_ctrl_c_is_one_line_and_status_130(check):
    Path("stops.py").write_text("def f(x):\n    return x\ndef g(x, dout):\n    raise KeyboardInterrupt\n")
    assert check("stops.py:f --gradient g --inputs 3") == (130, "", "jaxnet check: interrupted\n")


def test_bash_completes_an_option(check, tmp_path):
    (tmp_path / "completion.bash").write_text(check("--tyro-print-completion bash")[1])
    script = "source completion.bash; COMP_WORDS=(jaxnet check --poi); COMP_CWORD=2; COMP_LINE='jaxnet check --poi'; "
    script += "COMP_POINT=18; _tyro_jaxnet_check jaxnet --poi check; echo ${COMPREPLY[@]}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.stdout.split() == ["--points"], done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completions_are_printed_for_the_command(check, shell):
    status, out, _ = check(f"--tyro-print-completion {shell}")
    assert not status
    assert "--points" in out
    assert "--gradient" in out


def test_each_of_several_files_is_listed(check, tmp_path):
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "other.py").write_text("def f(x): pass\ndef f_grad(x): pass\n")
    status, out, err = check("empty.py mine.py other.py")
    assert status == 2
    assert err.startswith("jaxnet check: empty.py: nothing in it")
    assert "jaxnet check mine.py:Affine " in out
    assert out.endswith("jaxnet check other.py:f --gradient f_grad --inputs x=shape:SIZES\n")


def test_a_file_without_a_name_lists_the_commands_for_what_is_in_it(check, tmp_path):
    (tmp_path / "mine.py").write_text(
        CODE
        + "\nclass Windows:\n    def __init__(self, size, stride: int): pass\n    def forward(self, x): pass\n"
        + "    def backward(self, dout): pass\n"
        + "\ndef f_forward(x, w):\n    pass\ndef f_backward(dout, cache):\n    pass\ndef sine_gradient(x):\n    pass\n"
    )
    status, out, err = check("mine.py")
    assert status == 2
    assert out.splitlines() == [
        "jaxnet check mine.py:Affine --init W=shape:SIZES b=shape:SIZES factor=1 --inputs x=shape:SIZES",
        "jaxnet check mine.py:WrongForOne --init w=shape:SIZES --inputs x=shape:SIZES",
        "jaxnet check mine.py:sine --gradient sine_gradient --inputs x=shape:SIZES",
        "jaxnet check mine.py:scale_forward,scale_backward --inputs x=shape:SIZES times=1",
        "jaxnet check mine.py:cube --gradient cube_grad --inputs x=shape:SIZES",
        "jaxnet check mine.py:Unsummed --init W=shape:SIZES b=shape:SIZES factor=1 --inputs x=shape:SIZES",
        "jaxnet check mine.py:affine_forward,affine_backward --inputs x=shape:SIZES w=shape:SIZES",
        "jaxnet check mine.py:product --gradient grad_product --inputs x=shape:SIZES",
        "jaxnet check mine.py:Fixed --init W=shape:SIZES b=shape:SIZES factor=1 --inputs x=shape:SIZES",
        "jaxnet check mine.py:Windows --init size=VALUE stride=VALUE --inputs x=shape:SIZES",
        "jaxnet check mine.py:f_forward,f_backward --inputs x=shape:SIZES w=shape:SIZES",
    ]
    assert err.splitlines() == [
        "jaxnet check: mine.py: not listed: Half has forward and no backward(dout); did you mean bakward?",
        "jaxnet check: mine.py: name one of these, mine.py:NAME, "
        "with sizes such as 4x3 or 4 for SIZES and numbers for VALUE",
    ]
    (tmp_path / "mine.py").write_text("def f(x=2):\n    pass\ndef df(x=2):\n    pass\n")
    assert check("mine.py")[1:] == (
        "jaxnet check mine.py:f --gradient df --inputs x=2\n",
        "jaxnet check: mine.py: name one of these, mine.py:NAME\n",
    )
    (tmp_path / "mine.py").write_text("x = 1")
    assert check("mine.py")[2].startswith("jaxnet check: mine.py: nothing in it looks as if it had a gradient")


PLACES = {
    "an attribute": ("W", "self.dx = dout\nself.dW = 2", 2), "of an inner layer": ("cell.W", "self.dW = 2", 1),
    "an augmented one": ("W", "self.dW = 0\nfor x in y:\n    self.dW += x\nreturn 3", 3),
    "a tuple": ("b", "self.dW, self.db = 1, 2", 1), "a name": ("x", "dx = 2\nreturn dx", 1),
    "a part": ("x", "dx = 0\ndx[2:] = 3", 2), "an entry": ("params['W']", "self.grads['W'] = 2", 1),
    "of an object": ("W", "self.W.grad = 2", 1), "a return": ("x", "y = 3\nreturn 2 * dout", 2),
    "one of two returns": ("x", "if y:\n    return 3\nreturn 2 * dout", 0),
    "another": ("W", "self.dWx = self.W = 2", 0),
}  # fmt: skip


def test_a_function_of_tensors_names_the_inputs_that_are_missing(check, tmp_path):
    pytest.importorskip("torch")
    old = "class Swish(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, x, beta): return beta * x\n"
    new = "class Scale(torch.autograd.Function):\n    @staticmethod\n    def forward(x, w): return x * w\n"
    new += "    @staticmethod\n    def setup_context(ctx, inputs, output): pass\n"
    (tmp_path / "mine.py").write_text(f"import torch\n{old}{new}")
    swish = "mine.py:Swish: Swish.forward takes x, beta: beta is missing; add beta=shape:SIZES to --inputs"
    assert swish in check("mine.py:Swish --inputs 5x4")[2]
    method = "mine.py:Swish.forward: is a method, expected its class: check mine.py:Swish"
    assert method in check("mine.py:Swish.forward --inputs 5x4")[2]
    assert "Scale.forward takes x, w: w is missing" in check("mine.py:Scale --inputs x=5x4")[2]
    assert check("mine.py")[1].splitlines()[1] == "jaxnet check mine.py:Scale --inputs x=shape:SIZES w=shape:SIZES"


@pytest.mark.parametrize("name", PLACES)
def test_the_line_where_the_gradient_of_a_leaf_is_assigned(name):
    leaf, body, line = PLACES[name]
    assert (
        gradient_within("    def f(self, dout):\n" + "\n".join(f"        {part}" for part in body.split("\n")), leaf)
        == line
    )


def test_a_listed_command_works_with_all_sizes_filled_in(check):
    command = check("mine.py")[1].splitlines()[0].removeprefix("jaxnet check ")
    status, out, _ = check(re.sub("SIZES", "{}", command).format("4x3", "3", "5x4"))
    assert (status, out.partition(":")[0]) == (0, "PASS  Affine (W, b, x)")


TRAINED = """
import numpy as np

class Net:
    def __init__(self, W):
        self.W = W

    def predict(self, X):
        self.p = np.exp(X @ self.W)
        self.p = self.p / self.p.sum(axis=1, keepdims=True)
        return self.p

    def train(self, X, y, lr=0.1, epochs=10):
        for _ in range(epochs):
            d = self.predict(X) - np.eye(3)[y]
            self.W -= lr * X.T @ d / len(X)

def loss_and_grads(params, X):
    return (X @ params["W"]).sum(), {"W": X.sum(axis=0)[:, None] + 0 * params["W"]}
"""


def test_a_file_lists_a_network_that_trains_itself_with_its_labels(check, tmp_path):
    (tmp_path / "mine.py").write_text(TRAINED)
    _, out, err = check("mine.py")
    assert out.splitlines() == [
        "jaxnet check mine.py:Net --init W=shape:SIZES --inputs X=shape:SIZES y=LABELS",
        "jaxnet check mine.py:loss_and_grads --inputs params=shape:SIZES X=shape:SIZES",
    ]
    sizes = "mine.py: name one of these, mine.py:NAME, with sizes such as 4x3 or 4 for SIZES"
    assert f"{sizes} and labels such as '5<3' (5 integers below 3) or 'py:np.eye(3)" in err


def test_labels_of_a_network_that_trains_itself_are_passed_by_position_or_by_name(check, tmp_path):
    (tmp_path / "mine.py").write_text(TRAINED)
    for inputs in ("5x4 5<3", "X=5x4 y=5<3", "y=5<3 X=5x4"):
        status, out, _ = check(f"mine.py:Net --init 4x3 --inputs {inputs}")
        assert (status, out.partition(":")[0]) == (0, "PASS  Net (W)")


def test_labels_that_are_missing_or_fit_no_cost_are_asked_for(check, tmp_path):
    (tmp_path / "mine.py").write_text(TRAINED)
    missing = "mine.py:Net: train takes X, y: y is missing; add labels to --inputs, such as '5<3' (5 integers"
    assert missing in check("mine.py:Net --init 4x3 --inputs 5x4")[2]
    (tmp_path / "mine.py").write_text(TRAINED.replace("np.eye(3)[y]", "y"))
    unfit = "mine.py:Net: by no known cost is a gradient of train right at these X, y; labels are '5<3' (5"
    assert unfit in check("mine.py:Net --init 4x3 --inputs 5x4 5x3")[2]


WRONG_CALLS = {
    "an unknown argument": ("Affine --init 4x3 3 factr=2", "takes W, b, factor, and no factr; did you mean factor?"),
    "a missing argument": ("Affine --init b=3,", "takes W, b, factor: W is missing; pass --init W=shape:SIZES b="),
    "too many arguments": ("Affine --init 4x3 3 =1 =2", "takes W, b, factor: it got 4 values without a name"),
    "an argument twice": ("Affine --init 4x3 3 W=4x3", "takes W, b, factor: W is passed twice"),
    "no input": ("Affine --init 4x3 3", "Affine.forward takes x: x is missing; pass --inputs x=shape:SIZES"),
    "an unknown input": ("Affine --init 4x3 3 --inputs y=5x4", "Affine.forward takes x, and no y"),
    "one of two inputs": ("f,g --inputs 5x4", "f takes x, w: w is missing; add w=shape:SIZES to --inputs"),
    "no input of a function": ("squares --gradient slope", "squares takes x: x is missing; pass --inputs x=shape:"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_CALLS)
def test_a_wrong_call_is_refused_with_what_the_function_takes_and_no_path_of_the_checker(check, tmp_path, name):
    options, message = WRONG_CALLS[name]
    (tmp_path / "mine.py").write_text(CODE + "\ndef f(x, w):\n    pass\ndef g(dout, cache):\n    pass\n")
    status, _, err = check(f"mine.py:{options}")
    assert status == 2
    assert message in err
    assert ".py:" not in err.replace("mine.py:", "")


def test_a_size_that_is_read_as_a_shape_is_named_but_no_size_of_an_array(check, tmp_path):
    (tmp_path / "mine.py").write_text(
        "import numpy as np\nclass Sized:\n    def __init__(self, n_in, b):\n        self.W, self.b = np.eye(n_in), b\n"
        "    def forward(self, x):\n        return x @ self.W + self.b\n    def backward(self, dout):\n        pass\n"
    )
    assert (
        "; n_in got 4, which is read as a shape: =4 is the number\n"
        in check("mine.py:Sized --init 4 4 --inputs 5x4")[2]
    )
    assert "read as a shape" not in check("mine.py:Sized --init =4 3 --inputs 5x4")[2]


@pytest.mark.parametrize(("forward", "backward"), [("f", "f_backward"), ("f", "f_bwd"), ("f_fwd", "f_bwd")])
def test_a_pair_whose_forward_pass_is_not_named_so_is_listed_and_proposed(check, tmp_path, forward, backward):
    (tmp_path / "mine.py").write_text(
        f"import numpy as np\ndef {forward}(x):\n    return np.sin(np.asarray(x)), x\n"
        f"def {backward}(dout, x):\n    return dout * np.cos(x)\n"
    )
    assert check("mine.py")[1] == f"jaxnet check mine.py:{forward},{backward} --inputs x=shape:SIZES\n"
    assert f"; did you mean mine.py:{forward},{backward}?" in check(f"mine.py:{forward} --inputs 5")[2]
    assert check(f"mine.py:{forward},{backward} --inputs 5")[0] == 0


def test_an_error_in_a_constructor_is_placed_in_the_users_file(check, tmp_path):
    (tmp_path / "mine.py").write_text("class Broken:\n    def __init__(self):\n        self.W = {}['W']\n")
    assert check("mine.py:Broken")[2].strip().endswith("the constructor raised KeyError: 'W' (mine.py:3)")


def test_a_network_gets_the_strength_of_its_weight_decay(check):
    status, out, _ = check("mine.py:Decayed --inputs 5x4 5x1 reg=0.5")
    assert status == 1
    assert "the error is W times -0.5" in out
    status, out, _ = check("mine.py:Decayed --inputs 5x4 5x1")
    assert status == 0
    assert "the gradient of its term in the loss is not checked: pass --inputs ... reg=0.5" in " ".join(out.split())


def test_a_file_lists_rules_functions_of_tensors_and_what_returns_its_gradients(check, tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "mine.py").write_text(
        "import jax, torch\n"
        "@jax.custom_vjp\ndef swish(x, beta): return x\n"
        "class Swish(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, x, beta): return x\n"
        "    @staticmethod\n    def backward(ctx, dout): return dout, None\n"
        "class Block(torch.nn.Module):\n    def __init__(self, width): pass\n    def forward(self, x): return x\n"
        "class Net:\n    def loss(self, X, y=None, reg=0.0):\n        loss, grads = 0, {}\n        return loss, grads\n"
        "def svm_loss(W, X, y, reg: float):\n    return loss, dW\n"
        "def split(x):\n    return x, x\n"
        "def backward(dout):\n    return dx, dw\n"
    )
    status, out, _ = check("mine.py")
    assert status == 2
    assert out.splitlines() == [
        "jaxnet check mine.py:swish --inputs x=shape:SIZES beta=shape:SIZES",
        "jaxnet check mine.py:Swish --inputs x=shape:SIZES beta=shape:SIZES",
        "jaxnet check mine.py:Block --init width=VALUE --inputs x=shape:SIZES",
        "jaxnet check mine.py:Net --inputs X=shape:SIZES y=shape:SIZES reg=0.0",
        "jaxnet check mine.py:svm_loss --inputs W=shape:SIZES X=shape:SIZES y=shape:SIZES reg=VALUE",
    ]
