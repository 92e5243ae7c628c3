"""The weights that the embedded engine knows: carried ones, files of the directory, links to others."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slam_app.errors import InputError, ModelMissing, ServerFailed, Unsupported
from slam_app.providers import weights as module
from slam_app.providers.weights import Library, Weights
from tests.conftest import GEMMA, SMOLLM2


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "models")


@pytest.fixture
def file(tmp_path: Path, library: Library) -> Path:
    """Real weights somewhere on the machine."""
    target = tmp_path / "elsewhere" / "Tiny Model Q4.gguf"
    target.parent.mkdir()
    target.symlink_to(library.find(SMOLLM2).path)
    return target


def copied(library: Library, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(library.find(SMOLLM2).path, target)
    return target


def test_carried_weights_come_first(library: Library) -> None:
    assert [weights.name for weights in library.all()] == [SMOLLM2, GEMMA]


def test_without_the_packages_there_are_none(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SMOLLM2", "not-installed")
    monkeypatch.setattr(module, "_GEMMA_PARTS", ("not-installed",))

    assert library.all() == []


def test_gemma_is_put_together_once_and_is_what_its_publisher_hashed(library: Library) -> None:
    gemma = library.find(GEMMA)

    path = library.ready(gemma)
    written = path.stat().st_mtime_ns
    library.ready(gemma)

    assert module.file_sha256(path) == "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
    assert path.stat().st_mtime_ns == written
    assert [entry.name for entry in path.parent.iterdir()] == [f"{GEMMA}.gguf"]


def test_listing_gemma_does_not_put_it_together(library: Library) -> None:
    info = library.info(library.find(GEMMA))

    assert info.size_bytes == 253113024
    assert not library.directory.exists()


def test_wrong_parts_leave_no_file(library: Library, tmp_path: Path) -> None:
    part = tmp_path / "part"
    part.write_bytes(b"wrong")
    target = library.directory / "x.gguf"

    with pytest.raises(ServerFailed, match="damaged"):
        library.ready(Weights("x", target, parts=(part,), sha256="0" * 64))

    assert list(library.directory.iterdir()) == []


def test_a_full_disk_is_said_so(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **named: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.tempfile, "NamedTemporaryFile", full)

    with pytest.raises(ServerFailed, match=r"No space left on device\. Free some disk space"):
        library.ready(library.find(GEMMA))


def test_a_registered_file_is_linked_and_only_forgotten(library: Library, file: Path) -> None:
    weights = library.register(file)

    assert weights.name == "tiny-model-q4"
    assert library.find("tiny-model-q4").path.is_symlink()
    assert library.register(file) == weights

    library.remove("tiny-model-q4")

    assert file.exists()
    with pytest.raises(ModelMissing):
        library.find("tiny-model-q4")


def test_a_file_dropped_into_the_directory_is_known_and_deleted_for_good(library: Library) -> None:
    path = copied(library, library.directory / "Mine.gguf")

    assert library.find("mine").path == path
    library.remove("mine")

    assert not path.exists()


def test_two_files_of_one_name_are_not_mixed_up(library: Library, file: Path, tmp_path: Path) -> None:
    library.register(file)
    other = copied(library, tmp_path / "other" / file.name)

    with pytest.raises(InputError, match="already"):
        library.register(other)


def test_a_file_that_has_gone_is_listed_as_missing(library: Library, file: Path) -> None:
    library.register(file)
    file.unlink()

    info = library.info(next(weights for weights in library.all() if weights.name == "tiny-model-q4"))

    assert info.family == "file missing"
    assert not info.can_chat
    with pytest.raises(ModelMissing, match="no longer at"):
        library.find("tiny-model-q4")
    library.remove("tiny-model-q4")
    assert list(library.directory.glob("*.gguf")) == []


def test_a_damaged_file_is_listed_as_such(library: Library) -> None:
    library.directory.mkdir(parents=True)
    (library.directory / "bad.gguf").write_text("junk")

    info = library.info(library.find("bad"))

    assert info.family == "damaged file"
    assert not info.can_chat


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A carried file that a failing test may lose, in the place of the installed ones."""
    installed = tmp_path / "site-packages" / "stand-in.gguf"
    installed.parent.mkdir()
    installed.write_bytes(b"weights")
    monkeypatch.setattr(module, "_carried", lambda assembled: [Weights("stand-in", installed, carried=True)])
    return installed


def test_carried_weights_stay(library: Library, stand_in: Path) -> None:
    with pytest.raises(Unsupported, match="came with the installation"):
        library.remove("stand-in")

    assert stand_in.exists()


def test_nothing_outside_the_directory_can_be_deleted(library: Library, stand_in: Path) -> None:
    library.all = lambda: [Weights("stand-in", stand_in)]  # type: ignore[method-assign]

    with pytest.raises(FileNotFoundError):
        library.remove("stand-in")

    assert stand_in.exists()


def test_deleting_what_is_not_there_is_said_so(library: Library) -> None:
    with pytest.raises(ModelMissing, match="nosuch"):
        library.remove("nosuch")


def test_a_file_is_hashed_once_per_version(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    path = copied(library, library.directory / "mine.gguf")
    hashed: list[Path] = []
    real = module.file_sha256

    def counted(path: Path) -> str:
        hashed.append(path)
        return real(path)

    monkeypatch.setattr(module, "file_sha256", counted)
    mine = library.find("mine")

    first = library.digest(mine)
    again = Library(library.directory).digest(mine)
    with path.open("ab") as file:
        file.write(b"\0")
    changed = library.digest(mine)

    assert first == again == real(library.find(SMOLLM2).path)
    assert changed != first
    assert len(hashed) == 2


@pytest.mark.parametrize("content", ["", "[]", "{broken"])
def test_a_damaged_cache_of_hashes_is_made_anew(library: Library, content: str) -> None:
    library.directory.mkdir(parents=True)
    (library.directory / "digests.json").write_text(content)

    assert len(library.digest(library.find(SMOLLM2))) == 64


@pytest.mark.parametrize(
    ("change", "family", "capabilities"),
    [
        (lambda header: {"chat_template": ""}, "arch (base)", ("completion",)),
        (lambda header: {"chat_template": "x"}, "arch", ("completion",)),
        (lambda header: {"chat_template": "{% if enable_thinking %}"}, "arch", ("completion", "thinking")),
        (lambda header: {"embedding": True, "chat_template": ""}, "arch", ("embedding",)),
    ],
)
def test_what_a_model_can_do_is_read_from_its_header(
    change: Callable[[None], dict[str, Any]], family: str, capabilities: tuple[str, ...]
) -> None:
    fields: dict[str, Any] = {
        "architecture": "arch",
        "name": "",
        "quantization": "",
        "parameters": 1,
        "context_length": None,
        "chat_template": "",
        "embedding": False,
    }
    header = module.GgufHeader(**{**fields, **change(None)})

    assert module._family(header) == family
    assert module._capabilities(header) == capabilities
