"""The position at the end of a partial JSON text: in a string, a name or a number, and how deep. It trusts that the text is JSON so far."""

from __future__ import annotations

from dataclasses import dataclass

OPEN, CLOSE = frozenset(b"{["), frozenset(b"}]")


@dataclass(frozen=True, slots=True)
class Place:
    """`length` counts the bytes of the string, `number` those of the number; `objects` holds whether each open bracket is a brace.

    Outside JSON a place has a length and nothing else.
    """

    json: bool = True
    string: bool = False
    escaped: bool = False
    name: bool = False
    written: bytes = b""
    objects: tuple[bool, ...] = ()
    number: int = 0
    point: bool = False
    length: int = 0

    def after(self, text: bytes) -> Place:
        """The place where the text ends once these bytes follow."""
        if not self.json:
            return Place(False, length=self.length + len(text))
        string, escaped, name, written = self.string, self.escaped, self.name, self.written
        objects, number, point, length = list(self.objects), self.number, self.point, self.length
        for byte in text:
            if string:
                if not escaped and byte == 0x22:
                    string = False
                written += bytes([byte]) if name else b""
                length += 1
                escaped = not escaped and byte == 0x5C
                continue
            if byte in b"0123456789+-.eE" and (number or byte in b"-0123456789"):
                number, point = number + 1, point or byte in b".eE"
                continue
            number, point = 0, False
            if byte == 0x22:
                string, written, length = True, b"", 0
            elif byte in OPEN:
                objects.append(byte == 0x7B)
                name = byte == 0x7B
            elif byte in CLOSE and objects:
                objects.pop()
            elif byte == 0x2C:
                name = bool(objects and objects[-1])
            elif byte == 0x3A:
                name = False
        return Place(True, string, escaped, name, written, tuple(objects), number, point, length)
