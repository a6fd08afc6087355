"""The token that a gateway shows to the daemon: for the routes and for its reports."""

from __future__ import annotations

from pathlib import Path


class Token:
    """The daemon's token: the configured one, else the file's, where it can be read."""

    def __init__(self, configured: str | None, file: Path) -> None:
        self._configured = configured
        self._file = file
        self._read: str | None = None

    def headers(self) -> dict[str, str]:
        token = self._configured or self._read or self._from_file()
        return {"Authorization": f"Bearer {token}"} if token else {}

    def refused(self) -> None:
        """The daemon does not know it: read the file again the next time."""
        self._read = None

    def _from_file(self) -> str | None:
        try:
            self._read = self._file.read_text(encoding="utf-8").strip() or None
        except (OSError, ValueError):
            self._read = None
        return self._read
