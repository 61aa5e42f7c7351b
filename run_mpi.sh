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
usage: ./run_mpi.sh [-n RANKS] [--hostfile FILE] [--restarts N [--min-ranks M]] [COMMAND ...]

  ./run_mpi.sh                        train an acoustic model on 4 ranks: the main job
  ./run_mpi.sh -n 2 train mlp         any refimpl command, on 2 ranks
  ./run_mpi.sh topology -n 16         commands that need no MPI start none
  ./run_mpi.sh test [PYTEST ARGS]     all tests, those on several ranks included
  ./run_mpi.sh setup                  make or repair the environment; print its Python
  ./run_mpi.sh train --help           a command's own options

  -n RANKS         number of ranks (default 4; inside a SLURM job, its number of tasks)
  --hostfile FILE  the machines to use, as the MPI in use writes them (or HOSTFILE=FILE)
  --restarts N     go on with a training that fails from its last checkpoint, N times at most
  --min-ranks M    ... on fewer ranks, M at least, where it failed twice at the same step
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

ranks=unsaid
restarts=0
unset min_ranks
hostfile=${HOSTFILE:-}
while [ $# -gt 0 ]; do
    case $1 in
        -n | --hostfile | --restarts | --min-ranks)
            [ $# -ge 2 ] || refuse "option $1 needs a value, e.g. $1 $([ "$1" = --hostfile ] && echo hosts || echo 4)"
            case $1 in
                -n) ranks=$2 ;;
                --hostfile) hostfile=$2 ;;
                --restarts) restarts=$2 ;;
                --min-ranks) min_ranks=$2 ;;
            esac
            shift 2
            ;;
        -n?*) ranks=${1#-n} && shift ;;
        --hostfile=*) hostfile=${1#*=} && shift ;;
        -h | --help)
            usage 2>/dev/null || refuse "cannot write to standard output"
            exit 0
            ;;
        --) shift && break ;;
        -*) refuse "unknown option $1: before the command stand -n RANKS, --hostfile FILE or -h; a command's own options follow it" ;;
        *) break ;;
    esac
done
case $ranks in
    unsaid) ranks= ;;
    '' | *[!0-9]* | 0* | ??????????*) refuse "-n ${ranks:-''} is not a number of ranks: give 1 or more, e.g. -n 4" ;;
esac
[ -z "$hostfile" ] || { [ -r "$hostfile" ] && [ -f "$hostfile" ]; } || refuse "cannot read the host file $hostfile: give a file with one machine per line"
case ${PYTHON:-} in /*) ;; */*) PYTHON=$PWD/$PYTHON ;; esac
case ${REFIMPL_MPI:-} in
    '' | mpich | openmpi) ;;
    *) refuse "unknown REFIMPL_MPI=$REFIMPL_MPI: give mpich or openmpi, or unset it" ;;
esac

for number in "$restarts" "${min_ranks-0}"; do
    case $number in
        '' | *[!0-9]* | 0?* | ??????????*) refuse "--restarts or --min-ranks ${number:-''}: give whole numbers below a billion, e.g. --restarts 3 --min-ranks 2" ;;
    esac
done
min_ranks=${min_ranks-}

