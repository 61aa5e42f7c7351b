"""The package knows all its parts, installs as a wheel, and importing it starts no MPI."""

import configparser
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
MODULES = sorted(
    ".".join(file.relative_to(CHECKOUT).with_suffix("").parts).removesuffix(".__init__")
    for file in (CHECKOUT / "refimpl").rglob("*.py")
)
PACKAGES = {
    ".".join(file.parent.relative_to(CHECKOUT).parts)
    for file in (CHECKOUT / "refimpl").rglob("*.py")
} | {"refimpl.models"}


def test_every_package_is_named_in_setup_cfg():
    config = configparser.ConfigParser()
    config.read(CHECKOUT / "setup.cfg")
    named = config["options"]["packages"].split()
    assert named == sorted(PACKAGES)


def test_every_package_has_an_init():
    folders = {file.parent for file in (CHECKOUT / "refimpl").rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_importing_every_module_starts_no_mpi():
    program = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    assert 'mpi4py.MPI' not in sys.modules, name\n"
    )
    command = [sys.executable, "-c", program, *MODULES]
    run = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr


def test_importing_refimpl_imports_nothing_heavy():
    program = "import sys, refimpl\nassert not {'numpy', 'scipy', 'mpi4py'} & set(sys.modules)"
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr


def test_the_trainer_starts_without_what_only_the_synthesizer_needs():
    # 0.8 s and 70 MB a rank: told of a typing error in 5 s, not 27, are 32 ranks on two cores.
    program = (
        "import sys, refimpl.run.trainer\n"
        "assert not {'scipy.signal', 'scipy.io'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr


def test_wheel_holds_every_module_the_models_and_that_it_is_typed(tmp_path):
    if find_spec("setuptools") is None:
        pytest.skip("no setuptools here to build with, and tests use no network")
    import setuptools

    if int(setuptools.__version__.split(".")[0]) < 68:
        pytest.skip(f"setuptools {setuptools.__version__} is older than pyproject.toml asks for")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    source = tmp_path / "source"  # building leaves folders behind
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "refimpl", "models"):
        if (CHECKOUT / name).exists():
            (source / name).symlink_to(CHECKOUT / name)
    subprocess.run([*command, "-w", tmp_path, source], check=True, timeout=120)
    (wheel,) = tmp_path.glob("refimpl-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    held = {name for name in names if name.endswith(".py")}
    files = {str(file.relative_to(CHECKOUT)) for file in (CHECKOUT / "refimpl").rglob("*.py")}
    models = {f"refimpl/models/{file.name}" for file in (CHECKOUT / "models").glob("*.py")}
    assert held == files | models
    data = ("schema.json", "operations.json", "editions.json", "CC0.txt", "adapters/golden.c")
    assert {"refimpl/py.typed", *(f"refimpl/golden/{name}" for name in data)} <= set(names)


def test_source_distribution_holds_all_that_the_repository_holds(tmp_path):
    setuptools = pytest.importorskip("setuptools", reason="tests use no network")
    if int(setuptools.__version__.split(".")[0]) < 68:
        pytest.skip(f"setuptools {setuptools.__version__} is older than pyproject.toml asks for")
    if not (CHECKOUT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("no clone, or no git")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, text=True
    )
    files = {name for name in listed.stdout.split("\0") if name and (CHECKOUT / name).exists()}
    for name in files:
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CHECKOUT / name, tmp_path / "source" / name)
    build = "from setuptools.build_meta import build_sdist; build_sdist('..')"
    command = [sys.executable, "-c", build]
    subprocess.run(command, cwd=tmp_path / "source", capture_output=True, check=True, timeout=120)
    (archive,) = tmp_path.glob("refimpl-*.tar.gz")
    with tarfile.open(archive) as opened:
        held = {name.partition("/")[2] for name in opened.getnames()}
    assert files - held <= {".gitignore"}
