"""Reads the header of a GGUF weights file: what the model is, without loading it.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The `gguf` package would do it too,
but it brings four more packages and builds an array for every token of the vocabulary.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from slam_app.errors import InputError

_SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
_STRING, _ARRAY = 8, 9

# llama.cpp's `enum llama_ftype` (include/llama.h), by the names that people know.
_FILE_TYPES = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4",
}


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What a weights file says of itself; "" or None where it says nothing.

    `parameters` counts the weights of all tensors. `chat_template` is its Jinja text.
    """

    architecture: str
    name: str
    quantization: str
    parameters: int
    context_length: int | None
    chat_template: str
    embedding: bool


def read_header(path: Path, size: int | None = None) -> GgufHeader:
    """The header of the file at `path`.

    Args:
        size: bytes of the whole file when `path` is only its beginning.

    Raises:
        InputError: not there, not GGUF, damaged, or cut short.
    """
    try:
        stat = path.stat()
        return _read_cached(path, stat.st_mtime_ns, stat.st_size, size or stat.st_size)
    except OSError as error:
        raise InputError(
            f"The weights file {path} can't be read ({error.strerror}). Check its path and rights."
        ) from error


@lru_cache(maxsize=256)
def _read_cached(path: Path, mtime_ns: int, present: int, size: int) -> GgufHeader:
    """Once per version of a file: a vocabulary of 262,000 tokens takes a fifth of a second to walk past."""
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise InputError(f"{path.name} is not a GGUF file. Choose a file of weights made for llama.cpp.")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _Reader(data).header(size)
            except (struct.error, ValueError, KeyError, ArithmeticError, RecursionError) as error:
                raise InputError(
                    f"{path.name} is a damaged or unfinished GGUF file. Download or copy it again."
                ) from error


class _Reader:
    """Walks the header; whatever does not fit the format ends in one of the errors caught above."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 4

    def header(self, size: int) -> GgufHeader:
        version = self._number("<I")
        if version not in (2, 3):
            raise ValueError(f"GGUF version {version}")
        tensors, pairs = self._number("<Q"), self._number("<Q")
        meta: dict[str, Any] = {}
        for _ in range(pairs):
            key = self._text()
            meta[key] = self._value(self._number("<I"))
        parameters, last_offset = self._tensors(tensors)
        alignment = int(meta.get("general.alignment", 32))
        if -(-self._at // alignment) * alignment + last_offset >= size:
            raise ValueError("the last tensor lies beyond the end of the file")
        return _describe(meta, parameters)

    def _tensors(self, count: int) -> tuple[int, int]:
        """Number of weights in all tensors, and the offset of the last one."""
        parameters, last_offset = 0, 0
        for _ in range(count):
            self._skip_text()
            shape = [self._number("<Q") for _ in range(self._number("<I"))]
            parameters += math.prod(shape)
            self._at += 4
            last_offset = max(last_offset, self._number("<Q"))
        return parameters, last_offset

    def _number(self, code: str) -> Any:
        (value,) = struct.unpack_from(code, self._data, self._at)
        self._at += struct.calcsize(code)
        return value

    def _text(self) -> str:
        length = self._number("<Q")
        start, self._at = self._at, self._at + length
        if self._at > len(self._data):
            raise ValueError("text beyond the end of the file")
        return self._data[start : self._at].decode("utf-8", errors="replace")

    def _skip_text(self) -> None:
        self._at += 8 + struct.unpack_from("<Q", self._data, self._at)[0]

    def _value(self, kind: int) -> Any:
        """One value; arrays are walked past and give their length, because none of theirs is wanted."""
        if kind == _STRING:
            return self._text()
        if kind != _ARRAY:
            return self._number(_SCALARS[kind])
        item, count = self._number("<I"), self._number("<Q")
        if item in _SCALARS:
            self._at += count * struct.calcsize(_SCALARS[item])
        elif item == _STRING:
            for _ in range(count):
                self._skip_text()
        else:
            for _ in range(count):
                self._value(item)
        return count


def _describe(meta: dict[str, Any], parameters: int) -> GgufHeader:
    architecture = str(meta.get("general.architecture", ""))
    context = meta.get(f"{architecture}.context_length")
    return GgufHeader(
        architecture=architecture,
        name=str(meta.get("general.name", "")),
        quantization=_FILE_TYPES.get(meta.get("general.file_type", -1), ""),
        parameters=parameters,
        context_length=context if isinstance(context, int) else None,
        chat_template=str(meta.get("tokenizer.chat_template", "")),
        embedding=f"{architecture}.pooling_type" in meta,
    )
