"""A SLURM cluster in a box: what becomes of run_mpi.sh in jobs, arrays and steps, by the clock.

    python benchmarks/cluster/slurm.py [--keep SECONDS] [CASE ...]

A real SLURM, from Debian's packages, on four hosts of `box`: each has a slurmd, an sshd, shared
memory, /tmp and process numbers of its own, and all see one /home with a copy of this checkout,
in which run_mpi.sh makes both environments as an ordinary user.  The packages and all else that
is written go into memory over the machine's files and vanish with the box.  Needs root, Debian
or Ubuntu, iproute2, a package index, 3 GB of memory and some ten minutes.  See docs/slurm.md.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))

import box  # noqa: E402

HOSTS = 4
USER = "alice"
PACKAGES = "slurm-wlm munge openssh-server python3-venv"
NOT_COPIED = (".git", ".venv", ".venv-*", "__pycache__", "runs", "*.egg-info")

SLURM_CONF = f"""
ClusterName=box
SlurmctldHost=login({box.SUBNET}.254)
SlurmUser=slurm
StateSaveLocation=/var/spool/slurmctld
SlurmdSpoolDir=/var/spool/slurmd.%n
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
KillWait=10
NodeName=host[1-{HOSTS}] NodeAddr={box.SUBNET}.[1-{HOSTS}] CPUs=8 RealMemory=4000
PartitionName=main Nodes=ALL Default=YES State=UP
"""

NODE = """
hostname host$1
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs -o mode=1777 tmpfs /tmp
mkdir -p /var/spool/slurmd.host$1
/usr/sbin/sshd -o PidFile=none
/usr/sbin/slurmd -D -N host$1 >/var/log/slurmd.host$1 2>&1 & # process 1 reaps: this shell
wait
"""

# Beside each case, in the shell of a user in the checkout: the command, and what its output must
# hold.  $OUT is a new folder.  `srun` says its own line after a code that is not 0.
TRAIN = "./run_mpi.sh train mlp --steps 5 --out $OUT/run"
LONG = "./run_mpi.sh train mlp --epochs 1000 --out $OUT/run"
RANK = "^/[a-z/]*.venv[-a-z]*/bin/python.*train"  # its process, not the shell that is its parent
TWO = "-N2 --ntasks-per-node=2"
PAIRS = f"{TRAIN} --strategy mics --partition 2"
DEALT = "SLURM_DISTRIBUTION=cyclic PRTE_MCA_rmaps_default_mapping_policy=node:oversubscribe"
CASES = {
    "salloc": (f"salloc -Q {TWO} {TRAIN}", "on 2 nodes"),
    "salloc, nodes alone": (f"salloc -Q -N2 {TRAIN}", "2 ranks = 2 members on 2 nodes"),
    "sbatch": (f"sbatch -W -o $OUT/o {TWO} --wrap '{TRAIN}' && cat $OUT/o", "on 2 nodes"),
    "array, empty cache": (
        "sbatch -W -o $OUT/o%a --array=1-4 -n2 --export=ALL,XDG_CACHE_HOME=$OUT/cache --wrap "
        "'./run_mpi.sh train acoustic_mlp --steps 3 --out $OUT/run$SLURM_ARRAY_TASK_ID'"
        "; ls $OUT/run[1-4]/summary.json | wc -l",
        "4\n",
    ),
    "array, no --out": (
        "rm -rf runs; sbatch -W -o $OUT/o%a --array=1-8 -n1 --wrap "
        "'./run_mpi.sh train mlp --steps 1'; ls runs/*/summary.json | wc -l",
        "8\n",
    ),
    "scancel": (
        f"id=$(sbatch --parsable -o $OUT/o {TWO} --wrap '{LONG}'); until grep -q epoch $OUT/o; "
        "do sleep .2; done; scancel $id; s=$(date +%s%N); while squeue -h -j $id | grep -q .; "
        "do sleep .1; done; echo gone after $((($(date +%s%N) - s) / 1000000)) ms; cat $OUT/o",
        "gone after",
    ),
    "requeue": (
        f"id=$(sbatch --parsable --requeue -o $OUT/o --open-mode=append {TWO} --wrap "
        '\'if [ -z "$SLURM_RESTART_COUNT" ]; then '
        f"{LONG}; else {TRAIN}; fi'); until grep -q epoch $OUT/o; do sleep .2; done; "
        "scontrol requeue $id; scontrol update job=$id starttime=now; "
        "until grep -q folder: $OUT/o; do sleep .5; done; tail -n 3 $OUT/o",
        "run folder",
    ),
    "a user's mistake": (f"salloc -Q {TWO} ./run_mpi.sh train nosuch", "no model 'nosuch'"),
    "a rank is killed": (
        f'salloc -Q {TWO} sh -c \'{LONG} & job=$!; until ssh host1 "pgrep -u {USER} -f {RANK}"; '
        f'do sleep 1; done >/dev/null; sleep 5; ssh host1 "pkill -9 -u {USER} -o -f {RANK}"; '
        "wait $job'",
        "",
    ),
    "dealt out": (f"{DEALT} salloc -Q {TWO} {PAIRS}", "partition groups are on more nodes"),
    "dealt out, by node": (
        f"{DEALT} salloc -Q {TWO} {PAIRS} --map by-node",
        "on 2 nodes, ranks renumbered by node",
    ),
    "a step in a step": (
        f"salloc -Q -N2 --ntasks-per-node=2 srun -Q -N1 -n1 ./run_mpi.sh -n 4 "
        f"{TRAIN.partition(' ')[2]}",
        "on 2 nodes",
    ),
    "srun run_mpi.sh": (f"salloc -Q {TWO} srun -Q {TRAIN}", "without srun"),
    "host file": (
        "for n in 1 2; do if [ $REFIMPL_MPI = mpich ]; then echo host$n:2; else echo host$n "
        f"slots=2; fi; done >$OUT/hosts; ./run_mpi.sh -n 4 --hostfile $OUT/hosts "
        f"{TRAIN.partition(' ')[2]}",
        "on 2 nodes",
    ),
}
CODES = {"a user's mistake": {2}, "srun run_mpi.sh": {2}, "a rank is killed": set(range(1, 256))}


def sh(script: str, **options) -> subprocess.CompletedProcess:
    """Run a shell script as root; raise `box.Refused` with its last words if it fails."""
    done = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise box.Refused(f"{script.strip().splitlines()[0]} ...: {(done.stderr)[-400:]}")
    return done


def user(command: str, timeout: float = 600, **variables: str) -> tuple[int, str]:
    """Run a command as the user, in the checkout; return its exit code and all that it said."""
    said = " ".join(f"export {name}='{value}';" for name, value in variables.items())
    try:
        done = subprocess.run(
            ["su", "-", USER, "-c", f"{said} cd refimpl; {command}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired as late:
        return 124, (late.stdout or b"").decode()
    return done.returncode, done.stdout


def furnish() -> None:
    """Lay memory over the machine's files and install there: SLURM, the user, both MPIs."""
    if ctypes.CDLL(None).unshare(box.CLONE_NEWNS | box.CLONE_NEWUTS) != 0:
        raise box.Refused("needs the right to make namespaces (CAP_SYS_ADMIN)")
    excluded = " ".join(f"--exclude='{name}'" for name in NOT_COPIED)
    sh(f"""mount --make-rprivate /
        mount -t tmpfs -o size=6g tmpfs /mnt
        mkdir /mnt/upper /mnt/work /mnt/root
        mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root
        mount --rbind /dev /mnt/root/dev
        mount --rbind /sys /mnt/root/sys
        mount -t proc proc /mnt/root/proc
        mount -t tmpfs tmpfs /mnt/root/dev/shm
        mkdir -p /mnt/root/home/{USER}/refimpl
        tar -C '{ROOT}' {excluded} -cf - . | tar -C /mnt/root/home/{USER}/refimpl -xf -""")
    os.chroot("/mnt/root")
    os.chdir("/")
    sh(f"""export DEBIAN_FRONTEND=noninteractive
        printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d # start nothing
        chmod 755 /usr/sbin/policy-rc.d
        apt-get update
        apt-get install -y {PACKAGES}
        useradd -s /bin/bash {USER}
        mkdir /home/{USER}/.config
        cp -r /root/.config/pip /home/{USER}/.config/ 2>/dev/null || : # its package index
        mkdir /home/{USER}/.ssh
        ssh-keygen -q -t ed25519 -N '' -f /home/{USER}/.ssh/id_ed25519
        cp /home/{USER}/.ssh/id_ed25519.pub /home/{USER}/.ssh/authorized_keys
        printf 'StrictHostKeyChecking no\\nLogLevel ERROR\\n' >/home/{USER}/.ssh/config
        chown -R {USER} /home/{USER}
        for n in $(seq {HOSTS}); do echo {box.SUBNET}.$n host$n; done >>/etc/hosts
        echo {box.SUBNET}.254 login >>/etc/hosts
        echo CgroupPlugin=cgroup/v1 >/etc/slurm/cgroup.conf # of no use here, and never mounted
        mkdir -p /var/spool/slurmctld
        chown slurm /var/spool/slurmctld""")
    Path("/etc/slurm/slurm.conf").write_text(SLURM_CONF, encoding="ascii")
    for mpi in ("mpich", "openmpi"):
        code, said = user("./run_mpi.sh setup", 900, REFIMPL_MPI=mpi)
        if code:
            raise box.Refused(said)