[ $# -gt 0 ] || set -- train acoustic_mlp --strategy ddp
command=$1

# --- restarts --------------------------------------------------------------------------------

# Print the run folder that the words of a training name.
run_folder() {
    folder=
    while [ $# -gt 0 ]; do
        case $1 in
            --out | --resume) folder=${2:-} ;;
            --out=* | --resume=*) folder=${1#*=} ;;
        esac
        shift
    done
    printf '%s\n' "$folder"
}

newest() {
    find "$run/checkpoints" -name manifest.json 2>/dev/null |
        sed -n 's|.*/step-\([0-9]*\)/[^/]*$|\1 &|p' | sort -n | tail -n 1 | cut -d ' ' -f 2-
}

# Wait for $job, whatever signals are passed on to it; set code to its exit code.
await_job() {
    code=0
    while :; do # a signal that was passed on ends the first wait, not the job
        wait $job && code=0 || code=$?
        kill -0 $job 2>/dev/null || break
    done
}

# Have $job end as asked; set code to its exit code, or leave with $1 where none runs.
# shellcheck disable=SC2329 # called in traps
end_job() {
    if [ -z "$job" ] || ! kill -TERM "$job" 2>/dev/null; then exit "$1"; fi
    await_job
}

# Run this script again with the same words, and after a failure with --resume.  What a person has
# to see to (2), or has asked for (75, 130, 143), is no failure.
run=$(run_folder "$@")
survives= # the words that ask for it
case "$* " in
    "train "*" --on-failure continue "* | "train "*" --on-failure=continue "*) survives="--on-failure=continue" ;;
esac
if [ "$restarts" -gt 0 ]; then
    [ "$command" = train ] && [ -n "$run" ] || refuse "--restarts goes on with a training in its folder: give train ... --out DIR --checkpoint-every N"
    job=
    trap 'end_job 143; exit $code' TERM
    trap 'end_job 130; exit 130' INT # which the job does not hear: it runs in the background
    trap '[ -z "$job" ] || kill -USR1 $job 2>/dev/null || :' USR1
    while :; do
        before=$(newest)
        "$here/run_mpi.sh" ${ranks:+"-n$ranks"} ${hostfile:+"--hostfile=$hostfile"} "$@" &
        job=$!
        await_job
        case $code in 0 | 2 | 75 | 130 | 143) exit $code ;; esac
        [ "$restarts" -gt 0 ] || { say "exit code $code, and no restart is left" && exit $code; }
        restarts=$((restarts - 1))
        if [ -n "$min_ranks" ] && [ "$before" = "$(newest)" ] && [ -n "$before" ]; then
            fewer=$("$here/run_mpi.sh" checkpoint ranks "$run" ${ranks:+--fewer-than "$ranks"}) || exit 2
            [ "$fewer" -lt "$min_ranks" ] || ranks=$fewer
        fi
        [ ! -f "$run/config.json" ] || set -- train --resume "$run" $survives
        from=$(newest)
        from=${from%/manifest.json}
        say "exit code $code: going on from ${from:-the start}${ranks:+ on $ranks ranks}, $restarts more restarts"
    done
fi

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

# Ask Python $1 what surroundings.py answers: the reason not to go on, or nothing.
ask() {
    asked_python=$1
    shift
    "$asked_python" "$here/refimpl/support/surroundings.py" "$@" </dev/null 2>/dev/null
}

# Print the version of the Python that PYTHON names, if it names one.
asked_version() {
    [ -z "${PYTHON:-}" ] || python_version "$PYTHON" ||
        refuse "PYTHON=$PYTHON is not a Python 3.10 or newer: name one, e.g. PYTHON=python3.12"
}

# Print the Python to make an environment with: it must bring venv and pip.
find_python() {
    asked_version >/dev/null
    found=
    set -- python3 python3.14 python3.13 python3.12 python3.11 python3.10 python
    [ -z "${PYTHON:-}" ] || set -- "$PYTHON"
    for candidate; do
        version=$(python_version "$candidate") || continue
        found="$candidate ($version)"
        if has_modules "$candidate" venv ensurepip; then
            command -v "$candidate"
            return
        fi
    done
    [ -z "$found" ] ||
        refuse "$found cannot make environments (no venv and ensurepip): install its venv package, e.g. apt install python3-venv, or name another Python with PYTHON="
    refuse "no Python 3.10 or newer found: install one, or name it, e.g. PYTHON=/opt/python3.12/bin/python3"
}

# --- an environment that is there ------------------------------------------------------------

in_slurm() { [ -n "${SLURM_JOB_ID:-}" ] && [ -z "$hostfile" ] && command -v srun >/dev/null; }

