"""Random changes of the fuzzer: of bytes, texts, the headers of a tar, statements, and command lines."""

from __future__ import annotations

import random

NUMBERS = (b"0", b"-1", b"1e999", b"NaN", b"99999999999999999999", b"\xff" * 8, b"\0" * 8, b"\x80" + b"\0" * 10 + b"\1")
WORDS = ("null", "true", "[]", "{}", '""', "-1", "1e999", "NaN", "1.5", "[" * 3000, '"\\u001b[31m"', "9" * 5000)


def changed_bytes(data: bytes, chance: random.Random) -> bytes:
    """Change bytes, cut, repeat, leave out, or put in numbers at the borders of what is possible."""
    found = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 5, 20))):
        at, end = sorted((chance.randrange(len(found) + 1), chance.randrange(len(found) + 1)))
        end = min(end, at + chance.choice((1, 8, 100, 4096)))
        how = chance.randrange(7)
        if how == 0 and at < len(found):
            found[at] ^= 1 << chance.randrange(8)
        elif how == 1:
            found[at:end] = bytes(chance.randrange(256) for _ in range(end - at))
        elif how == 2:
            found[at:end] = bytes(end - at)
        elif how == 3:
            number = chance.choice(NUMBERS)
            found[at : at + len(number)] = number
        elif how == 4:
            del found[at:end]
        elif how == 5:
            found[at:at] = found[at:end] * chance.choice((1, 1, 30))
        elif chance.random() < 0.3:
            del found[at:]
    return bytes(found)


def changed_text(data: bytes, chance: random.Random) -> bytes:
    """Change a text as `changed_bytes`, or put a word of JSON in the place of a value."""
    if chance.random() < 0.4:
        return changed_bytes(data, chance)
    text = data.decode()
    places = [at for at, letter in enumerate(text) if letter in ":,["]
    at = chance.choice(places or [0])
    ends = [end for end in (text.find(letter, at + 1) for letter in ",]}\n") if end > 0]
    return (text[: at + 1] + chance.choice(WORDS) + text[min(ends, default=at) :]).encode()


def resealed_tar(data: bytes, chance: random.Random) -> bytes:
    """Change the fields of a tar's headers, and put their sums right, so that the reader looks further."""
    found = bytearray(data if chance.random() < 0.7 else changed_bytes(data, chance))
    for at in range(0, max(0, len(found) - 511), 512):
        if found[at + 257 : at + 262] != b"ustar" or chance.random() < 0.4:
            continue
        field = chance.choice(((0, 100), (124, 12), (156, 1), (157, 100), (345, 155), (257, 8)))
        value = chance.choice((*NUMBERS, b"L", b"x", b"S", b"1", b"2", b"../up.jpg", b"00000001000\0"))[: field[1]]
        found[at + field[0] : at + field[0] + len(value)] = value
        found[at + 148 : at + 156] = b" " * 8
        found[at + 148 : at + 156] = b"%06o\0 " % sum(found[at : at + 512])
    return bytes(found)


def changed_statement(data: bytes, chance: random.Random) -> bytes:
    """Put other values into the table of an index; `data` is a statement with a place for a value."""
    values = ("-5", "-1", "0", "3", "7", "1e99", "NULL", "x'ff'", "'text'", str(1 << 62), "2.5", "'\x1b[31m'")
    return data.replace(b"?", chance.choice(values).encode())


def changed_arguments(data: bytes, chance: random.Random) -> bytes:
    """Change some arguments of a command line, one a line: their values, the whole, or twice the same."""
    words = (
        b"null", b"", b"~output", b"???", b"${output}", b"x" * 300, b"\x1b[31m", b"--cfg", b"=", b"[[[", b"{", b"-1",
    )  # fmt: skip
    lines = data.split(b"\n")
    for _ in range(chance.choice((1, 2, 3))):
        at = chance.randrange(1, len(lines))
        key, equals, _ = lines[at].partition(b"=")
        change = chance.choice(
            (key + equals + chance.choice(words), chance.choice(words), lines[at] + b"\n" + lines[at])
        )
        lines[at] = change
    return b"\n".join(lines)


def changed_patches(data: bytes, chance: random.Random) -> bytes:
    """Return changes of the bytes of another file: lines of a place, 0…1, and new bytes in hexadecimal, or `cut`."""
    lines = data.splitlines() if chance.random() < 0.2 else []
    for _ in range(chance.choice((1, 2, 8))):
        new = chance.choice((*NUMBERS, b"\0\0\xc0\x7f" * 50, b"\0\0\x80\x7f", bytes(4096))).hex()
        lines.append(f"{chance.random():.6f} {new if chance.random() < 0.9 else 'cut'}".encode())
    return b"\n".join(lines)
