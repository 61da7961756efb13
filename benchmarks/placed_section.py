"""A section of a page in docs/ that a benchmark writes: from the marker in its first line to the one in its last."""

from __future__ import annotations


def placed(page: str, section: str) -> str:
    """The page with the section in the old one's place, at its end where it has none."""
    lines = section.splitlines()
    before, found, rest = page.partition(lines[0])
    if not found:
        return f"{page.rstrip()}\n\n{section}\n"
    return before + section + rest.partition(lines[-1])[2]
