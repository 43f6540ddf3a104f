"""Makes a language model of half a megabyte that llama.cpp runs: it talks nonsense.

A GGUF file (ggml/docs/gguf.md, version 3) of the llama architecture with random weights
from a fixed seed. Its tokens are single characters, so that text that is fed back reads
as the tokens it was made of; only printable ASCII is ever spoken, and never an end.

    python -m tests.tiny_gguf tiny.gguf
"""

from __future__ import annotations

import array
import functools
import random
import struct
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

MAGIC = b"GGUF"
VERSION = 3
ALIGNMENT = 32
_UINT32, _INT32, _FLOAT32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6
"""Kinds of tokens (llama.h, llama_token_attr)."""

TEMPLATE = """\
{%- if tools -%}<tools>
{%- for tool in tools -%}{{ tool | tojson }}{%- endfor -%}</tools>
{% endif -%}
{%- for message in messages -%}
<{{ message.role }}>{{ message.content or '' }}
{%- for call in message.tool_calls or [] -%}
<tool_call>
{{- {'name': call.function.name, 'arguments': call.function.arguments} | tojson -}}
</tool_call>
{%- endfor -%}
{{ '\\n' if not loop.last or add_generation_prompt }}
{%- endfor -%}
{%- if add_generation_prompt -%}<assistant>{%- endif -%}
"""

Value = int | float | bool | str | list[int] | list[float] | list[str]


@dataclass(frozen=True)
class Shape:
    """How large the model is: by default as small as it gets."""

    width: int = 64
    layers: int = 2
    heads: int = 4
    feed_forward: int = 128
    context: int = 8192
    seed: int = 7
    is_embedder: bool = False
    """Gives vectors: the mean over a text."""


def write_model(path: Path, shape: Shape = Shape()) -> Path:
    """Write the file; the same shape gives the same bytes."""
    fields = _fields(shape)
    tensors = _tensors(shape)
    head = [MAGIC, struct.pack("<IQQ", VERSION, len(tensors), len(fields))]
    head += [_text(key) + _value(value) for key, value in fields.items()]
    offset = 0
    data: list[bytes] = []
    for name, dimensions, weights in tensors:
        head.append(_text(name) + struct.pack("<I", len(dimensions)))
        head.append(struct.pack(f"<{len(dimensions)}Q", *dimensions))
        head.append(struct.pack("<IQ", 0, offset))  # 0: float32
        data.append(_padded(weights.tobytes()))
        offset += len(data[-1])
    path.write_bytes(_padded(b"".join(head)) + b"".join(data))
    return path


@functools.cache
def tiny_model(shape: Shape = Shape()) -> Path:
    """The file, made once for each run of the tests."""
    folder = Path(tempfile.mkdtemp(prefix="peerchat-tiny-"))
    return write_model(folder / f"tiny-{abs(hash(shape))}.gguf", shape)


def _tokens() -> tuple[list[str], list[int]]:
    characters = [chr(code) for code in range(32, 127)]
    tokens = ["<unk>", "<s>", "</s>"]
    kinds = [_UNKNOWN, _CONTROL, _CONTROL]
    tokens += [f"<0x{code:02X}>" for code in range(256)]
    kinds += [_BYTE] * 256
    # SentencePiece writes a space as U+2581.
    tokens += ["\u2581" if one == " " else one for one in characters]
    kinds += [_NORMAL] * len(characters)
    return tokens, kinds


def _fields(shape: Shape) -> dict[str, Value]:
    tokens, kinds = _tokens()
    pooling: dict[str, Value] = {"llama.pooling_type": 1} if shape.is_embedder else {}
    return {
        **pooling,
        "general.architecture": "llama",
        "general.name": "tiny",
        "general.file_type": 0,
        "llama.context_length": shape.context,
        "llama.embedding_length": shape.width,
        "llama.block_count": shape.layers,
        "llama.feed_forward_length": shape.feed_forward,
        "llama.attention.head_count": shape.heads,
        "llama.attention.head_count_kv": shape.heads,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": shape.width // shape.heads,
        "llama.vocab_size": len(tokens),
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * len(tokens),
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.chat_template": TEMPLATE,
    }


_Tensor = tuple[str, tuple[int, ...], "array.array[float]"]


def _tensors(shape: Shape) -> list[_Tensor]:
    chance = random.Random(shape.seed)
    vocabulary = len(_tokens()[0])
    silent = 3 + 256
    """Ends and bytes score 0 and are never the best of a hundred."""

    def weights(columns: int, rows: int, scale: float) -> array.array[float]:
        return array.array(
            "f", [chance.uniform(-scale, scale) for _ in range(columns * rows)]
        )

    width, wide = shape.width, shape.feed_forward
    scale = (3 / width) ** 0.5
    ones = array.array("f", [1.0] * width)
    speech = weights(width, vocabulary - silent, 3 * scale)
    output = array.array("f", [0.0] * (width * silent)) + speech
    tensors: list[_Tensor] = [
        ("token_embd.weight", (width, vocabulary), weights(width, vocabulary, 1.0)),
        ("output_norm.weight", (width,), ones),
        ("output.weight", (width, vocabulary), output),
    ]
    for layer in range(shape.layers):
        prefix = f"blk.{layer}"
        tensors += [
            (f"{prefix}.attn_norm.weight", (width,), ones),
            (f"{prefix}.ffn_norm.weight", (width,), ones),
        ]
        tensors += [
            (
                f"{prefix}.attn_{one}.weight",
                (width, width),
                weights(width, width, scale),
            )
            for one in ("q", "k", "v", "output")
        ]
        tensors += [
            (f"{prefix}.ffn_gate.weight", (width, wide), weights(width, wide, scale)),
            (f"{prefix}.ffn_up.weight", (width, wide), weights(width, wide, scale)),
            (f"{prefix}.ffn_down.weight", (wide, width), weights(wide, width, scale)),
        ]
    return tensors


def _value(value: Value) -> bytes:
    kind = _kind(value)
    if not isinstance(value, list):
        return struct.pack("<I", kind) + _bare(value)
    # Arrays of whole numbers are the kinds of tokens, which have to be signed.
    inner = _INT32 if isinstance(value[0], int) else _kind(value[0])
    head = struct.pack("<IIQ", _ARRAY, inner, len(value))
    return head + b"".join(_bare(one) for one in value)


def _kind(value: Value) -> int:
    match value:
        case bool():
            return _BOOL
        case int():
            return _UINT32
        case float():
            return _FLOAT32
        case str():
            return _STRING
        case _:
            return _ARRAY


def _bare(value: Value) -> bytes:
    match value:
        case bool():
            return struct.pack("<?", value)
        case int():
            return struct.pack("<I", value)
        case float():
            return struct.pack("<f", value)
        case str():
            return _text(value)
        case _:
            raise TypeError(type(value))


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % ALIGNMENT)


if __name__ == "__main__":
    write_model(Path(sys.argv[1]))
