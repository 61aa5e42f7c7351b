#!/bin/sh
# run_mpi.sh [-n RANKS] [COMMAND ...]: refimpl on MPI ranks, set up on first use.
#
# The file reads downward: options, where to run (an environment that is there, else one made
# here), what every rank needs in its surroundings, the launch.  See docs/install.md.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
default_mpi=mpich # measured against openmpi: docs/install.md

usage() {
    cat <<'HELP'
usage: ./run_mpi.sh [-n RANKS] [--hostfile FILE] [COMMAND ...]

  ./run_mpi.sh                        train an acoustic model on 4 ranks: the main job
  ./run_mpi.sh -n 2 train mlp         any refimpl command, on 2 ranks
  ./run_mpi.sh topology -n 16         commands that need no MPI start none
  ./run_mpi.sh test [PYTEST ARGS]     all tests, those on several ranks included
  ./run_mpi.sh setup                  make or repair the environment; print its Python
  ./run_mpi.sh train --help           a command's own options

  -n RANKS         number of ranks (default 4; inside a SLURM job, its number of tasks)
  --hostfile FILE  the machines to use, as the MPI in use writes them (or HOSTFILE=FILE)
  -h, --help       this text

An active environment (venv, conda, modules) with mpiexec, mpi4py, numpy and scipy is used as it
is.  Otherwise .venv is made beside this file, with an MPI from the package index (about 30 s).

  REFIMPL_MPI=mpich|openmpi   use an environment made here, with that MPI
  REFIMPL_VENV=FOLDER         make it there
  PYTHON=python3.12           the Python to use (3.10 or newer)
  MPIEXEC='srun --mpi=pmix'   the launcher to use; "-n RANKS" and the program follow
  OMP_NUM_THREADS=2           BLAS threads of each rank (default 1)
HELP
}

say() { printf 'run_mpi.sh: %s\n' "$*" >&2; }

refuse() {
    say "$*"
    exit 2
}

# --- options ---------------------------------------------------------------------------------

ranks=
hostfile=${HOSTFILE:-}
while [ $# -gt 0 ]; do
    case $1 in
        -n | --hostfile)
            [ $# -ge 2 ] || refuse "option $1 needs a value, e.g. $1 $([ "$1" = -n ] && echo 4 || echo hosts)"
            if [ "$1" = -n ]; then ranks=$2; else hostfile=$2; fi
            shift 2
            ;;
        -n?*) ranks=${1#-n} && shift ;;
        --hostfile=*) hostfile=${1#*=} && shift ;;
        -h | --help) usage && exit 0 ;;
        --) shift && break ;;
        -*) refuse "unknown option $1: before the command stand -n RANKS, --hostfile FILE or -h; a command's own options follow it" ;;
        *) break ;;
    esac
done
if [ -n "$ranks" ]; then
    case $ranks in
        *[!0-9]* | 0*) refuse "-n $ranks is not a number of ranks: give 1 or more, e.g. -n 4" ;;
    esac
fi
[ -z "$hostfile" ] || [ -r "$hostfile" ] || refuse "cannot read the host file $hostfile: give a file with one machine per line"
case ${REFIMPL_MPI:-} in
    '' | mpich | openmpi) ;;
    *) refuse "unknown REFIMPL_MPI=$REFIMPL_MPI: give mpich or openmpi, or unset it" ;;
esac

