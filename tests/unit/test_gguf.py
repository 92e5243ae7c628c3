"""The header reader, against real weights and against llama.cpp's own reading of them."""

from __future__ import annotations

import contextlib
import json
import shutil
import struct
import urllib.request
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slam_app.errors import InputError
from slam_app.providers.gguf import read_header
from slam_app.providers.llama_server import LlamaServer
from slam_app.providers.weights import Library
from tests.conftest import GEMMA, SMOLLM2


@pytest.fixture
def smollm2_file(data_dir: Path) -> Path:
    return Library(data_dir / "models").find(SMOLLM2).path


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def gguf(*pairs: bytes, tensors: bytes = b"", count: int = 0, data: int = 64, version: int = 3) -> bytes:
    """A small file of the format, with `data` bytes of weights."""
    head = b"GGUF" + struct.pack("<IQQ", version, count, len(pairs)) + b"".join(pairs) + tensors
    return head + bytes(-len(head) % 32 + data)


def test_header_says_what_llama_cpp_says_of_the_same_file(smollm2_file: Path, smollm2: LlamaServer) -> None:
    request = urllib.request.Request(
        f"{smollm2.address}/v1/models", headers={"Authorization": f"Bearer {smollm2.api_key}"}
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        meta = json.load(response)["data"][0]["meta"]

    header = read_header(smollm2_file)

    assert (header.parameters, header.quantization, header.context_length) == (
        meta["n_params"],
        meta["ftype"],
        meta["n_ctx_train"],
    )


def test_gemma_is_known_by_its_first_part(data_dir: Path) -> None:
    header = Library(data_dir / "models").find(GEMMA).header()

    assert header.architecture == "gemma3"
    assert header.quantization == "Q4_K_M"
    assert round(header.parameters / 1e6) == 268
    assert header.context_length == 32768
    assert header.chat_template == ""


def test_every_kind_of_value_is_walked_past(tmp_path: Path) -> None:
    scalars = [(0, "B"), (1, "b"), (2, "H"), (3, "h"), (4, "I"), (5, "i"), (6, "f"), (7, "?"), (12, "d")]
    pairs = [text(f"s{kind}") + struct.pack(f"<I{code}", kind, 1) for kind, code in scalars]
    pairs += [
        text("numbers") + struct.pack("<IIQ3I", 9, 4, 3, 1, 2, 3),
        text("texts") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("b"),
        text("arrays") + struct.pack("<IIQIQ2B", 9, 9, 1, 0, 2, 1, 2),
        text("general.architecture") + struct.pack("<I", 8) + text("tiny"),
        text("tiny.context_length") + struct.pack("<II", 4, 77),
        text("general.file_type") + struct.pack("<II", 4, 15),
    ]
    tensor = text("w") + struct.pack("<IQQIQ", 2, 3, 5, 0, 0)
    file = tmp_path / "tiny.gguf"
    file.write_bytes(gguf(*pairs, tensors=tensor, count=1))

    header = read_header(file)

    assert (header.architecture, header.context_length) == ("tiny", 77)
    assert (header.quantization, header.parameters) == ("Q4_K_M", 15)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not a GGUF file"),
        (b"PK\x03\x04 a zip file", "not a GGUF file"),
        (b"GGUF", "damaged"),
        (gguf(version=99), "damaged"),
        (gguf(text("key") + struct.pack("<I", 99)), "damaged"),
        (gguf(text("general.alignment") + struct.pack("<II", 4, 0)), "damaged"),
        (gguf(text("texts") + struct.pack("<IIQ", 9, 8, 2**60)), "damaged"),
        (gguf(struct.pack("<Q", 2**63)), "damaged"),
        (gguf(tensors=text("w") + struct.pack("<IQQIQ", 2, 3, 5, 0, 4096), count=1), "damaged"),
    ],
)
def test_what_is_no_usable_gguf_file_is_said_so(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "file.gguf"
    file.write_bytes(content)

    with pytest.raises(InputError, match=says):
        read_header(file)


def test_a_download_that_was_cut_short_is_found_out(tmp_path: Path, smollm2_file: Path) -> None:
    file = tmp_path / "cut.gguf"
    shutil.copyfile(smollm2_file, file)
    with file.open("r+b") as whole:
        whole.truncate(50_000_000)

    with pytest.raises(InputError, match="damaged or unfinished"):
        read_header(file)


def test_a_missing_file_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be read"):
        read_header(tmp_path / "nowhere.gguf")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(junk=st.binary(max_size=200), at=st.integers(4, 120))
def test_random_damage_never_ends_in_another_error(tmp_path: Path, junk: bytes, at: int) -> None:
    pair = text("general.architecture") + struct.pack("<I", 8) + text("tiny")
    content = bytearray(gguf(pair, tensors=text("w") + struct.pack("<IQQIQ", 2, 3, 5, 0, 0), count=1))
    content[at : at + len(junk)] = junk
    file = tmp_path / "damaged.gguf"
    file.write_bytes(content)

    with contextlib.suppress(InputError):
        read_header(file)
