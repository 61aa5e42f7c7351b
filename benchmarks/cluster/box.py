"""Hosts in a box: network namespaces joined by a bridge, every link limited by tc.

    host1          host2          host3        each with a loopback, shared memory and process
      e0             e0             e0          numbers of its own
      |  rate        |  rate        |  rate
     up1            up2            up3
      +---- switch --+--------------+           10.77.0.254: mpiexec runs here

All of it lives in namespaces of the process that `alone` forks: of the network, of mounts (where
`ip netns` keeps its names) and of process numbers.  The machine's own interfaces, namespaces and
addresses cannot be seen from there, so none of them can be touched, and two boxes do not meet.
When that process ends, in whatever way, the kernel ends all processes that it has started and
takes everything down.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

# From <sched.h> and <sys/prctl.h>; os.unshare is there from Python 3.12 on.
CLONE_NEWNS, CLONE_NEWUTS = 0x00020000, 0x04000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
PR_SET_PDEATHSIG = 1

TOOLS = ("ip", "tc", "mount", "unshare", "sh")  # of iproute2 and util-linux
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SUBNET = "10.77.0"  # means nothing outside of the box


class Refused(Exception):
    """There can be no box here; the message says what is missing."""


def require_root() -> None:
    """Raise `Refused` unless this is root on a Linux with the tools."""
    if not sys.platform.startswith("linux"):
        raise Refused("needs Linux: the hosts are network namespaces")
    if os.geteuid() != 0:
        raise Refused("needs root, to make network namespaces and to limit their links")
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        raise Refused(f"needs {', '.join(missing)}: install iproute2 and util-linux")


def alone(work: Callable[[], int]) -> int:
    """Return ``work()``, an exit status, from a child process in namespaces of its own.

    SIGINT, SIGTERM and SIGHUP to this process end the child and all that it has started; so
    does the end of this process in any other way.

    Raises
    ------
    Refused
        If the kernel does not allow new namespaces.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET) != 0:
        why = os.strerror(ctypes.get_errno())
        raise Refused(f"needs the right to make namespaces (CAP_SYS_ADMIN): {why}")
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        for name in ENDS:
            signal.signal(name, signal.SIG_IGN)  # the parent decides
        os._exit(_status(work))

    def end(number: int, frame: object) -> None:
        os.kill(child, signal.SIGKILL)  # the first process of its namespace: all others follow
        os.waitpid(child, 0)
        os._exit(128 + number)

    for name in ENDS:
        signal.signal(name, end)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _status(work: Callable[[], int]) -> int:
    try:
        return work()
    except Refused as error:
        print(error, file=sys.stderr)
        return 2
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def build(hosts: int, rate: str, mtu: int, burst: str) -> list[str]:
    """Make the hosts and their links; return the hosts' addresses.  Only inside `alone`.

    ``rate``: of each link, in each direction, in tc's words.  ``burst``: what may pass at once
    after a pause, the depth of the token bucket; it must hold a packet of ``mtu`` bytes.
    """
    run("mount --make-rprivate /")
    private_folder().mkdir(exist_ok=True)
    run("mount -t proc proc /proc")  # of our process numbers
    run("ip link set lo up")
    run("ip link add name switch type bridge")
    run(f"ip addr add {SUBNET}.254/24 dev switch")
    run("ip link set switch up")
    addresses = [f"{SUBNET}.{i}" for i in range(1, hosts + 1)]
    limit = f"root tbf rate {rate} burst {burst} latency 200ms"
    for i, address in enumerate(addresses, start=1):
        run(f"ip netns add host{i}")
        run(f"ip link add up{i} mtu {mtu} type veth peer name e0 mtu {mtu} netns host{i}")
        run(f"ip link set up{i} master switch up")
        run(f"ip -n host{i} addr add {address}/24 dev e0")
        run(f"ip -n host{i} link set e0 up")
        run(f"ip -n host{i} link set lo up")
        run(f"tc -n host{i} qdisc add dev e0 {limit}")  # what leaves the host
        run(f"tc qdisc add dev up{i} {limit}")  # what enters it
    return addresses


def private_folder() -> Path:
    """Return a folder that vanishes with the box; the names of `ip netns` are beside it."""
    place = Path("/var/run").resolve()
    if not (place / "box").exists():
        run(["mount", "-t", "tmpfs", "tmpfs", str(place)])
    return place / "box"


def run(command: str | list[str]) -> None:
    """Run a command; raise `Refused` with its own last words if it fails."""
    words = command.split() if isinstance(command, str) else command
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise Refused(f"{' '.join(words)}: {said[-1] if said else done.returncode}")
