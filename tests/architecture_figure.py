"""The arrows of tests/test_architecture.py, drawn: which room imports which.

python tests/architecture_figure.py > docs/images/architecture.svg
"""

from html import escape

from test_architecture import ARROWS, CARRIERS

HIDDEN = {"_conflict", "__main__", "jaxns", "cli", "experiments"}  # doors, and who sees all rooms
GROUND = ", ".join(sorted(CARRIERS))
WIDTH, ROW, HEIGHT = 900, 92, 34


def drawn() -> dict[str, set[str]]:
    """Who imports whom, the carriers as one room, without arrows that follow from others."""
    rooms = {room: there - HIDDEN for room, there in ARROWS.items() if room not in HIDDEN}
    merged = {
        room: {GROUND if there in CARRIERS else there for there in imported}
        for room, imported in rooms.items()
        if room not in CARRIERS
    }
    merged[GROUND] = set()

    def reached(room: str) -> set[str]:
        return merged[room].union(*(reached(there) for there in merged[room]))

    return {
        room: {there for there in direct if not any(there in reached(o) for o in direct)}
        for room, direct in merged.items()
    }


def rows(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Rooms by the longest way down, each row ordered by where its arrows lead."""
    level: dict[str, int] = {}

    def depth(room: str) -> int:
        if room not in level:
            level[room] = 1 + max(map(depth, arrows[room]), default=-1)
        return level[room]

    found: list[list[str]] = [[] for _ in range(1 + max(map(depth, arrows)))]
    for room in sorted(arrows):
        found[level[room]].append(room)
    place: dict[str, float] = {}
    for row in found:
        centre = {r: sum(place[t] for t in arrows[r]) / max(len(arrows[r]), 1) for r in row}
        row.sort(key=lambda room: (centre[room], room))
        place |= {room: (i + 0.5) / len(row) for i, room in enumerate(row)}
    return found


def svg() -> str:
    arrows = drawn()
    table = rows(arrows)
    height = ROW * len(table)
    at = {
        room: ((i + 0.5) * WIDTH / len(row), height - (level + 0.5) * ROW)
        for level, row in enumerate(table)
        for i, room in enumerate(row)
    }
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="15" text-anchor="middle">',
        '<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8Z" fill="#667"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#fff"/>',
    ]
    for room in sorted(arrows):
        for there in sorted(arrows[room]):
            (x, y), (u, v) = at[room], at[there]
            y, v = y + HEIGHT / 2, v - HEIGHT / 2
            bend = (v - y) / 2
            lines.append(
                f'<path d="M{x:.0f} {y:.0f}C{x:.0f} {y + bend:.0f} {u:.0f} {v - bend:.0f} '
                f'{u:.0f} {v:.0f}" fill="none" stroke="#667" marker-end="url(#head)"/>'
            )
    for room, (x, y) in at.items():
        wide = 9 * len(room) + 22
        lines.append(
            f'<rect x="{x - wide / 2:.0f}" y="{y - HEIGHT / 2:.0f}" width="{wide}" '
            f'height="{HEIGHT}" rx="6" fill="#eef3fa" stroke="#0072b2"/>'
            f'<text x="{x:.0f}" y="{y + 5:.0f}" fill="#123">{escape(room)}</text>'
        )
    return "\n".join([*lines, "</svg>\n"])


if __name__ == "__main__":
    print(svg(), end="")
