"""``refimpl doctor``: what is here to run on, and for each what is wrong with it.

Alone it starts no MPI; on many ranks it tells of all of them.
"""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from refimpl.cli.base import NEEDED, SIZE_VARIABLES, on_first_rank, say, started
from refimpl.support import machine
from refimpl.support.machine import Launcher, Machine
from refimpl.support.text import plural, size

SHARED_PER_RANK = 5 << 20  # bytes of /dev/shm; as run_mpi.sh has it
FILES, FILES_PER_RANK = 64, 8  # open at once; as run_mpi.sh has it
ALONE = 4  # for how many ranks a machine is judged where none run: those of run_mpi.sh


@dataclass(frozen=True)
class Item:
    """One thing that was looked at; what is wrong with it, a line each that ends in a remedy."""

    name: str
    text: str
    wrong: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """All ranks: what each sees of its machine, which node it is on; their MPI and launcher."""

    machines: Sequence[Machine]
    nodes: Sequence[int]
    mpi: str
    no_mpi: str
    launcher: Launcher
    asked: int | None  # ranks, by whoever started them

    @property
    def ranks(self) -> int:
        return len(self.machines)

    def members(self) -> dict[int, list[int]]:
        """Return node -> its ranks."""
        found: dict[int, list[int]] = {}
        for rank, node in enumerate(self.nodes):
            found.setdefault(node, []).append(rank)
        return found

    def on_nodes(self) -> Iterator[tuple[str, Machine, list[int]]]:
        """Yield of each node: its name, if there are several; what its first rank sees; ranks."""
        members = self.members()
        for ranks in members.values():
            one = self.machines[ranks[0]]
            yield f" on {one.host}" if len(members) > 1 else "", one, ranks


def add(commands: Any) -> None:
    """Declare the command."""
    command = commands.add_parser("doctor", help="say what is here to run on, and what is wrong")
    command.set_defaults(run=run)


def run(args: Any) -> int:
    """Print what was found; exit code 1 if anything is wrong."""
    from refimpl.tasks.acoustic.features import default_cache

    mine = machine.look(os.environ, default_cache())
    machines, nodes, mpi = [mine], [0], started()
    if mpi is not None:  # as it is where a launcher says that it has started several ranks
        from refimpl.world.communicator import Communicator

        comm = Communicator(mpi.COMM_WORLD)
        machines, nodes = comm.allgather_object(mine), list(comm.nodes)

    def examine() -> int:
        if mpi is None:
            found = machine.probed()
        else:
            name, version = mpi.get_vendor()
            found = f"{name} {'.'.join(map(str, version))}", ""
        launcher = machine.launcher(os.environ)
        items = list(examined(Job(machines, nodes, *found, launcher, asked_for(os.environ))))
        say(text(items))
        return 1 if any(item.wrong for item in items) else 0

    return on_first_rank(examine)


def asked_for(environ: Mapping[str, str]) -> int | None:
    """Return how many ranks were asked for, if whoever started this process tells."""
    for name in ("REFIMPL_RANKS", *SIZE_VARIABLES):
        if environ.get(name, "").isdecimal():
            return int(environ[name])
    return None


def text(items: Sequence[Item]) -> str:
    """Return the items in words, what is wrong below each, and how much of that there is."""
    lines = []
    for item in items:
        lines.append(f"{item.name:<10} {item.text}")
        lines += [f"{'':<10} WRONG: {wrong}" for wrong in item.wrong]
    wrong = sum(len(item.wrong) for item in items)
    are = "is" if wrong == 1 else "are"
    lines.append(f"{plural(wrong, 'thing')} {are} wrong" if wrong else "nothing is wrong")
    return "\n".join(lines)


def examined(job: Job) -> Iterator[Item]:
    """Yield what was looked at; beyond its arguments it asks for the limits of this process."""
    first = job.machines[0]
    yield Item("system", f"{first.system}, {first.host}")
    yield python(job)
    yield mpi_of(job)
    yield launcher_of(job)
    yield ranks_of(job)
    yield blas(job)
    yield cores(job)
    yield shared_memory(job)
    yield cache(job)
    yield limits(job)
    yield scheduler(job)


