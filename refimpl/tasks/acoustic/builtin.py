"""The built-in corpus: synthesized once, kept in the cache folder, found again by later runs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from refimpl.support.errors import UserError
from refimpl.support.files import partial_of
from refimpl.tasks.acoustic.text import is_file
from refimpl.world.agree import together
from refimpl.world.communicator import Communicator


def edition() -> str:
    """Return a short name for what the synthesizer's text makes: other text, other corpus."""
    digest = hashlib.sha256()
    for path in sorted((Path(__file__).parent / "synth").glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def builtin_corpus(comm: Communicator, cache: Path, say: Callable[[str], None]) -> Path:
    """Return the folder of the built-in corpus, synthesized now if it is not in ``cache``.

    Where all ranks see one file system they share the work; otherwise the ranks of each node
    write their own node's copy.  A cache that holds it is not written to.  Collective.
    """
    folder = cache / f"synth-{edition()}"
    missing = not is_file(folder / "lexicon.txt")
    if any(comm.allgather_object(missing)):
        with together(comm):
            shared = _visible_to_all(comm, cache)
        # Here: filters and windows of SciPy, half a second and 70 MB that other runs do without.
        from refimpl.tasks.acoustic import synth

        say(f"synthesizing the built-in corpus in {folder} (once)")
        if shared:
            synth.write_corpus(folder, comm=comm, others=True)
        else:
            within, _ = comm.levels()
            if any(within.allgather_object(missing)):
                synth.write_corpus(folder, comm=within, others=True)
    return folder


def _visible_to_all(comm: Communicator, cache: Path) -> bool:
    """Return whether a file that rank 0 makes in ``cache`` is seen by all ranks.  Collective."""
    name = comm.bcast_object(partial_of(cache / "probe").name)
    problem = None
    try:
        cache.mkdir(parents=True, exist_ok=True)
        if comm.rank == 0:
            (cache / name).touch()
    except OSError as error:
        problem = UserError(
            f"cannot write to the cache folder {cache}: {error.strerror}; set XDG_CACHE_HOME to "
            "a folder with room, or give --data"
        )
    comm.barrier()
    seen = all(comm.allgather_object((cache / name).exists()))
    comm.barrier()
    if comm.rank == 0 and problem is None:
        (cache / name).unlink(missing_ok=True)
    if problem:
        raise problem
    return seen
