"""A checkout of nothing but run_mpi.sh, and fake commands that write down how they were called."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
VARIABLES = ("HOSTFILE", "MPIEXEC", "PYTHON", "VIRTUAL_ENV", "CONDA_PREFIX", "OMP_NUM_THREADS")
PREFIXES = ("REFIMPL_", "SLURM_", "OMPI_", "PRTE_", "PMI", "OPENBLAS_", "UCX_")

RECORDER = """#!/bin/sh
case "${1:-}" in --version) echo "%s"; exit 0 ;; esac
for word; do printf '%%s\\n' "$word"; done >'%s'
env >'%s'
exit %d
"""


SAFELY = ["-P", "-m", "mpi4py"]
if sys.version_info < (3, 11):
    SAFE = "import sys; sys.path = [folder for folder in sys.path if folder]"
    SAFELY = ["-c", f"{SAFE}; from mpi4py.run import main; main()"]

EXISTING_PYTHON = """
case "$*" in
    *surroundings.py* | *subprocess.run*) exit 0 ;;
esac
exec '%s' "$@"
"""


FITTING_PYTHON = """
case "$*" in
    *"surroundings.py fits"*) exit 0 ;;
esac
exec '%s' "$@"
"""


FAKE_PYTHON = """
case "$*" in
    *"-m venv"*)
        for folder; do :; done
        mkdir -p "$folder/bin"
        cp "$0" "$folder/bin/python"
        cp "$0" "$folder/bin/mpiexec" ;;
    *"-m pip"*)
        sleep "${SLOWLY:-0}"
        echo pip >>"$LOG"
        [ ! -e "$LOG.broken" ] || { echo "no such index"; exit 1; } ;;
    *surroundings.py*) exit 1 ;;
    *version_info*) echo 3.12 ;;
    *find_spec*) case "$*" in *mpi4py*) case "$0" in */.venv/*) ;; *) exit 1 ;; esac ;; esac ;;
    *flock*) [ -z "$NO_LOCKS" ] ;;
esac
"""


OTHER_PYTHON = """
case "$*" in
    *surroundings.py*) PYTHONPATH=$MODULES exec '%s' "$@" ;;
esac
%s
"""


class Place:
    """A checkout of nothing but run_mpi.sh, an environment and fake commands on a PATH."""

    def __init__(self, root):
        self.checkout = root / "check out"
        self.bin = root / "some bin"
        self.heard, self.environ = root / "heard", root / "environ"
        self.checkout.mkdir()
        self.bin.mkdir()
        shutil.copy(CHECKOUT / "run_mpi.sh", self.checkout)
        shutil.copy(CHECKOUT / "setup.cfg", self.checkout)
        support = Path("refimpl/support")
        (self.checkout / support).mkdir(parents=True)
        for helper in ("surroundings.py", "rank.sh"):
            shutil.copy(CHECKOUT / support / helper, self.checkout / support)
        self.parent = ["sh", str(self.checkout / support / "rank.sh")]  # of every rank
        self.command("python3", f'exec "{sys.executable}" "$@"')

    def command(self, name, text):
        """Put a command on the PATH."""
        file = self.bin / name
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)
        return file

    def launcher(self, name, exit_code=0, version="HYDRA build details"):
        """Put a launcher on the PATH that records its words and surroundings."""
        file = self.command(name, "")
        file.write_text(RECORDER % (version, self.heard, self.environ, exit_code))
        return file

    def run(self, *words, cwd=None, **variables):
        """Run run_mpi.sh; return the finished process."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if name not in VARIABLES and not name.startswith(PREFIXES)
        }
        return subprocess.run(
            [self.checkout / "run_mpi.sh", *words],
            env={**kept, "PATH": f"{self.bin}:/usr/bin:/bin", **variables},
            cwd=cwd or self.checkout,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def words(self):
        return self.heard.read_text().splitlines()

    def package(self, program):
        """Put a refimpl into the checkout that runs this program."""
        folder = self.checkout / "refimpl"
        (folder / "__init__.py").touch()  # without it, an installed refimpl would come first
        (folder / "__main__.py").write_text(program)

    def surroundings(self):
        lines = self.environ.read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)


def needs_mpi4py(place):
    finder = "import sys; from importlib.util import find_spec; sys.exit(not find_spec('mpi4py'))"
    if subprocess.run([place.bin / "python3", "-c", finder]).returncode:
        pytest.skip("no mpi4py here: run_mpi.sh would set up an environment")
