"""Are these files the same on all ranks?  Each machine may have a disk of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from refimpl.support.errors import require
from refimpl.tasks.acoustic.kaldi import Utterance
from refimpl.world.agree import together
from refimpl.world.communicator import Communicator

TABLES = ("wav.scp", "text", "utt2spk", "segments", "ctm")
FIRST = 1 << 20  # bytes of a file that are compared
RECORDINGS = 64  # that are compared, spread over a data directory


def digest(file: Path) -> str:
    """Return size and digest of the first bytes of a file; empty where there is none."""
    try:
        with file.open("rb") as content:
            head = hashlib.sha256(content.read(FIRST)).hexdigest()[:16]
        return f"{file.stat().st_size} bytes, {head}"
    except OSError:
        return ""


def of_directory(folder: Path, utterances: Sequence[Utterance]) -> list[Path]:
    """Return the files of a data directory that `refuse_others` should compare."""
    recordings = list(dict.fromkeys(one.wav for one in utterances))
    some = recordings[:: -(-len(recordings) // RECORDINGS) or 1]
    return [*(folder / name for name in TABLES), *map(Path, some)]


def refuse_others(comm: Communicator, files: Iterable[Path]) -> None:
    """Refuse files that are others on some rank than on rank 0.  Collective.

    A rank that lacks one may do so: whoever needs it says that it is not there.
    """
    if comm.size == 1:
        return
    mine = {str(file): digest(file) for file in files if file.is_file()}
    first = comm.bcast_object(mine, root=0)
    with together(comm):
        for name, found in mine.items():
            require(
                found == first.get(name, found),
                f"ranks differ: {name} is another file on rank {comm.rank} than on rank 0: copy "
                "the same data to every machine, or keep them in a shared folder",
            )
