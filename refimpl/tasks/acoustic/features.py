"""Features of a whole data directory: computed once, by all ranks together, and kept.

The ranks share out the utterances in consecutive runs; rank 0 collects the results, keeps them in
the cache folder and, when they are normalised (`corpus.py`), sends them to every node, whose ranks
share them (`refimpl.world.pernode`).  Next time rank 0 finds them there.  Nobody else looks:
whether the folder is shared, or each node has its own, cannot make ranks differ.

What an utterance's features are does not depend on who computed them, nor on the others.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from refimpl.support.errors import UserError, require
from refimpl.support.files import load_arrays, save_arrays
from refimpl.tasks.acoustic.frontend import LogMel
from refimpl.tasks.acoustic.kaldi import Utterance
from refimpl.tasks.acoustic.settings import AcousticSettings
from refimpl.tasks.acoustic.text import shown
from refimpl.tasks.acoustic.wav import read_wav
from refimpl.tasks.faults import Faults
from refimpl.world.agree import together
from refimpl.world.communicator import Communicator
from refimpl.world.pernode import room, sent_once

CACHE_FORMAT = 2  # part of the key: features of an older format are simply not found
FRONT_END = (
    "sample_rate",
    "frame_length",
    "frame_shift",
    "preemphasis",
    "bands",
    "low",
    "high",
    "energy_floor",
)


class Clipped(NamedTuple):
    """How many segments ended behind their recordings' ends, and by how many seconds at most."""

    segments: int
    seconds: float


class Found(NamedTuple):
    """The log-mel energies of some utterances."""

    rate: int  # hertz
    offsets: NDArray[np.int64]  # (utterances + 1,): utterance u has rows offsets[u] to [u + 1]
    features: NDArray[np.float32]  # (frames, bands), not normalised
    clipped: Clipped


def default_cache() -> Path:
    """Return the folder for cached features: $XDG_CACHE_HOME/refimpl, else ~/.cache/refimpl.

    Who has no home, as a container's user without a name, has a folder among temporary files.
    """
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "refimpl"
    try:
        return Path.home() / ".cache" / "refimpl"
    except RuntimeError:
        from tempfile import gettempdir

        return Path(gettempdir()) / f"refimpl-{os.getuid()}"


def log_mel_features(
    comm: Communicator, utterances: list[Utterance], settings: AcousticSettings, cache: Path | None
) -> Found | None:
    """Return the log-mel energies of all utterances on rank 0, and None elsewhere.

    Collective, with the same utterances everywhere.  `settings.sample_rate` None: the rate of the
    first one's recording.  `cache`: folder to keep the features in, created if need be; None:
    compute them anew.

    Raises `UserError` if a wav cannot be read, has another sample rate, is shorter than one frame
    or by more than a frame than its segment, or gives a feature that is not a number; on every
    rank.
    """
    file: Path | None = None
    found: Found | None = None
    with together(comm):
        if comm.rank == 0 and cache is not None:
            file = cache / f"{cache_key(utterances, settings)}.npz"
            found = read_cache(comm, file, len(utterances), settings.bands)
    hit = comm.bcast_object(found is not None, root=0)
    if not hit:
        found = compute(comm, utterances, settings)
        if file is not None and found is not None:
            write_cache(file, found)
    return found


def sent(comm: Communicator, found: Found | None, bands: int) -> Found:
    """Return what rank 0 has found on all ranks, the features once per node.  Collective."""
    told = None if found is None else (found.rate, found.offsets, found.clipped)
    rate, offsets, clipped = comm.bcast_object(told, root=0)
    mine = None if found is None else found.features
    features = sent_once(comm, mine, (int(offsets[-1]), bands), np.float32)
    return Found(rate, offsets, features, clipped)


def compute(
    comm: Communicator, utterances: list[Utterance], settings: AcousticSettings
) -> Found | None:
    """Compute features, each rank a run of the utterances; only rank 0 returns them.

    Runs differ by one utterance at most.  Memory: rank 0 holds all features and, before others
    send theirs, its own once more; another rank its own twice.
    """
    first = [len(utterances) * r // comm.size for r in range(comm.size + 1)]
    with together(comm):
        rate = settings.sample_rate or read_wav(utterances[0].wav)[0]
        logmel = LogMel(settings, rate)
    parts, overs, faults = [], [], Faults()
    read = Recordings(rate)
    share = utterances[first[comm.rank] : first[comm.rank + 1]]
    for number, utterance in enumerate(share):
        with faults.collected():
            one, over = features_of(utterance, read(utterance.wav), logmel)
            parts.append(one)
            overs.append(over)
        comm.events.progress("features", number + 1, len(share))
    faults.refuse(comm)
    shares = comm.allgather_object(([len(one) for one in parts], [o for o in overs if o]))
    counts = [n for lengths, _ in shares for n in lengths]
    offsets = np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))
    if comm.rank > 0:
        mine = np.concatenate([np.empty((0, settings.bands), np.float32), *parts])
        parts.clear()  # not in memory twice, however long rank 0 takes to come for them
        comm.Send(mine, dest=0)
        return None
    features = room(comm, (int(offsets[-1]), settings.bands), np.float32)
    while parts:  # the last first: what is freed at the end of memory goes back to the system
        u = len(parts) - 1
        features[offsets[u] : offsets[u + 1]] = parts.pop()
    for r in range(1, comm.size):
        comm.Recv(features[offsets[first[r]] : offsets[first[r + 1]]], source=r)
    everyones = [over for _, some in shares for over in some]
    clipped = Clipped(len(everyones), max(everyones, default=0) / rate)
    return Found(rate, offsets, features, clipped)


