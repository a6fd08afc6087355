"""docs/results.md and its pictures."""


def main() -> None:
    return