# Does launcher $1 start two ranks of Python $2 that see each other?  (An mpiexec of another MPI
# starts two worlds of one.)
launches() {
    "$2" -c "$safely"'
import subprocess
ranks = sys.argv[3] + "; from mpi4py import MPI; import numpy, scipy; raise SystemExit(MPI.COMM_WORLD.size != 2)"
command = [sys.argv[1], "-n", "2", sys.executable, "-c", ranks]
sys.exit(subprocess.run(command, timeout=60).returncode)' "$1" "$2" "$safely" </dev/null >/dev/null 2>&1
}

# Is $1 the Python of an environment that was made here?  Then set python and mpiexec to it.
made_here() {
    python=$(command -v "$1") || return 1
    mpiexec=$(dirname "$python")/mpiexec
    [ -x "$mpiexec" ] && [ -e "$(dirname "$python")/../.refimpl-ready" ]
}

# Set python and mpiexec to an environment that works as it is, or fail.
use_existing() {
    set -- python3 python
    [ -z "${CONDA_PREFIX:-}" ] || set -- "$CONDA_PREFIX/bin/python" "$@"
    [ -z "${VIRTUAL_ENV:-}" ] || set -- "$VIRTUAL_ENV/bin/python" "$@"
    [ -z "${PYTHON:-}" ] || set -- "$PYTHON"
    told=
    for candidate; do
        if made_here "$candidate"; then
            # Ours, whether it is active or not: `use_own` adds what the tests need.
            [ "$command $(dirname "$python")" != "test $here/.venv/bin" ]
            return
        fi
        why=$(ask "$candidate" fits "$here/setup.cfg") || continue # no mpi4py
        python=$(command -v "$candidate")
        if [ -n "$why" ]; then
            [ "$why" = "$told" ] || say "not used: $python: $why"
            told=$why
            continue
        fi
        mpiexec=$(dirname "$python")/mpiexec
        [ -x "$mpiexec" ] || mpiexec=$(command -v mpiexec || true)
        if [ -n "${MPIEXEC:-}" ] || in_slurm; then return 0; fi
        [ -n "$mpiexec" ] || continue
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
        (CDPATH='' cd -- "$here" && quietly "$base" -m venv "$venv") || failed "$base -m venv"
    fi
    say "installing numpy, scipy, mpi4py, $mpi$([ "$least" = "$mpi" ] || echo " and what the tests need") ..."
    # In the checkout, where ".[extras]" has no path that would need quoting.
    (CDPATH='' cd -- "$here" && quietly "$venv/bin/python" -m pip install --disable-pip-version-check --editable ".[$extras]") ||
        failed "pip install"
    quietly "$venv/bin/python" -c "$safely; import mpi4py, numpy, scipy" && [ -x "$venv/bin/mpiexec" ] || failed "the check of what was installed"
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
    asked=$(asked_version) || exit
    made=$(python_version "$python")
    [ "${asked:-$made}" = "$made" ] || refuse "$venv has Python $made but PYTHON=$PYTHON is $asked: remove $venv, or name another folder with REFIMPL_VENV="
}

trap 'exit 130' INT # during the set-up; the launcher, which takes this process over, has its own
if [ -n "${REFIMPL_MPI:-}" ] || ! use_existing; then use_own; fi
own= # the name of its MPI, if the environment was made here
if made_here "$python"; then
    read -r own _ <"$(dirname "$python")/../.refimpl-ready"
    unset MPI4PY_MPIABI MPI4PY_LIBMPI # of other projects
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

is_open_mpi() {
    case $("$@" --version 2>&1 </dev/null) in *"Open MPI"* | *OpenRTE* | *prte*) ;; *) return 1 ;; esac
}

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
        least_shared=$((1024 * (ranks + 1))) # all that MPICH still needs then
        [ "$shared" -ge $least_shared ] || is_open_mpi "$mpiexec" ||
            refuse "$shared KB are free in /dev/shm, and $ranks ranks need $least_shared: remove what fills it, or give the container more, e.g. docker run --shm-size=1g"
    fi
}

