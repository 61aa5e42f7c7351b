"""Model files: shipped or the user's own, and what is said about a bad one."""

from typing import get_type_hints

import pytest
from loopback import spawn

from refimpl.run.modelfile import ModelFile, find, shelf, shipped
from refimpl.support.errors import UserError

GOOD = """
from refimpl.run.config import Recipe
from refimpl import nn
def build(seed, inputs=4, classes=3, hidden=5, slope=0.5, wide=False, norm=None, sizes=(8, 8)):
    return nn.Sequential(nn.Affine("a", inputs, hidden, seed), nn.Relu(),
                         nn.Affine("b", hidden, classes, seed))
def recipe():
    return Recipe(task="images", epochs=1, lr=0.1)
"""


def parse(text):
    return ModelFile.parse("net", text, "net.py")


def test_every_shipped_model_builds_and_has_a_recipe():
    assert {"acoustic_mlp", "mlp"} <= set(shipped())
    for name in shipped():
        model = ModelFile.parse(name, (shelf() / f"{name}.py").read_text(), name)
        network = model.build(0, 12, 7, {})
        assert (network.inputs, network.outputs) == (12, 7)
        assert model.recipe().epochs >= 1


def test_a_models_own_options_can_be_set_and_keep_their_type():
    model = parse(GOOD)
    default = {"hidden": 5, "slope": 0.5, "wide": False, "norm": None, "sizes": (8, 8)}
    assert model.options() == default
    assert model._chosen("wide", "False") is False and model._chosen("wide", "True") is True
    network = model.build(0, 4, 3, {"hidden": "9"})
    assert [layer.size for layer in network.units] == [4 * 9 + 9, 9 * 3 + 3]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"width": "9"}, "has no option 'width': it has hidden, norm, sizes, slope, wide"),
        ({"hidden": "big"}, "hidden=big of model net is not of type int"),
        ({"hidden": "9" * 5000}, "of model net is not of type int"),
        ({"hidden": "1000000000000"}, "^option hidden=1000000000000 .* to 100,000$"),
        ({"hidden": "-1000000000000"}, "give a number from 0 to"),
        ({"hidden": "-1"}, "option hidden=-1 of model net: give a number from 0 to 100,000$"),
        ({"slope": "nan"}, "option slope=nan of model net: give a number from -100,000 to"),
        ({"slope": "-inf"}, "option slope=-inf of model net: give a number from"),
        ({"wide": "no"}, "wide=no of model net is not of type bool .its default is False"),
        ({"norm": "x"}, "norm=x of model net has the default None: --set changes what is a"),
        ({"sizes": "64,32"}, "sizes=64,32 of model net has the default .8, 8.: --set"),
    ],
)
def test_an_unknown_or_ill_typed_option_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        parse(GOOD).build(0, 4, 3, options)


@pytest.mark.parametrize(
    "text, message",
    [
        ("def build(:", "net.py, line 1: SyntaxError"),
        ("\n1/0", "net.py, line 2: ZeroDivisionError: division by zero"),
        ("x = 1", r"defines no function build\(\)"),
        ("def build(seed): pass", r"defines no function recipe\(\)"),
        ("import sys\nsys.exit(0)", "^model file net.py, line 2: SystemExit: 0$"),
        ("raise SystemExit", "^model file net.py, line 1: SystemExit:$"),
        ("class Own(BaseException): pass\nraise Own('x')", "net.py, line 2: Own: x"),
        ("def f(): f()\nf()", "net.py, line 1: RecursionError: maximum recursion depth"),
        ("x = " + "(" * 10000, "net.py.*: (SyntaxError|MemoryError|RecursionError): "),
        ("raise ValueError('one\\n  two\\u2028three')", "ValueError: one two three$"),
        ("raise ValueError('x' * 10**5)", "^model file net.py, line 1: ValueError: x{500}$"),
        (
            "class E(Exception):\n    def __str__(self): raise KeyError\nraise E",
            "^model file net.py, line 3: E$",
        ),
    ],
)
def test_a_broken_model_file_is_named_with_its_line(text, message):
    with pytest.raises(UserError, match=message):
        parse(text)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("epochs=1", 'epochs="1"', r"recipe\(\) .* line 8: recipe's epochs is '1': .* be int$"),
        ("epochs=1", "epochs=True", "recipe's epochs is True: its type must be int$"),
        ("epochs=1", "epoch=1", r"recipe\(\) of model net, line 8: TypeError: .* 'epoch'"),
        ("lr=0.1", "lr=rate", "line 8: NameError: name 'rate' is not defined"),
        ("recipe():", "recipe(task):", r"recipe\(\) of model net cannot be called: .*'task'"),
        ("classes=3, ", "", r"build\(\) of model net cannot be called: .*'classes'; a model file"),
        ("return nn.Sequential", "return print", r"build\(\) of model net returns NoneType: it"),
        ("nn.Relu()", "nn.Relo()", r"build\(\) of model net, line 5: AttributeError: .*Relo"),
        ("return nn.S", "import sys; sys.exit(0); nn.S", r"build\(\) .*, line 5: SystemExit: 0"),
        ("return nn.S", "exit(3); nn.S", r"build\(\) of model net, line 5: SystemExit: 3"),
        ("return nn.S", "build(seed); nn.S", r"build\(\) .*, line 5: RecursionError: maximum"),
        ("return R", "raise BaseException('a\\nb'); R", "line 8: BaseException: a b$"),
        ("return R", "int('x' * 4); open('/'); R", "line 8: ValueError: invalid literal"),
        ("def build(seed, ", "build = dict\ndef _(", r"build\(\) of .* cannot be called: no sig"),
        ("def build(seed, inputs=4, classes=3, ", "def build(", "cannot be called: got an unexp"),
        ("return R", "import json; json.loads('{'); R", "line 8: JSONDecodeError: Expecting"),
        ('"a", inputs, hidden', '"a", inputs, 1.5', "both must be whole numbers, at least 1$"),
        ('"a", inputs, hidden', '"a", inputs, "5"', "of 4 inputs and '5' outputs: both must"),
        (
            '"a", inputs',
            "7, inputs",
            r"build\(\) .*, line 5: a layer is named 7: a text is needed",
        ),
        ("seed), nn", "'x'), nn", "line 5: layer 'a' has the seed 'x': a number is needed"),
        ("seed), nn", "seed, float('nan')), nn", "layer 'a' has the gain nan: a number is needed"),
        ("nn.Relu()", "'relu'", "line 5: a network of 'relu': layers are needed"),
        ('"b", hidden', '"b", 7', r"build\(\) of model net, line 5: layer 'b' takes 7 inputs"),
    ],
)
def test_a_mistake_in_a_function_of_a_model_file_is_one_line(old, new, message):
    assert old in GOOD
    model = parse(GOOD.replace(old, new))
    with pytest.raises(UserError, match=message):
        model.recipe()
        model.build(0, 4, 3, {})


