"""Reading what examples write."""

PNG = b"\x89PNG\r\n\x1a\n"


def rows(block: str) -> list[list[str]]:
    """Return the cells of a Markdown table, a list for each row below the head."""
    return [line.strip("| ").split(" | ") for line in block.splitlines()[2:]]
