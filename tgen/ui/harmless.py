"""Make text harmless for a terminal: control characters become visible signs."""

from __future__ import annotations

_BIDI = [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_C0 = [code for code in range(0x20) if chr(code) not in "\n\t"]
_SIGNS = (
    {code: chr(0x2400 + code) for code in _C0}
    | {0x7F: "\u2421"}
    | {code: f"<{code:02x}>" for code in range(0x80, 0xA0)}
    | {code: f"<{code:04x}>" for code in _BIDI}
)


def harmless(text: str) -> str:
    """The text with C0 (but newline and tab), DEL, C1 and bidirectional overrides shown instead of sent."""
    return text.translate(_SIGNS)
