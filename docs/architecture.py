"""Generator of docs/architecture.svg: the rooms of isc/ by floor, and the imports between them, from the sources.

python docs/architecture.py
"""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FLOORS = (
    {"errors": "the exception that users cause", "conf": "YAML files of the verbs"},
    {"runtime": "CPUs, progress, locks, Ray", "data": "values and their files"},
    {"photos": "listing, decoding, views"},
    {"config": "every key, checked", "evaluate": "metrics, probabilities, report", "video": "frames of videos"},
    {"search": "exact, approximate, updatable index", "model": "network, weights, ONNX"},
    {"extract": "photos → descriptors", "match": "descriptors → pairs", "words": "captions of photos"},
    {"train": "photos → a model", "find": "copies and duplicates", "benchmark": "photos → a benchmark"},
    {"products": "clips → items of a shop"},
    {"serve": "review: providers, people, feedback"},
    {"cli": "every command"},
)
WIDTH, ROW, BOX, HEIGHT = 980, 84, 250, 50
STYLE = """text { font: 13px system-ui, sans-serif; fill: #5c646d } .room { font-weight: 600; fill: #1c2024 }
rect.box { fill: #ffffff; stroke: #9aa3ab } path { fill: none; stroke: #1f6fb2; stroke-opacity: .55; stroke-width: 1.4 }
.ground { fill: #fbfbf9 }
@media (prefers-color-scheme: dark) { .ground { fill: #16181b } rect.box { fill: #22262b; stroke: #59626b }
text { fill: #a5adb5 } .room { fill: #f0f2f4 } path { stroke: #6db3ee } }"""


def room_imports() -> dict[str, set[str]]:
    """Return for each room the other rooms that its files import."""
    found: dict[str, set[str]] = {room: set() for floor in FLOORS for room in floor}
    for path in (ROOT / "isc").rglob("*.py"):
        room = path.relative_to(ROOT / "isc").parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("isc.") and room in found:
                found[room].add(node.module.split(".")[1])
    return {room: others - {room} for room, others in found.items()}


def without_detours(imports: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Return the imports (from, to) that no longer path through other rooms implies."""

    def reached(room: str) -> set[str]:
        return imports[room].union(*(reached(other) for other in imports[room]))

    below = {room: reached(room) for room in imports}
    return [
        (room, other)
        for room, others in imports.items()
        for other in sorted(others)
        if not any(other in below[between] for between in others - {other})
    ]


def svg() -> str:
    """Return the picture: the highest floor at the top; each line runs from a room down to one that it imports."""
    place: dict[str, tuple[float, int]] = {}
    for number, rooms in enumerate(FLOORS, 1):
        y = (len(FLOORS) - number) * ROW + 20
        step = WIDTH / (len(rooms) + 1)
        place |= {room: (step * (at + 1), y) for at, room in enumerate(rooms)}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {len(FLOORS) * ROW + 10}" role="img">',
        f"<title>The rooms of isc, by floor</title><style>{STYLE}</style>",
        f'<rect class="ground" width="{WIDTH}" height="{len(FLOORS) * ROW + 10}"/>',
    ]
    for room, other in without_detours(room_imports()):
        (x1, y1), (x2, y2) = place[room], place[other]
        down, up, bend = y1 + HEIGHT, y2, (y2 - y1 - HEIGHT) * 0.5
        parts.append(f'<path d="M{x1:.0f},{down} C{x1:.0f},{down + bend:.0f} {x2:.0f},{up - bend:.0f} {x2:.0f},{up}"/>')
    for room, words in (item for floor in FLOORS for item in floor.items()):
        x, y = place[room]
        parts.append(f'<rect class="box" x="{x - BOX / 2:.0f}" y="{y}" width="{BOX}" height="{HEIGHT}" rx="6"/>')
        parts.append(f'<text class="room" x="{x:.0f}" y="{y + 21}" text-anchor="middle">{room}</text>')
        parts.append(f'<text x="{x:.0f}" y="{y + 39}" text-anchor="middle">{words}</text>')
    for number in range(1, len(FLOORS) + 1):
        parts.append(f'<text x="14" y="{(len(FLOORS) - number) * ROW + 49}">{number}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    (ROOT / "docs" / "architecture.svg").write_text(svg(), encoding="utf-8")