[ $# -gt 0 ] || set -- train acoustic_mlp --strategy ddp
command=$1

# --- Python ----------------------------------------------------------------------------------

# How our own lines of Python begin: what lies in the folder one works in is none of their modules.
safely='import sys; sys.path = [folder for folder in sys.path if folder]'

# Print "3.12" if $1 is a Python that can run refimpl; fail silently if it is not.
python_version() {
    "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2]); sys.exit(sys.version_info < (3, 10))' 2>/dev/null </dev/null
}

# Does Python $1 find all the modules that follow?
has_modules() {
    python_with_modules=$1
    shift
    "$python_with_modules" -c "$safely"'
from importlib.util import find_spec
sys.exit(not all(find_spec(name) for name in sys.argv[1:]))' "$@" </dev/null >/dev/null 2>&1
}

# Does Python $1 have mpi4py?  If it has, but cannot run refimpl all the same, print the reason:
# a version that setup.cfg does not take, or an mpi4py whose MPI is not there.
judge() {
    "$1" -c "$safely"'
import configparser, importlib, re
from importlib.util import find_spec
if not find_spec("mpi4py"):
    sys.exit(1)
def numbers(text):
    return [int(number) for number in re.findall("[0-9]+", text)[:3]]
config = configparser.ConfigParser()
config.read(sys.argv[1])
least = dict(line.split(">=") for line in config["options"]["install_requires"].split())
def reason():
    needed = config["options"]["python_requires"]
    if list(sys.version_info[:3]) < numbers(needed):
        return "Python %d.%d is too old, %s is needed" % (*sys.version_info[:2], needed)
    for name in sorted(least):
        if not find_spec(name):
            return "it has mpi4py but no " + name
        version = importlib.import_module(name).__version__
        if numbers(version) < numbers(least[name]):
            return "%s %s is too old, %s or newer is needed" % (name, version, least[name])
    import mpi4py
    mpi4py.rc.initialize = False
    from mpi4py import MPI
try:
    why = reason()
except Exception as error:
    why = "; ".join(str(error).split("\n"))
if why:
    print("the Python in %s: %s" % (sys.prefix, why))' "$here/setup.cfg" </dev/null 2>/dev/null
}

# Print the Python to make an environment with: it must bring venv and pip.
find_python() {
    found=
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.14 python3.13 python3.12 python3.11 python3.10 python; do
        if version=$(python_version "$candidate"); then
            if has_modules "$candidate" venv ensurepip; then
                command -v "$candidate"
                return
            fi
            found="$candidate ($version)"
        elif [ "$candidate" = "${PYTHON:-}" ]; then
            say "PYTHON=$PYTHON is not a Python 3.10 or newer: name one, e.g. PYTHON=python3.12"
            return 1
        fi
        [ -z "${PYTHON:-}" ] || break
    done
    if [ -n "$found" ]; then
        say "$found cannot make environments (no venv and ensurepip): install its venv package, e.g. apt install python3-venv, or name another Python with PYTHON="
    else
        say "no Python 3.10 or newer found: install one, or name it, e.g. PYTHON=/opt/python3.12/bin/python3"
    fi
    return 1
}

# --- an environment that is there ------------------------------------------------------------

in_slurm() { [ -n "${SLURM_JOB_ID:-}" ] && [ -z "$hostfile" ] && command -v srun >/dev/null; }

# Does launcher $1 start two ranks of Python $2 that see each other?  (An mpiexec of another MPI
# starts two worlds of one.)
launches() {
    "$2" -c 'import subprocess, sys
ranks = "from mpi4py import MPI; import numpy, scipy; raise SystemExit(MPI.COMM_WORLD.size != 2)"
command = [sys.argv[1], "-n", "2", sys.executable, "-c", ranks]
sys.exit(subprocess.run(command, timeout=60).returncode)' "$1" "$2" </dev/null >/dev/null 2>&1
}

# Set python and mpiexec to an environment that works as it is, or fail.
use_existing() {
    set -- python3 python
    [ -z "${CONDA_PREFIX:-}" ] || set -- "$CONDA_PREFIX/bin/python" "$@"
    [ -z "${VIRTUAL_ENV:-}" ] || set -- "$VIRTUAL_ENV/bin/python" "$@"
    [ -z "${PYTHON:-}" ] || set -- "$PYTHON"
    told=
    for candidate; do
        why=$(judge "$candidate") || continue
        if [ -n "$why" ]; then
            [ "$why" = "$told" ] || say "not used: $why"
            told=$why
            continue
        fi
        python=$(command -v "$candidate")
        mpiexec=$(dirname "$python")/mpiexec
        [ -x "$mpiexec" ] || mpiexec=$(command -v mpiexec || true)
        if [ -n "${MPIEXEC:-}" ] || in_slurm; then return 0; fi
        [ -n "$mpiexec" ] || continue
        [ ! -e "$(dirname "$mpiexec")/../.refimpl-ready" ] || return 0
        if launches "$mpiexec" "$python"; then return 0; fi
        say "not used: $mpiexec does not start ranks of the mpi4py in $python"
    done
    return 1
}

# --- an environment of our own ---------------------------------------------------------------
#
# $venv/.refimpl-made   we made the folder, so we may make it anew
# $venv/.refimpl-ready  what was installed into it, completely; a set-up that was interrupted
#                       leaves none, and the next run repairs it

# Print what must be installed: the MPI, the extras, the dependencies, where the checkout is.
wanted() {
    dependencies=$(sed '/^\[tool/,$d' "$here/setup.cfg" | cksum)
    printf '%s\n' "$mpi $extras $dependencies $here"
}

is_ready() {
    [ -x "$venv/bin/python" ] && [ -r "$venv/.refimpl-ready" ] || return 1
    for extras in "$mpi,test" "$least"; do
        [ "$(cat "$venv/.refimpl-ready")" != "$(wanted)" ] || return 0
    done
    return 1
}

quietly() {
    "$@" </dev/null >>"$venv/refimpl-setup.log" 2>&1
}

# Hold $venv.lock, until this script ends or `unlock`; wait for another set-up that holds it.
# The lock belongs to descriptor 9, so it goes with the process, however that ends.  On a file
# system without locks a folder is the lock, which somebody has to remove after a crash.
lock() {
    # shellcheck disable=SC2015 # refused if either is not so
    (: >>"$venv.lock") 2>/dev/null && { [ ! -e "$venv" ] || [ -w "$venv" ]; } ||
        refuse "cannot write to $venv: name another folder, e.g. REFIMPL_VENV=\$HOME/.refimpl"
    exec 9>>"$venv.lock"
    waited=flock
    "$1" -c "$safely"'
import fcntl
try:
    fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("run_mpi.sh: another set-up is at work, waiting for it", file=sys.stderr)
    fcntl.flock(9, fcntl.LOCK_EX)
except OSError:
    sys.exit(1)' </dev/null && return
    waited=0
    until mkdir "$venv.lock.folder" 2>/dev/null; do
        [ $waited != 0 ] || say "another set-up is at work, waiting for it; if there is none, remove $venv.lock.folder"
        waited=$((waited + 1))
        [ $waited -le 600 ] || refuse "waited 10 minutes for another set-up: if there is none, remove $venv.lock.folder"
        sleep 1
    done
    trap 'rmdir "$venv.lock.folder"' EXIT
}

unlock() {
    exec 9>&-
    [ "$waited" = flock ] || rmdir "$venv.lock.folder"
    trap - EXIT
}

set_up() {
    base=$(find_python) || exit 2
    mkdir -p "$(dirname "$venv")" 2>/dev/null || : # `lock` finds out
    lock "$base"
    extras=$least
    if is_ready; then unlock && return; fi
    extras=$least

    if [ -e "$venv" ] && [ ! -e "$venv/.refimpl-made" ]; then
        python_version "$venv/bin/python" >/dev/null ||
            refuse "$venv is there but holds no Python 3.10 or newer: remove it, or name another folder with REFIMPL_VENV="
    elif [ ! -e "$venv/.refimpl-ready" ] || ! python_version "$venv/bin/python" >/dev/null; then
        [ ! -e "$venv" ] || say "the environment in $venv is incomplete: making it anew"
        say "making $venv with $mpi and Python $(python_version "$base"), once ..."
        rm -rf "$venv"
        mkdir "$venv"
        : >"$venv/.refimpl-made"
        quietly "$base" -m venv "$venv" || failed "$base -m venv"
    fi
    say "installing numpy, scipy, mpi4py, $mpi$([ "$least" = "$mpi" ] || echo " and what the tests need") ..."
    # In the checkout, where ".[extras]" has no path that would need quoting.
    (CDPATH='' cd -- "$here" && quietly "$venv/bin/python" -m pip install --disable-pip-version-check --editable ".[$extras]") ||
        failed "pip install"
    quietly "$venv/bin/python" -c 'import mpi4py, numpy, scipy' && [ -x "$venv/bin/mpiexec" ] || failed "the check of what was installed"
    wanted >"$venv/.refimpl-ready"
    say "done"
    unlock
}

failed() {
    tail -n 5 "$venv/refimpl-setup.log" >&2
    say "$1 failed (above; all of it in $venv/refimpl-setup.log): check the network and the package index, then run this again"
    exit 1
}

use_own() {
    mpi=${REFIMPL_MPI:-$default_mpi}
    venv=$here/.venv
    [ "$mpi" = "$default_mpi" ] || venv=$here/.venv-$mpi
    venv=${REFIMPL_VENV:-$venv}
    case $venv in /*) ;; *) venv=$PWD/$venv ;; esac
    least=$mpi
    [ "$command" != test ] || least=$mpi,test
    is_ready || set_up
    python=$venv/bin/python
    mpiexec=$venv/bin/mpiexec
    if [ -n "${PYTHON:-}" ]; then
        asked=$(python_version "$PYTHON") || refuse "PYTHON=$PYTHON is not a Python 3.10 or newer: name one, e.g. PYTHON=python3.12"
        made=$(python_version "$python")
        [ "$asked" = "$made" ] || refuse "$venv has Python $made but PYTHON=$PYTHON is $asked: remove $venv, or name another folder with REFIMPL_VENV="
    fi
}

trap 'exit 130' INT # during the set-up; the launcher, which takes this process over, has its own
own=
if [ -n "${REFIMPL_MPI:-}" ] || ! use_existing; then
    own=yes
    use_own
fi
if [ "$command" = setup ]; then
    printf '%s\n' "$python" # for scripts: python=$(./run_mpi.sh setup)
    exit 0
fi

# --- what every rank needs in its surroundings -----------------------------------------------

# One BLAS thread per rank: ranks share the cores.  A user's OMP_NUM_THREADS stands for all.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
export OPENBLAS_NUM_THREADS="${OPENBLAS_NUM_THREADS:-$OMP_NUM_THREADS}"
export MKL_NUM_THREADS="${MKL_NUM_THREADS:-$OMP_NUM_THREADS}"
export BLIS_NUM_THREADS="${BLIS_NUM_THREADS:-$OMP_NUM_THREADS}"
export VECLIB_MAXIMUM_THREADS="${VECLIB_MAXIMUM_THREADS:-$OMP_NUM_THREADS}"

# Open MPI refuses root and more ranks than cores until it is told otherwise (4 and 5).  By slot: a
# policy of Open MPI 5 without it puts all ranks on the first machine of several.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe="${OMPI_MCA_rmaps_base_oversubscribe:-true}"
export PRTE_MCA_rmaps_default_mapping_policy="${PRTE_MCA_rmaps_default_mapping_policy:-slot:oversubscribe}"

export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" # the checkout's refimpl, installed or not
[ ! -t 2 ] || export REFIMPL_TERMINAL="${REFIMPL_TERMINAL:-1}" # ranks see a pipe, not the terminal
PATH=$(dirname "$python"):$PATH

# Kilobytes that are free in /dev/shm; nothing where there is none (macOS).
free_shared_memory() { df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 { print $4 }'; }

# All ranks on this machine: nobody has to be reached over a network.
local_surroundings() {
    # Open MPI: looking for networks costs a second; binding would put two jobs on one core.  Its
    # shared memory is called vader in 4 and sm in 5, so what is not wanted is named.
    export OMPI_MCA_btl="${OMPI_MCA_btl:-^tcp,openib,ofi,uct,usnic}"
    export OMPI_MCA_hwloc_base_binding_policy="${OMPI_MCA_hwloc_base_binding_policy:-none}"
    export PRTE_MCA_hwloc_default_binding_policy="${PRTE_MCA_hwloc_default_binding_policy:-none}"
    # Containers often have 64 MB of shared memory; MPIs want some 5 MB per rank and crash without.
    shared=$(free_shared_memory)
    if [ -n "$shared" ] && [ "$shared" -lt $((ranks * 5120)) ]; then
        export UCX_TLS="${UCX_TLS:-self,tcp}"
        export OMPI_MCA_btl_sm_backing_directory="${OMPI_MCA_btl_sm_backing_directory:-${TMPDIR:-/tmp}}"
        export OMPI_MCA_btl_vader_backing_directory="${OMPI_MCA_btl_vader_backing_directory:-${TMPDIR:-/tmp}}"
    fi
}

# --- launch ----------------------------------------------------------------------------------

case $command in
    test)
        shift
        has_modules "$python" pytest hypothesis ||
            refuse "no pytest and hypothesis in $python: install them there, or use an environment made here, e.g. REFIMPL_MPI=$default_mpi ./run_mpi.sh test"
        cd -- "$here"
        ranks=8
        local_surroundings
        exec "$python" -m pytest "$@" </dev/null
        ;;
    topology | explain | plan | report | golden) exec "$python" -m refimpl "$@" ;; # no MPI in these
esac
for word; do
    case $word in -h | --help) exec "$python" -m refimpl "$@" ;; esac
done

if [ -z "$ranks" ]; then
    ranks=4
    if in_slurm; then ranks=${SLURM_NTASKS:-4}; fi
fi

is_open_mpi() {
    case $("$@" --version 2>&1 </dev/null) in *"Open MPI"* | *OpenRTE* | *prte*) ;; *) return 1 ;; esac
}

# One rank's error ends the job: `-m mpi4py` turns an exception into MPI_Abort.
set -- -m mpi4py -m refimpl "$@"

# Put the launcher in front, from right to left.
set -- "$python" "$@"
if [ -n "${MPIEXEC:-}" ] && command -v "$MPIEXEC" >/dev/null; then
    launcher=$MPIEXEC # one word, perhaps with spaces in it
elif [ -n "${MPIEXEC:-}" ]; then
    launcher=${MPIEXEC%% *}
    command -v "$launcher" >/dev/null || refuse "MPIEXEC: no command $launcher: give a launcher, e.g. MPIEXEC=mpiexec, or unset it"
elif in_slurm; then
    launcher=srun
else
    launcher=$mpiexec
fi

if [ -n "$hostfile" ]; then
    if is_open_mpi "$launcher"; then
        for name in PYTHONPATH OMP_NUM_THREADS OPENBLAS_NUM_THREADS MKL_NUM_THREADS BLIS_NUM_THREADS VECLIB_MAXIMUM_THREADS; do
            set -- -x "$name" "$@" # Open MPI takes only its own variables along to other machines
        done
        set -- --hostfile "$hostfile" "$@"
    else
        set -- -f "$hostfile" "$@"
    fi
elif [ "$launcher" = "$mpiexec" ] && [ -z "${SLURM_JOB_ID:-}${PBS_JOBID:-}${LSB_JOBID:-}" ]; then
    local_surroundings
fi

set -- -n "$ranks" "$@"
if [ "$launcher" = srun ] && [ -z "${MPIEXEC:-}" ]; then
    set -- --kill-on-bad-exit=1 "$@"
    # A cluster's own MPI knows its SLURM; an MPI from the package index must be told its dialect.
    if [ -n "$own" ] && [ -z "${SLURM_MPI_TYPE:-}" ]; then
        if [ "$mpi" = openmpi ]; then set -- --mpi=pmix "$@"; else set -- --mpi=pmi2 "$@"; fi
    fi
elif [ "$launcher" != "${MPIEXEC:-$launcher}" ]; then
    rest=${MPIEXEC#* }
    set -f
    # shellcheck disable=SC2086 # the override's own words
    set -- $rest "$@"
fi
export REFIMPL_RANKS="$ranks" # so that a launcher of another MPI, which starts worlds of one, is found out

# stdin is nobody's: ranks must not eat a script's input, nor stop when run in the background.
exec "$launcher" "$@" </dev/null