def test_what_fails_below_a_model_file_keeps_its_traceback(monkeypatch):
    """A bug of ours must not be taken for a mistake of the user's."""

    def broken(*args):
        raise ValueError("ours")

    monkeypatch.setattr("refimpl.nn.layers.Initial", broken)
    with pytest.raises(ValueError, match="ours"):
        parse(GOOD).build(0, 4, 3, {})


@pytest.mark.parametrize("later", ["", "from __future__ import annotations"])
def test_a_model_file_has_dataclasses_and_their_types_whatever_its_name(later):
    """Its annotations are what the file says they are, not what is said in ours."""
    text = "from dataclasses import dataclass\n@dataclass\nclass Shape: width: {}"
    one, other = (parse(f"{later}\n{text.format(kind)}\n{GOOD}") for kind in ("int", "float"))
    assert get_type_hints(one.module.Shape) == {"width": int}
    assert get_type_hints(other.module.Shape) == {"width": float}
    assert one.module.Shape.__annotations__ == {"width": "int" if later else int}


def test_a_byte_order_mark_is_passed_over_as_python_does(tmp_path):
    file = tmp_path / "net.py"
    file.write_text("\ufeff" + GOOD)
    (model,) = spawn((0,), lambda comm: ModelFile.open(str(file), comm))
    assert model.recipe().lr == 0.1


def test_an_unknown_model_is_refused_with_the_shipped_ones():
    with pytest.raises(UserError, match=r"no model 'acustic': .* one of acoustic_mlp, mlp"):
        find("acustic")
    with pytest.raises(UserError, match=r"no model 'my/net.py'"):
        find("my/net.py")


def test_ranks_that_opened_different_files_all_refuse_and_name_the_odd_ones(tmp_path):
    files = [tmp_path / name / "net.py" for name in ("a", "b")]
    for file, text in zip(files, (GOOD, GOOD + "# another edition"), strict=True):
        file.parent.mkdir()
        file.write_text(text)

    def body(comm):
        with pytest.raises(UserError, match=r"on ranks \[1\] differs from the one on rank 0"):
            ModelFile.open(str(files[comm.rank == 1]), comm)
        return True

    assert spawn((0, 0, 0), body) == [True] * 3


def test_a_file_that_one_rank_does_not_have_is_refused_by_all(tmp_path):
    (tmp_path / "net.py").write_text(GOOD)

    def body(comm):
        with pytest.raises(UserError, match="no model .*elsewhere"):
            ModelFile.open(str(tmp_path / ("net.py" if comm.rank else "elsewhere.py")), comm)
        return True

    assert spawn((0, 0), body) == [True] * 2


def test_a_recipe_of_the_wrong_type_is_refused():
    model = parse(GOOD.replace('Recipe(task="images", epochs=1, lr=0.1)', "{}"))
    with pytest.raises(
        UserError, match="returns dict: it must return a refimpl.run.config.Recipe"
    ):
        model.recipe()
