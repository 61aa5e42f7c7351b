"""What run_mpi.sh asks a Python before any rank runs: prints the reason of a refusal, or nothing.

    python surroundings.py fits SETUP.CFG    does this Python have what refimpl needs?
    python surroundings.py hosts FILE        is this a list of machines that can be found?

Run as a file by whatever Python is found, so it keeps to what 3.6 has.
"""

import os
import sys

if __name__ == "__main__":
    del sys.path[0]  # our own folder: none of its files is Python's
import configparser
import re
import socket
import subprocess
from importlib import import_module
from importlib.util import find_spec

MPI_VARIABLES = ("MPI4PY_MPIABI", "MPI4PY_LIBMPI")


def numbers(version: str) -> "list[int]":
    """Return the first three numbers of a version, to be compared."""
    return [int(number) for number in re.findall("[0-9]+", version)[:3]]


def unfit(setup: str) -> str:
    """Return why this Python, which has mpi4py, cannot run refimpl all the same; "" if it can."""
    config = configparser.ConfigParser()
    config.read(setup)
    needed = config["options"]["python_requires"].lstrip(">=")
    if list(sys.version_info[:3]) < numbers(needed):
        return f"it is older than {needed}"
    for line in config["options"]["install_requires"].split():
        name, least = line.split(">=")
        if not find_spec(name):
            return f"it has mpi4py but no {name}"
        version = import_module(name).__version__
        if numbers(version) < numbers(least):
            return f"{name} {version} is too old, {least} or newer is needed"
    try:
        import_module("mpi4py").rc.initialize = False
        import_module("mpi4py.MPI")  # finds its libmpi, or does not
    except Exception as error:
        told = [name + " is set" for name in MPI_VARIABLES if name in os.environ]
        return "; ".join(told + str(error).splitlines())
    return ""


def lost(path: str) -> str:
    """Return what is wrong with a host file; "" if all its machines can be found."""
    with open(path, errors="replace") as file:
        lines = [line.partition("#")[0].split() for line in file]
    hosts = [words[0].partition(":")[0] for words in lines if words]
    if not hosts:
        return "names no machine"
    for host in hosts:
        if not re.match(r"[\w.,-]+(\[[\d,-]+\])?$", host):
            return f"has a line that names no machine: {host[:40]!r}"
    unknown = [host for host in hosts if "[" not in host and not found(host)]
    return f"names a machine that is not known here: {unknown[0]}" if unknown else ""


def found(host: str) -> bool:
    """Return whether a machine has an address here or, by its own account, for ssh."""
    try:
        socket.getaddrinfo(host, None)
        return True
    except OSError:
        pass
    try:
        told = subprocess.check_output(["ssh", "-G", host], stderr=subprocess.DEVNULL).decode()
    except (OSError, subprocess.CalledProcessError):
        return False
    options = dict(line.partition(" ")[::2] for line in told.splitlines())
    return "proxycommand" in options or "proxyjump" in options or options["hostname"] != host


if __name__ == "__main__":
    question, subject = sys.argv[1:]
    if question == "fits" and not find_spec("mpi4py"):
        sys.exit(1)
    print(unfit(subject) if question == "fits" else lost(subject))