def start() -> None:
    """Start munge, the controller and the nodes; return when all nodes are idle."""
    box.build(HOSTS, "1gbit", 9000, "256kb")
    sh("""hostname login
        mkdir -p /run/munge /run/sshd
        chown munge:munge /run/munge
        su -s /bin/sh munge -c /usr/sbin/munged""")
    slurmctld = "exec /usr/sbin/slurmctld -D >/tmp/slurmctld 2>&1"
    subprocess.Popen(["su", "-s", "/bin/sh", "slurm", "-c", slurmctld])
    apart = "unshare --uts --ipc --pid --mount --fork --kill-child --mount-proc sh -c"
    for n in range(1, HOSTS + 1):
        node = ["ip", "netns", "exec", f"host{n}", *apart.split(), NODE, "node", str(n)]
        subprocess.Popen(node)
    for _ in range(60):
        if user("sinfo -h -t idle -o %D")[1].strip() == str(HOSTS):
            return
        time.sleep(1)
    raise box.Refused("the nodes did not come up: " + user("sinfo")[1])


def measure(names: list[str], keep: float) -> int:
    """Run the cases on both MPIs and print the table; return 1 if one was not as it must be."""
    start()
    print(f"SLURM {user('sinfo -V')[1].split()[-1]}, {HOSTS} hosts; {os.cpu_count()} cores")
    print(f"{'case':<22}{'MPI':<9}{'code':>4}{'s':>7}  what it said", flush=True)
    bad = 0
    for number, (name, (command, wanted)) in enumerate(CASES.items()):
        for mpi in ("mpich", "openmpi") if not names or name in names else ():
            out = f"/home/{USER}/out/{number}-{mpi}"
            since = time.monotonic()
            code, said = user(f"mkdir -p $OUT; {command}", REFIMPL_MPI=mpi, OUT=out)
            seconds = time.monotonic() - since
            right = code in CODES.get(name, {0}) and wanted in said
            bad += not right
            lines = said.strip().splitlines() or [""]
            last = next((line for line in lines if wanted.strip() in line), "") or lines[-1]
            mark = "" if right else "NOT AS IT MUST BE: "
            print(f"{name:<22}{mpi:<9}{code:>4}{seconds:>7.1f}  {mark}{last[:90]}", flush=True)
            if not right:
                print(said[-2000:], flush=True)
            user(f"scancel -u {USER}")
    time.sleep(keep)
    return int(bad > 0)


def main() -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="slurm.py", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("case", nargs="*", metavar="CASE", help=f"of: {', '.join(CASES)} (default: all)")
    add("--keep", type=float, default=0, metavar="SECONDS", help="leave the cluster up so long")
    args = parser.parse_args()
    try:
        box.require_root()
        furnish()
        return box.alone(lambda: measure(args.case, args.keep))
    except box.Refused as error:
        print(f"benchmarks/cluster/slurm.py: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