# Compile refimpl once: many ranks would each do so, where nothing has kept it compiled.
compile() { (CDPATH='' cd -- "$here" && "$python" -m compileall -q refimpl </dev/null >/dev/null 2>&1) || :; }

# --- launch ----------------------------------------------------------------------------------

case $command in
    test)
        shift
        has_modules "$python" pytest hypothesis ||
            refuse "no pytest and hypothesis in $python: install them there, or use an environment made here, e.g. REFIMPL_MPI=$default_mpi ./run_mpi.sh test"
        cd -- "$here"
        ranks=8
        local_surroundings
        compile # the tests start hundreds of processes
        exec "$python" -m pytest "$@" </dev/null
        ;;
esac

# In front of the command: `-m mpi4py` turns one rank's exception into the end of the job, and the
# folder one works in is kept from shadowing Python's modules, by -P or, in Python 3.10, by hand.
if "$python" -P -c '' </dev/null 2>/dev/null; then
    set -- "$python" -P -m mpi4py -m refimpl "$@"
else
    set -- "$python" -c "$safely; from mpi4py.run import main; main()" -m refimpl "$@"
fi
case $command in # no MPI in these
    topology | explain | timeline | plan | simulate | report | golden | checkpoint) exec "$@" ;;
esac
[ "$command$ranks$hostfile" != doctor ] || exec "$@" # asked alone, it starts none
for word; do
    case $word in -h | --help) exec "$@" ;; esac
done

# Print how many ranks a batch job is for; nothing if it does not tell.
ranks_of_job() {
    if [ -n "${SLURM_NTASKS:-}" ]; then
        echo "$SLURM_NTASKS"
    elif [ -n "${SLURM_TASKS_PER_NODE:-}" ]; then # "4(x2),3": twice 4 and 3
        echo "$SLURM_TASKS_PER_NODE" | tr ',' '\n' | awk -F'[(x)]+' '{ n += $1 * ($2 ? $2 : 1) } END { print n }'
    elif [ -r "${PBS_NODEFILE:-}" ]; then
        awk 'NF { n++ } END { print n }' "$PBS_NODEFILE"
    else
        echo "${LSB_DJOB_NUMPROC:-}"
    fi
}

set -- sh "$here/refimpl/support/rank.sh" "$@" # its parent, which says what kills it

job=${SLURM_JOB_ID:-}${PBS_JOBID:-}${LSB_JOBID:-}
[ -n "$job" ] && [ -z "$hostfile" ] || job=
if [ -z "$ranks" ]; then
    ranks=4
    [ -z "$job" ] || ranks=$(ranks_of_job)
    [ -n "$ranks" ] || refuse "job $job does not say how many ranks it is for: give them, e.g. -n 4"
fi

export REFIMPL_RANKS="$ranks" # so that a launcher of another MPI, which starts worlds of one, is found out

