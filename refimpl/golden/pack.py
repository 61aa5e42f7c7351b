"""An edition of the golden values as one archive, the same bytes on every machine.

refimpl-golden-2/BUNDLE/      manifest.json, arrays.npz, arrays.safetensors
                 schema.json, operations.json, editions.json
                 LICENSE      CC0: the values belong to nobody
                 README       what this is, and where the book about it is
                 SHA256SUMS   of all other files, for `sha256sum -c SHA256SUMS`
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from refimpl.golden import editions, npz, operations, schema
from refimpl.golden.bundle import FORMAT, Bundle

LICENSE = Path(__file__).with_name("CC0.txt")
README = """\
Golden values, edition {edition}, format {format}: what other implementations of MiCS, GTC, BMUF
and their relatives test themselves against. Each folder is a bundle: manifest.json says what is
given and what must come out; arrays.npz and arrays.safetensors both hold the same arrays.

schema.json       describes a manifest
operations.json   what every operation is: equation, arrays, settings
editions.json     which cases there were in which edition, and what has changed

docs/golden.md of refimpl is the chapter about them; `refimpl golden check THEIRS --against .`
checks answers. No right is reserved (LICENSE).
"""


def packed(bundles: Iterable[Bundle], edition: int) -> bytes:
    """Return the bytes of the archive of these bundles."""
    top = f"refimpl-golden-{edition}"
    files = dict(_files(bundles, edition))
    sums = "".join(f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in files)
    files["SHA256SUMS"] = sums.encode("ascii")
    return npz.stored((f"{top}/{name}", content) for name, content in files.items())


def _files(bundles: Iterable[Bundle], edition: int) -> Iterator[tuple[str, bytes]]:
    yield "README", README.format(edition=edition, format=FORMAT).encode("ascii")
    yield "LICENSE", LICENSE.read_bytes()
    for path in (schema.SCHEMA, operations.FILE, editions.FILE):
        yield path.name, path.read_bytes()
    with TemporaryDirectory() as folder:
        for one in bundles:
            one.write(Path(folder), tensors=True)
            for file in sorted((Path(folder) / one.name).iterdir()):
                yield f"{one.name}/{file.name}", file.read_bytes()
