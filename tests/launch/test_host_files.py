"""run_mpi.sh on machines of a host file."""

import pytest


@pytest.mark.parametrize(
    "version, option", [("HYDRA", "-f"), ("mpiexec (Open MPI) 5.0.11", "--hostfile")]
)
@pytest.mark.parametrize("how", ["option", "variable"])
def test_host_file_is_given_as_the_mpi_wants_it(fake, version, option, how):
    place, run = fake
    hosts = place.checkout / "my hosts"
    hosts.write_text("localhost\n")
    given = {"MPIEXEC": str(place.launcher("launch", version=version))}
    if how == "option":
        run("-n", "2", "--hostfile", "my hosts", "train", "mlp", **given)
    else:
        run("-n", "2", "train", "mlp", HOSTFILE="my hosts", **given)
    words = place.words()
    assert words[:4] == ["-n", "2", option, "my hosts"]
    assert ("PYTHONPATH" in words) == (option == "--hostfile")


@pytest.mark.parametrize(
    "content, culprit",
    [
        (b"", "names no machine"),
        (b"# none\n\n", "names no machine"),
        (b"\x7fELF\x02\x01\x01\x00\x00", "ELF"),
        (b"localhost:2\n{'a': 1}\n", "{'a'"),
        (b"localhost\nno-such-machine.invalid slots=4\n", "no-such-machine.invalid"),
    ],
)
def test_host_file_that_names_no_machines_is_refused(fake, content, culprit):
    place, run = fake
    hosts = place.checkout / "hosts"
    hosts.write_bytes(content)
    done = run("-n", "2", "--hostfile", "hosts", "train", "mlp")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "hosts" in line and culprit in line and "one machine per line" in line


def test_machine_that_only_ssh_knows_is_left_to_it(fake):
    place, run = fake
    place.command("ssh", 'echo "hostname 127.0.0.1"')
    (place.checkout / "hosts").write_text("my-alias.invalid:2\n")
    assert run("-n", "2", "--hostfile", "hosts", "train", "mlp").returncode == 0


def test_open_mpi_takes_along_what_ranks_elsewhere_need(fake):
    place, run = fake
    (place.checkout / "hosts").write_text("localhost\n")
    launcher = str(place.launcher("launch", version="mpiexec (Open MPI) 5.0.11"))
    given = {"LD_LIBRARY_PATH": "/a", "MPI4PY_RC_THREADS": "no", "XDG_CACHE_HOME": "/b"}
    run("-n", "2", "--hostfile", "hosts", "train", MPIEXEC=launcher, REFIMPL_VENV="v", **given)
    words = place.words()
    taken = {after for word, after in zip(words, words[1:], strict=False) if word == "-x"}
    assert taken >= {"PYTHONPATH", "OMP_NUM_THREADS", "REFIMPL_RANKS", "REFIMPL_VENV", *given}
    assert not taken & {"PATH", "HOME", "LD_PRELOAD"}
