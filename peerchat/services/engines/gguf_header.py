"""What a GGUF file says of itself (ggml/docs/gguf.md, versions 2 and 3).

Files come from anywhere, so every number is checked before it is believed: a bad file
is a `GgufError`, never a crash of llama.cpp.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

MAGIC = b"GGUF"
T = TypeVar("T", str, int)
PAIRS_MAX = 65_536
TENSORS_MAX = 65_536
STRING_BYTES_MAX = 4 * 1024 * 1024
"""A chat template is the longest string there is."""
ARRAY_MAX = 4_000_000
"""Entries; vocabularies have up to a quarter of a million."""

_STRING, _ARRAY = 8, 9
_FIXED = {
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
    39: "NVFP4",
}
"""``general.file_type`` (llama.h, ``llama_ftype``)."""


class GgufError(Exception):
    """The file is no GGUF that can be used."""


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What is of interest before a model is loaded."""

    architecture: str = ""
    parameters: int = 0
    quantization: str = ""
    context_tokens: int | None = None
    vector_length: int | None = None
    chat_template: str = field(default="", repr=False)
    is_embedder: bool = False
    """It gives vectors: of the BERT kind, or with a pooling of its own."""


def read_header_untrusted(path: Path) -> GgufHeader:
    """Read the head of a file; raises `GgufError` or `OSError`."""
    with path.open("rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise GgufError("the file is empty") from None
        with data:
            try:
                return _header(_Reader(data))
            except (struct.error, UnicodeDecodeError):
                raise GgufError("the file is cut off or damaged") from None


class _Reader:
    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self.position = 0

    def take(self, layout: str) -> int | float | bool:
        value: int | float | bool
        (value,) = struct.unpack_from(layout, self._data, self.position)
        self.position += struct.calcsize(layout)
        return value

    def count(self, limit: int, layout: str = "<Q") -> int:
        value = int(self.take(layout))
        if value > limit:
            raise GgufError(f"a count of {value} is too large")
        return value

    def raw(self, size: int) -> bytes:
        data = self._data[self.position : self.position + size]
        if len(data) < size:
            raise GgufError("the file is cut off")
        self.position += size
        return data

    def text(self) -> str:
        return self.raw(self.count(STRING_BYTES_MAX)).decode()

    def skip(self, size: int) -> None:
        self.position += size


def _header(reader: _Reader) -> GgufHeader:
    if reader.raw(4) != MAGIC:
        raise GgufError("it does not begin with GGUF")
    if int(reader.take("<I")) not in (2, 3):
        raise GgufError("its version is not 2 or 3")
    tensors = reader.count(TENSORS_MAX)
    pairs = reader.count(PAIRS_MAX)
    fields: dict[str, object] = {}
    for _ in range(pairs):
        name = reader.text()
        fields[name] = _value(reader, reader.count(2**32, "<I"))
    parameters = sum(_tensor(reader) for _ in range(tensors))
    return _told(fields, parameters)


def _value(reader: _Reader, kind: int) -> object:
    """A value, or None for an array, which is only passed over."""
    if kind == _STRING:
        return reader.text()
    if kind != _ARRAY:
        return reader.take(_layout(kind))
    inner = reader.count(2**32, "<I")
    length = reader.count(ARRAY_MAX)
    if inner == _STRING:
        for _ in range(length):
            reader.skip(reader.count(STRING_BYTES_MAX))
    else:
        reader.skip(length * struct.calcsize(_layout(inner)))
    return None


def _layout(kind: int) -> str:
    if kind not in _FIXED:
        raise GgufError(f"a value of the unknown kind {kind}")
    return _FIXED[kind]


def _tensor(reader: _Reader) -> int:
    """How many numbers a tensor has."""
    reader.text()
    count = 1
    for _ in range(reader.count(8, "<I")):
        count *= reader.count(2**40)
    reader.take("<I")
    reader.take("<Q")
    return count


def _told(fields: dict[str, object], parameters: int) -> GgufHeader:
    architecture = _typed(fields.get("general.architecture"), "")
    kind = _typed(fields.get("general.file_type"), -1)
    context = _typed(fields.get(f"{architecture}.context_length"), 0)
    vector_length = _typed(fields.get(f"{architecture}.embedding_length"), 0)
    pooling = _typed(fields.get(f"{architecture}.pooling_type"), 0)
    return GgufHeader(
        architecture=architecture,
        parameters=parameters,
        quantization=_FILE_TYPES.get(kind, ""),
        context_tokens=context or None,
        vector_length=vector_length or None,
        chat_template=_typed(fields.get("tokenizer.chat_template"), ""),
        is_embedder="bert" in architecture or pooling > 0,
    )


def _typed(value: object, default: T) -> T:
    return value if isinstance(value, type(default)) else default