# Put the launcher in front, from right to left.
words= # of MPIEXEC, behind the launcher
if [ -n "${MPIEXEC:-}" ]; then
    launcher=$MPIEXEC # one word, perhaps with spaces in it
    command -v "$launcher" >/dev/null || { launcher=${MPIEXEC%% *} && words=${MPIEXEC#* }; }
    command -v "$launcher" >/dev/null || refuse "MPIEXEC: no command $launcher: give a launcher, e.g. MPIEXEC=mpiexec, or unset it"
    [ -n "$("$launcher" --version 2>&1 </dev/null)" ] || refuse "MPIEXEC: '$launcher --version' says nothing, so it is no launcher: give one, e.g. MPIEXEC=mpiexec, or unset it"
elif in_slurm; then
    launcher=srun
    # A cluster's own MPI knows its SLURM; an MPI from the package index must be told its dialect.
    if [ -z "${SLURM_MPI_TYPE:-}" ]; then
        case $own in
            mpich) export SLURM_MPI_TYPE=pmi2 ;;
            openmpi)
                if srun --mpi=pmix --test-only -n 1 true </dev/null >/dev/null 2>&1; then
                    export SLURM_MPI_TYPE=pmix
                else
                    launcher=$mpiexec # no PMIx here; Open MPI's own asks SLURM itself
                fi
                ;;
        esac
    fi
    if [ -n "${SLURM_STEP_ID:-}" ]; then # inside a step: the ranks share what it holds
        if [ "${SLURM_STEP_NUM_TASKS:-1}" -gt 1 ] && [ -z "${SLURM_PTY_PORT:-}" ]; then
            [ "${SLURM_PROCID:-0}" = 0 ] || exit 2
            refuse "srun has called this $SLURM_STEP_NUM_TASKS times: call it once, without srun, which it uses itself"
        fi
        export SLURM_OVERLAP="${SLURM_OVERLAP:-1}"
    fi
else
    launcher=$mpiexec
fi

if [ -n "$hostfile" ]; then
    why=$(ask "$python" hosts "$hostfile")
    [ -z "$why" ] || refuse "host file $hostfile $why; give a file with one machine per line"
    if is_open_mpi "$launcher"; then
        # Open MPI takes only its own variables along to other machines.
        for name in $(env | awk -F= '/^(LD_LIBRARY_PATH|PYTHONPATH|XDG_CACHE_HOME|[A-Z]*_NUM_THREADS|VECLIB_[A-Z_]*|MPI4PY_[A-Z_]*|REFIMPL_[A-Z_]*)=/ { print $1 }'); do
            set -- -x "$name" "$@"
        done
        set -- --hostfile "$hostfile" "$@"
    else
        set -- -f "$hostfile" "$@"
    fi
elif [ "$launcher" = "$mpiexec" ] && [ -z "$job" ]; then
    local_surroundings
fi

[ "$ranks" -lt 16 ] || compile

# A launcher keeps some files open for every rank.
files=$((64 + ranks * 8))
# shellcheck disable=SC3045 # POSIX has no ulimit -n; every sh has
case $(ulimit -S -n) in
    unlimited) ;;
    *) [ "$(ulimit -S -n)" -ge $files ] || ulimit -S -n $files 2>/dev/null ||
        say "$ranks ranks may need $files open files at once, but 'ulimit -H -n' allows $(ulimit -H -n): if they do not start, have it raised" ;;
esac

# A training that is to survive a rank's death: Open MPI's launcher must be told.
if [ -n "$survives" ] && ! is_open_mpi "$launcher"; then survives=; fi # refused by the ranks
[ -z "$survives" ] || set -- --with-ft ulfm "$@"

set -- -n "$ranks" "$@"
if [ "$launcher" = srun ] && [ -z "${MPIEXEC:-}" ]; then set -- --quiet --kill-on-bad-exit=1 "$@"; fi
set -f
# shellcheck disable=SC2086 # the override's own words
set -- $words "$@"
# stdin is nobody's: ranks must not eat a script's input, nor stop when run in the background.
[ -n "$survives" ] || exec "$launcher" "$@" </dev/null

# Where every rank has died this launcher has seen no failure.
[ -n "$run" ] || refuse "--on-failure continue: give the run a folder, --out DIR, which tells whether it was finished"
job=
trap 'kill -TERM $job 2>/dev/null || exit 143' INT TERM
trap 'kill -USR1 $job 2>/dev/null || :' USR1
"$launcher" "$@" </dev/null &
job=$!
await_job
[ $code -ne 0 ] || [ -e "$run/summary.json" ] || { say "no rank is left, and the run in $run is not finished" && exit 9; }
exit $code
