"""Generator of docs/serve-schema.svg: the tables of isc serve and which name which, from isc/serve/schema.py.

python docs/serve_schema.py
"""

from pathlib import Path

from isc.serve.schema import metadata

COLUMNS = (  # the tables of the picture, from left to right
    ("image", "descriptor", "removal", "folder_import"),
    ("request", "provider", "circuit", "event"),
    ("copy_match", "label", "caption", "product", "number", "written_caption"),
    ("suggestion", "vote", "rating", "listing", "outbox"),
    ("shop_picture", "token", "session", "lease"),
)
WIDTH, GAP, LINE, HEAD = 200, 56, 17, 26
STYLE = """text { font: 12px system-ui, sans-serif; fill: #5c646d }
.table { font-weight: 600; font-size: 13px; fill: #1c2024 }
rect { fill: #ffffff; stroke: #9aa3ab } path { fill: none; stroke: #1f6fb2; stroke-opacity: .6; stroke-width: 1.3 }
.ground { fill: #fbfbf9; stroke: none }
@media (prefers-color-scheme: dark) { .ground { fill: #16181b } rect { fill: #22262b; stroke: #59626b }
text { fill: #a5adb5 } .table { fill: #f0f2f4 } path { stroke: #6db3ee } }"""


def svg() -> str:
    """Return the picture: a box for each table with its columns, and a line from each column that names a row."""
    assert {name for column in COLUMNS for name in column} == set(metadata.tables)
    place: dict[str, tuple[int, int]] = {}
    bottom = 0
    for at, names in enumerate(COLUMNS):
        y = 16
        for name in names:
            place[name] = (16 + at * (WIDTH + GAP), y)
            y += HEAD + LINE * len(metadata.tables[name].columns) + 26
        bottom = max(bottom, y)
    wide = 16 + len(COLUMNS) * (WIDTH + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {bottom}" role="img">',
        f"<title>The tables of isc serve</title><style>{STYLE}</style>",
        f'<rect class="ground" width="{wide}" height="{bottom}"/>',
    ]
    for name, (x, y) in place.items():
        table = metadata.tables[name]
        parts.append(f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEAD + LINE * len(table.columns) + 6}" rx="5"/>')
        parts.append(f'<text class="table" x="{x + 10}" y="{y + 18}">{name}</text>')
        for row, column in enumerate(table.columns):
            at = y + HEAD + LINE * row + 10
            parts.append(f'<text x="{x + 10}" y="{at}">{column.name}</text>')
            for key in column.foreign_keys:
                tx, ty = place[key.column.table.name]
                start, end = (x, tx + WIDTH) if tx < x else (x + WIDTH, tx + WIDTH if tx == x else tx)
                bend = (start + end) // 2 if tx != x else x + WIDTH + 40
                parts.append(f'<path d="M{start},{at - 4} C{bend},{at - 4} {bend},{ty + 14} {end},{ty + 14}"/>')
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    (Path(__file__).parent / "serve-schema.svg").write_text(svg(), encoding="utf-8")