def python(job: Job) -> Item:
    """Return Python and its packages, the same on all ranks and new enough."""
    first = job.machines[0]
    packages = ", ".join(f"{name} {version or '?'}" for name, version in first.versions.items())
    wrong = [f"{old}: pip install --upgrade {old.split()[0]}" for old in first.old]
    for words, one, ranks in job.on_nodes():
        mine = one.python.split()[0], one.versions
        if mine != (first.python.split()[0], first.versions):
            wrong.append(
                f"rank {ranks[0]}{words} has Python {mine[0]}, "
                f"{', '.join(f'{name} {version}' for name, version in mine[1].items())}: give all "
                f"machines the same environment"
            )
    return Item("Python", f"{first.python}, {packages}", tuple(wrong))


def mpi_of(job: Job) -> Item:
    """Return mpi4py's MPI."""
    if not job.no_mpi:
        return Item("MPI", f"{job.mpi}, that of mpi4py")
    return Item(
        "MPI",
        "none",
        (
            f"mpi4py finds no MPI: {job.no_mpi}: install one (pip install mpich), or load the "
            f"module that mpi4py was built with",
        ),
    )


def launcher_of(job: Job) -> Item:
    """Return the launcher; where no ranks run that prove it, whether it knows mpi4py's MPI."""
    one = job.launcher
    if one.wrong:  # where ranks run there was another, which is not told
        return Item("launcher", "none", () if job.ranks > 1 else (one.wrong,))
    text = f"{one.path} ({one.family or 'unknown'}), {one.found}"
    mpi = job.mpi.rpartition(" ")[0]
    known = one.family not in ("", "SLURM") and mpi in ("MPICH", "Intel MPI", "Open MPI")
    if job.ranks > 1 or not known or (one.family == "Open MPI") == (mpi == "Open MPI"):
        return Item("launcher", text)
    wrong = (
        f"it starts ranks of {one.family}, and mpi4py has {mpi}, of which each would be a world "
        f"of one: set MPIEXEC to the launcher of {mpi}, or install mpi4py for {one.family}"
    )
    return Item("launcher", text, (wrong,))


def ranks_of(job: Job) -> Item:
    """Return how many ranks there are, and who shares memory."""
    members = job.members()
    wrong: tuple[str, ...] = ()
    if job.asked is not None and job.asked != job.ranks:
        wrong = (
            f"{job.asked} were asked for: the launcher does not know mpi4py's MPI: set MPIEXEC to "
            f"the launcher of {job.mpi or 'it'}",
        )
    if job.ranks == 1:
        return Item("ranks", "1 (for all of a job: run_mpi.sh -n RANKS doctor)", wrong)
    each = [
        f"{{{', '.join(map(str, ranks[:8]))}{', ...' if len(ranks) > 8 else ''}}}{words}"
        for words, _, ranks in job.on_nodes()
    ]
    more = f" and {len(each) - 8} more" if len(each) > 8 else ""
    where = f"{job.ranks} on {plural(len(members), 'node')}, memory is shared by"
    return Item("ranks", f"{where} {', '.join(each[:8])}{more}", wrong)