class Recordings:
    """Reads recordings and remembers the last: segments of one mostly stand together."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.path: str | None = None
        self.samples = np.empty(0, dtype=np.float32)

    def __call__(self, path: str) -> NDArray[np.float32]:
        """Return the samples of a recording, or refuse it if its rate is another."""
        if path != self.path:
            self.path = None
            found, self.samples = read_wav(path)
            require(
                found == self.rate,
                f"{path} is sampled at {found} hertz but {self.rate} is needed: all recordings "
                f"of an experiment must agree (convert it with sox FILE -r {self.rate} NEW.wav)",
            )
            self.path = path
        return self.samples


def features_of(
    utterance: Utterance, samples: NDArray[np.float32], logmel: LogMel
) -> tuple[NDArray[np.float32], int]:
    """Cut an utterance out of its recording; return its features and the samples it lacks.

    It has one frame at least and lacks one frame at most, as ends do that were rounded.
    """
    start = round(utterance.start * logmel.rate)
    end = samples.size if utterance.end is None else round(utterance.end * logmel.rate)
    over = max(end - samples.size, 0)
    if over <= logmel.length:
        end -= over
    require(
        start < end <= samples.size,
        f"utterance {shown(utterance.name)} is the segment from {utterance.start:.10g} to "
        f"{end / logmel.rate:.10g} s of {utterance.wav}, which is "
        f"{samples.size / logmel.rate:.10g} s long: it must lie inside",
    )
    require(
        logmel.frames(end - start) > 0,
        f"utterance {shown(utterance.name)} is {end - start} samples long, shorter than one frame "
        f"({logmel.length} samples): remove it from the data directory",
    )
    with np.errstate(all="ignore"):
        features = logmel(samples[start:end])
    require(
        bool(np.isfinite(features).all()),
        f"utterance {shown(utterance.name)} has a feature that is not a number: "
        f"look for NaN or infinite samples in {utterance.wav}",
    )
    return features, over


def cache_key(utterances: list[Utterance], settings: AcousticSettings) -> str:
    """Return a name for these features: equal names, equal features.

    The SHA-256 of the front end's settings and of each utterance's place: its wav's path, size
    and time of change, and its segment.  As `make` does, it takes a file whose size and time are
    what they were for unchanged; reading a large corpus through just to see would take too long.
    """
    digest = hashlib.sha256()
    chosen = asdict(settings)
    digest.update(json.dumps([CACHE_FORMAT, [chosen[name] for name in FRONT_END]]).encode())
    for utterance in utterances:
        try:
            status = os.stat(utterance.wav)
        except OSError as error:
            raise UserError(f"cannot read {utterance.wav}: {error.strerror}") from None
        place = [
            os.path.realpath(utterance.wav),
            status.st_size,
            status.st_mtime_ns,
            utterance.start,
            utterance.end,
        ]
        digest.update(json.dumps(place).encode())
    return digest.hexdigest()


def read_cache(comm: Communicator, file: Path, utterances: int, bands: int) -> Found | None:
    """Return what a cache file holds, or None if there is no sound one; on rank 0.

    The members of an npz are checked by the CRC of the zip format when they are read, so a file
    that was cut short or changed is found out, and computed anew.
    """
    try:
        held = load_arrays(file, {"features": partial(room, comm)})
        rate, offsets, features = int(held["rate"]), held["offsets"], held["features"]
        clipped = Clipped(int(held["clipped"]), float(held["seconds"]))
    except (UserError, ValueError, KeyError, TypeError, MemoryError):
        return None
    sound = (
        offsets.shape == (utterances + 1,)
        and offsets.dtype == np.int64
        and features.shape == (offsets[-1], bands)
        and features.dtype == np.float32
    )
    return Found(rate, offsets, features, clipped) if sound else None


def write_cache(file: Path, found: Found) -> None:
    """Write a cache file: whole or not at all.  A folder that cannot be written is no error."""
    clipped, seconds = found.clipped
    arrays: dict[str, Any] = {**found._asdict(), "clipped": clipped, "seconds": seconds}
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        save_arrays(file, arrays.items())
