"""Model files: what is wrong with them, when it shows, and on which rank."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.mistakes.case import (
    BUILD,
    MODEL,
    NET,
    RECIPE,
    RETURNS,
    Case,
    Edit,
    directory,
    fifo,
    layer,
    net,
    put,
    recipe,
)


# fmt: off
def models() -> Iterator[Case]:
    """Model files."""
    def case(name: str, said: str | None, edit: Edit, **how) -> Case:
        return Case("models", name, NET, said, edit, **how)

    yield case("a plain one", None, net(), ranks=2)
    for name, line, said in (
        ("an exception", "raise ValueError('mine')", "net.py, line .: ValueError: mine"),
        ("a base exception", "raise BaseException('mine')", "BaseException: mine"),
        ("a group", "raise BaseExceptionGroup('g', [KeyError(1)])", "ExceptionGroup|NameError"),
        ("GeneratorExit", "raise GeneratorExit", "GeneratorExit"),
        ("sys.exit(0)", "sys.exit(0)", "SystemExit: 0"),
        ("sys.exit(3)", "sys.exit(3)", "SystemExit: 3"),
        ("sys.exit('text')", "sys.exit('text')", "SystemExit: text"),
        ("os._exit(0)", "os._exit(0)", "net.py, line .: "),
        ("os._exit(3)", "os._exit(3)", "net.py, line .: "),
        ("recursion", "(lambda f: f(f))(lambda f: f(f))", "RecursionError"),
        ("no memory", "import numpy; numpy.zeros(1 << 55)", "MemoryError"),
        ("a missing module", "import no_such_module", "ModuleNotFoundError"),
        ("a message of lines", "raise ValueError('one\\ntwo\\n\\nthree')", "one two three"),
        ("a message of 100 KB", "raise ValueError('x' * 100_000)", "ValueError: x"),
        (
            "an exception that cannot be told",
            "exec('class E(Exception):\\n def __str__(self): raise KeyError\\nraise E')",
            "net.py, line .",
        ),
        (
            "a warning as error",
            "import warnings; warnings.simplefilter('error'); warnings.warn('w')", "UserWarning",
        ),
    ):
        yield case(f"{name}, at import", said, net(top=line))
        inside = net((BUILD, f"{BUILD}    {line}\n"))
        yield case(
            f"{name}, in build()", said.replace("net.py, line .", "model net, line .*"), inside
        )
    for name, line in (
        ("exit 0", "sys.exit(0)"), ("exit 3", "sys.exit(3)"), ("os._exit(0)", "os._exit(0)"),
        ("os._exit(3)", "os._exit(3)"), ("raise", "raise BaseException('mine')"),
        ("recursion", "(lambda f: f(f))(lambda f: f(f))"),
    ):
        for who in ("True", "rank() == 0", "rank() == 1"):
            said = "net.py, line"
            yield case(f"{name} if {who}, at import", said, net(top=f"if {who}: {line}"), ranks=2)
        there = net((BUILD, f"{BUILD}    if rank() == 1: {line}\n"))
        yield case(f"{name} on rank 1, in build()", "build.. of model net, line", there, ranks=2)
        there = net((RECIPE, f"{RECIPE}    if rank() == 1: {line}\n"))
        yield case(f"{name} on rank 1, in recipe()", "recipe.. of model net, line", there, ranks=2)
    for name, line in (("exit 0", "sys.exit(0)"), ("os._exit(0)", "os._exit(0)")):
        # In the midst of a step it cannot be one line; but it is no success, and the job ends.
        for ranks, who in ((1, "True"), (2, "rank() == 1"), (2, "rank() == 0")):
            edit = layer(f"if {who}: {line}")
            title = f"{name} in a step if {who}, {ranks} ranks"
            yield case(title, "", edit, ranks=ranks, codes=(1, 2), begun=True, lines=-1)
    edit = layer("if rank() == 1: raise ValueError('mine')")
    yield case("an exception in a step", "mine", edit, ranks=2, codes=(1, 2), begun=True, lines=-1)
    for name, content, said in (
        ("no Python", b"def build(:\n", "net.py, line 1: SyntaxError"),
        ("a zero byte", b"x = 1\n\0", "net.py"),
        ("not UTF-8", b"# caf\xe9\n", "cannot read net.py"), ("empty", b"", "no function build"),
        ("indentation", b"def build():\nreturn 1\n", "IndentationError"),
        ("thousands of brackets", b"x = " + b"(" * 5000 + b")" * 5000, "net.py"),
        ("no recipe()", MODEL.replace("def recipe", "def other").encode(), "no function recipe"),
        ("no build()", MODEL.replace("def build", "def other").encode(), "no function build"),
        ("build is no function", (MODEL + "build = 3\n").encode(), "no function build"),
        ("recipe is no function", (MODEL + "recipe = {}\n").encode(), "no function recipe"),
        ("build is a class", (MODEL + "build = int\n").encode(), "build.* of model net"),
    ):
        yield case(name, said, put("net.py", content))
    yield case("a byte order mark", None, put("net.py", "\ufeff" + MODEL))
    yield case("a folder", "no model 'net.py'", directory("net.py"))
    yield case("a pipe", "no model 'net.py'", fifo("net.py"))
    yield Case("models", "not there", "train other.py --out out", "no model 'other.py'", None, 2)
    yield Case("models", "an unknown name", "train mpl --out out", "no model 'mpl'")
    for name, old, new, said in (
        (
            "returns None",
            RETURNS,
            "return None and nn.Sequential(nn.Affine('a'", "returns NoneType",
        ),
        ("returns a list", RETURNS, "return [1] or nn.Sequential(nn.Affine('a'", "returns list"),
        (
            "no arguments",
            BUILD,
            "def build():\n    inputs = classes = hidden = seed = 1\n", "cannot be called",
        ),
        ("one more argument", "hidden=4)", "hidden)", "cannot be called"),
        (
            "another width", "inputs, hidden, seed)",
            "inputs + 1, hidden, seed)", "145 inputs but the data",
        ),
        ("another number of outputs", "hidden, classes,", "hidden, classes + 1,", "11 outputs"),
        (
            "layers that do not fit",
            'nn.Affine("b", hidden',
            'nn.Affine("b", hidden + 1',
            "build.* of model net",
        ),
        ("two layers of one name", '"b"', '"a"', "build.*'?a'?"),
        (
            "no layers",
            RETURNS,
            "return nn.Sequential() or nn.Sequential(nn.Affine('a'", "model net",
        ),
        (
            "no name",
            'nn.Affine("b", hidden, classes, seed)',
            '(lambda one: delattr(one, "name") or one)(nn.Affine("b", hidden, classes, seed))',
            "layer of class Affine has no name",
        ),
        ("an empty name", '"b"', '""', "layer of class Affine has no name"),
        ("a name that is no text", '"b"', "7", "build.* of model net"),
        (
            "no parameters",
            RETURNS,
            "return nn.Sequential(nn.Relu()) or nn.Sequential(nn.Affine('a'", "model net",
        ),
        ("width 0", "hidden=4", "hidden=0", "model net"),
        ("width -1", "hidden=4", "hidden=-1", "model net"),
        ("width 1.5", "hidden=4", "hidden=1.5", "model net"),
        ("width '4'", "hidden=4", "hidden='4'", "model net"),
        ("width 10^12", "hidden=4", "hidden=10**12", "model net has .* parameters"),
        ("a seed of text", "classes, seed)", "classes, 'seed')", "model net|seed"),
        ("a layer that is none", "nn.Relu()", "'relu'", "model net"),
        (
            "inputs left out", "seed, inputs, classes, hidden=4",
            "seed, classes, hidden=4", "cannot be called",
        ),
    ):
        yield case(name, said, net((old, new)))
    edit, words = net(("hidden=4", "hidden=4, sizes=(8, 8)")), f"{NET} --set sizes=64,32"
    yield Case("models", "--set of a tuple", words, "sizes=64,32 .*has the default .8, 8.", edit)
    for name, more, said in (
        ("a dict", None, "returns dict"), ("no task", "epochs=1, lr=0.1", "recipe.. of model net"),
        ("an unknown key", "task='images', epochs=1, lr=0.1, rate=3", "recipe.*rate"),
        ("task of a list", "task=['images'], epochs=1, lr=0.1", "task"),
        ("an unknown task", "task='video', epochs=1, lr=0.1", "video"),
        ("epochs '3'", "task='images', epochs='3', lr=0.1", "epochs"),
        ("epochs 0", "task='images', epochs=0, lr=0.1", "epochs"),
        ("epochs True", "task='images', epochs=True, lr=0.1", "epochs"),
        ("epochs 10^30", "task='images', epochs=10**30, lr=0.1", "epochs"),
        ("lr NaN", "task='images', epochs=1, lr=float('nan')", "lr"),
        ("lr inf", "task='images', epochs=1, lr=float('inf')", "lr"),
        ("lr -1", "task='images', epochs=1, lr=-1.0", "lr"),
        ("lr 10^400", "task='images', epochs=1, lr=10**400", "lr"),
        ("lr of numpy", "task='images', epochs=1, lr=__import__('numpy').array([1.0])", "lr"),
        ("batch 1.5", "task='images', epochs=1, lr=0.1, batch=1.5", "batch"),
        ("microsteps 0", "task='images', epochs=1, lr=0.1, microsteps=0", "microsteps"),
        ("momentum NaN", "task='images', epochs=1, lr=0.1, momentum=float('nan')", "momentum"),
        ("momentum 2", "task='images', epochs=1, lr=0.1, momentum=2.0", "momentum"),
        ("clip inf", "task='images', epochs=1, lr=0.1, clip=float('inf')", "clip"),
        (
            "decay inf",
            "task='images', epochs=1, lr=0.1, schedule='exponential', decay=float('inf')", "decay",
        ),
        (
            "warmup NaN",
            "task='images', epochs=1, lr=0.1, schedule='warmup', warmup=float('nan')",
            "warmup|schedule",
        ),
        ("an unknown optimizer", "task='images', epochs=1, lr=0.1, optimizer='lbfgs'", "lbfgs"),
        ("an unknown schedule", "task='images', epochs=1, lr=0.1, schedule='cosine7'", "cosine7"),
        ("an unknown method", "task='images', epochs=1, lr=0.1, methods={'thau': 3}", "thau"),
        ("a method of text", "task='images', epochs=1, lr=0.1, methods={'tau': 'x'}", "tau"),
        ("a method NaN", "task='images', epochs=1, lr=0.1, methods={'tau': float('nan')}", "tau"),
        (
            "an unknown setting", "task='images', epochs=1, lr=0.1, settings={'context': 3}",
            "context",
        ),
        ("settings of text", "task='images', epochs=1, lr=0.1, settings='none'", "settings"),
    ):
        edit = recipe(more) if more else net((RECIPE, RECIPE + "    return {}\n"))
        yield case(f"recipe: {name}", said, edit)
    for name, old, new, said in (
        ("width", "hidden=4", "hidden=4 + rank()", "of layer 0 is|--set|layer"),
        ("depth", "nn.Relu(),", "nn.Relu(), *[nn.Tanh()] * rank(),", "layer 2"),
        ("activation", "nn.Relu()", "[nn.Relu, nn.Tanh][rank()]()", "layer 1 is 'Relu' on rank 0"),
        ("seed", "classes, seed)", "classes, seed + rank())", "seed of layer 2"),
        ("name", '"b"', '"ab"[rank()] + "b"', "name of layer 2"),
        ("rate", "lr=0.1", "lr=0.1 + rank()", "--lr is 0.1 on rank 0"),
        ("batch", "lr=0.1", "lr=0.1, batch=4 + rank()", None),
        ("optimizer", "lr=0.1", "lr=0.1, optimizer=['sgd', 'adam'][rank()]", "--optimizer"),
        ("epochs", "epochs=1", "epochs=1 + rank()", "--epochs"),
        ("schedule", "lr=0.1", "lr=0.1, schedule=['constant', 'newbob'][rank()]", "--schedule"),
        ("clip", "lr=0.1", "lr=0.1, clip=1.0 + rank()", "--clip"),
        ("microsteps", "lr=0.1", "lr=0.1, microsteps=1 + rank()", "--microsteps"),
        ("task", '"images"', '["images", "acoustic"][rank()]', "the recipe's task"),
        ("methods", "lr=0.1", "lr=0.1, methods={'tau': 1.0 + rank()}", "recipe's tau"),
        (
            "returned kind",
            RETURNS,
            "return rank() and 3 or nn.Sequential(nn.Affine('a'", "returns int",
        ),
    ):
        yield case(f"ranks differ in {name}", said, net((old, new)), ranks=2)
    both = net(top="import time\nx = time.time() * (1 + rank())")
    yield case("ranks differ in nothing that counts", None, both, ranks=2)