def blas(job: Job) -> Item:
    """Return NumPy's BLAS; no more threads than cores for each rank."""
    first, wrong = job.machines[0], []
    for words, _, ranks in job.on_nodes():
        threads = max(job.machines[rank].threads for rank in ranks)
        room = room_of(job, ranks)
        fair = max(1, room // len(ranks))
        if threads > fair:
            wrong.append(
                f"{plural(threads, 'thread')} of each of {plural(len(ranks), 'rank')}{words} are "
                f"more than {plural(room, 'core')}: set OMP_NUM_THREADS={fair}"
            )
    return Item("BLAS", f"{first.blas}, {plural(first.threads, 'thread')} a rank", tuple(wrong))


def room_of(job: Job, ranks: Sequence[int]) -> int:
    """Return of how many cores these ranks of one node have the time, all together."""
    cores = frozenset[int]().union(*(job.machines[rank].cores for rank in ranks))
    quota = job.machines[ranks[0]].quota
    return min(len(cores), math.ceil(quota) if quota else len(cores))


def cores(job: Job) -> Item:
    """Return the cores that the ranks of each node may use, all together."""
    each = [f"{room_of(job, ranks)}{words}" for words, _, ranks in job.on_nodes()]
    first = job.machines[0]
    quota = "" if first.quota is None else f" (a container's limit: {first.quota:g})"
    more = f" and {len(each) - 8} more nodes" if len(each) > 8 else ""
    return Item("cores", ", ".join(each[:8]) + more + quota)


def shared_memory(job: Job) -> Item:
    """Return what is free of /dev/shm, enough for the ranks of each node."""
    wrong = []
    for words, one, ranks in job.on_nodes():
        count = len(ranks) if job.ranks > 1 else ALONE
        if one.shared is not None and one.shared[0] < count * SHARED_PER_RANK:
            wrong.append(
                f"{size(one.shared[0])} are free{words}, and {count} ranks want "
                f"{size(count * SHARED_PER_RANK)}: remove what fills it, or give the container "
                f"more (docker run --shm-size=1g)"
            )
    shared = job.machines[0].shared
    free = "none here" if shared is None else f"{size(shared[0])} free of {size(shared[1])}"
    return Item("/dev/shm", free, tuple(wrong))


def cache(job: Job) -> Item:
    """Return the cache folder, which every node can write."""
    wrong = tuple(
        f"{one.unwritable}{words}: set XDG_CACHE_HOME to a folder that can be written"
        for words, one, _ in job.on_nodes()
        if one.unwritable
    )
    return Item("cache", job.machines[0].cache, wrong)


def limits(job: Job) -> Item:
    """Return the limit on open files, enough for each node's ranks; others, if they are low."""
    wrong = []
    for words, one, ranks in job.on_nodes():
        count = len(ranks) if job.ranks > 1 else ALONE
        needed = FILES + FILES_PER_RANK * count
        if one.files is not None and one.files < needed:
            wrong.append(
                f"{one.files} files may be open{words}, and a launcher of {count} ranks needs "
                f"{needed}: ulimit -n {needed}"
            )
    for limit, least, what, flag in NEEDED:
        allowed = resource.getrlimit(limit)[0]
        low = allowed < least and allowed != resource.RLIM_INFINITY
        if low and limit != resource.RLIMIT_NOFILE:
            wrong.append(
                f"the limit on {what} is {allowed:,}, and an MPI needs {least:,}: raise it "
                f"(ulimit {flag})"
            )
    files = job.machines[0].files
    return Item("limits", f"{files or 'any number of'} open files", tuple(wrong))


def scheduler(job: Job) -> Item:
    """Return what the batch system tells; whether run_mpi.sh can follow it."""
    told = dict(job.machines[0].job)
    name = told.pop("", "none")
    wrong = []
    if name == "SLURM" and job.launcher.family != "SLURM" and "named" not in job.launcher.found:
        wrong.append("there is no srun on PATH: load SLURM's module, or name a launcher (MPIEXEC)")
    counted = {
        "SLURM": told.get("SLURM_NTASKS") or told.get("SLURM_TASKS_PER_NODE"),
        "PBS": os.access(told.get("PBS_NODEFILE", ""), os.R_OK),
        "LSF": told.get("LSB_DJOB_NUMPROC"),
        "none": True,
    }
    if not counted[name]:
        wrong.append("the job does not say how many ranks it is for: give them, run_mpi.sh -n 4")
    variables = " ".join(f"{key}={value}" for key, value in told.items())
    return Item("scheduler", f"{name} {variables}".strip(), tuple(wrong))
