"""What SPICE needs beside pycocoevalcap: where it lies, and how it is fetched, once, from Maven Central.

Stanford CoreNLP with its models parses the captions. Nashorn and its ASM are the JavaScript that SPICE lays out its
answer with; Java had one of its own up to 14.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from urllib.request import urlopen

from suite.contract.program import PROGRAM
from suite.errors import RequestError
from tasks.reading.user_cache import user_cache

CENTRAL = "https://repo1.maven.org/maven2"
MIRROR = "REDUCERBENCH_MAVEN"  # environment: what to fetch from instead
FETCH_SPICE = f"{PROGRAM} fetch spice"
BLOCK = 2**20  # bytes
SILENCE_S = 60  # without a byte, after which a server is given up


class Jar(NamedTuple):
    """A file on Maven Central, by its coordinates and what it holds. size: bytes."""

    group: str
    artifact: str
    version: str
    size: int
    sha256: str
    classifier: str = ""

    @property
    def name(self) -> str:
        return "-".join(filter(None, (self.artifact, self.version, self.classifier))) + ".jar"

    @property
    def path(self) -> str:
        """Within a repository."""
        return f"{self.group.replace('.', '/')}/{self.artifact}/{self.version}/{self.name}"


# SPICE's own release of CoreNLP: another one parses otherwise
CORENLP = tuple(
    Jar("edu.stanford.nlp", "stanford-corenlp", "3.6.0", *of)
    for of in (
        (7_270_741, "d341d5863276f55782c5ef73212222d6b3b48e02ae1951ab6de7618d28b12742"),
        (378_116_526, "d285157bd7887ee3018094b5dbae092e49088b023361ccdb550ee1daf9b2c9bd", "models"),
    )
)
SCRIPTING = (
    Jar(
        *("org.openjdk.nashorn", "nashorn-core", "15.4", 2_167_292),
        "6f816e84dfd63a81d4eaa7829c08337bbaff3ec683ff3bf6bbd90d017a00dc6f",
    ),
    *(
        Jar("org.ow2.asm", f"asm{part}", "7.3.1", size, sha256)
        for part, size, sha256 in (
            ("", 121_836, "2f67e11ceec819ebd88ddee5300aba699b1cbab2e20c22e97cf027d3be93959b"),
            ("-analysis", 33_446, "46b8a8efd4b94facb5ab4b35afe30ee0546ae7a43d2c64e6def56c2f168fefa5"),
            ("-commons", 71_548, "87cd8bb3c6bf6bcbb33fca48060c5065f66ebf6a3d7de9bf18bff51bcf156ebc"),
            ("-tree", 52_826, "f91a4a8aa868c5c4665bb4fd134019a91f9f8b9216527fba295e3c8b5422b78b"),
            ("-util", 84_817, "182128592742ed4883ac82bf205f137b6bfbe1234c68e6feb13759e75a85b729"),
        )
    ),
)
# Since 9 Java closes its packages, into which SPICE's cache looks.
OPENED = tuple(
    f"--add-opens=java.base/java.{package}=ALL-UNNAMED"
    for package in ("lang", "math", "net", "text", "util", "util.concurrent")
)
JARS = (*SCRIPTING, *CORENLP)


def cache_folder() -> Path:
    """Where what was fetched is kept for all checkouts of a user."""
    return user_cache("spice")


def find_jar(jar: Jar, package: Path) -> Path | None:
    """Its file, where pycocoevalcap's own script puts it, or in the cache; None where it is not here."""
    places = (package / "spice" / "lib", cache_folder())
    return next((place / jar.name for place in places if (place / jar.name).is_file()), None)


def java_options(scripting: Path) -> str:
    """What Java needs to be told to run SPICE, from 9 on: earlier ones know none of it.

    scripting: the folder of `SCRIPTING`.
    """
    return " ".join((*OPENED, "--add-modules=org.openjdk.nashorn", f'--module-path "{scripting}"'))


def is_complete(package: Path) -> bool:
    """Whether all of them are here."""
    return all(find_jar(jar, package) for jar in JARS)


def fetch_jar(jar: Jar, source: str, advance: Callable[[int], None]) -> Path:
    """The jar, fetched into the cache.

    source: address of a Maven repository, or the folder of one. advance: called with the bytes of every block.
    RequestError where it cannot be had, or is not what Maven Central has.
    """
    file, seen, count = cache_folder() / jar.name, hashlib.sha256(), 0
    root = source.rstrip("/") if "://" in source else Path(source).expanduser().resolve().as_uri()
    address = f"{root}/{jar.path}"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=file.parent, prefix=".fetching-") as scratch:
            kept = Path(scratch) / jar.name
            with urlopen(address, timeout=SILENCE_S) as stream, kept.open("wb") as output:
                while block := stream.read(BLOCK):
                    output.write(block)
                    seen.update(block)
                    count += len(block)
                    advance(len(block))
            if seen.hexdigest() != jar.sha256:
                raise RequestError(
                    f"{address} is not Maven Central's {jar.name}: {count} bytes of SHA-256 {seen.hexdigest()[:12]}…, "
                    f"not {jar.size} of {jar.sha256[:12]}…; fetch it again, or from elsewhere with --from"
                )
            kept.replace(file)
    except (OSError, HTTPException, ValueError) as error:  # the last of an address that is none
        raise RequestError(
            f"{jar.name} cannot be fetched from {address} into {file.parent}: {error}; give a mirror of Maven Central, "
            f"or the folder of a Maven repository, with --from or in {MIRROR}"
        ) from error
    return file
