"""Opens an address with a secret in it, without the secret in any list of processes.

What the browser is started with is a file that only its owner may read and that sends it on to the address.
"""

from __future__ import annotations

import html
import os
import tempfile
import time
import webbrowser
from pathlib import Path

READING_SECONDS = 10.0
"""How long a browser that starts may take to read the file."""

_PAGE = """<!doctype html>
<meta charset="utf-8">
<meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0; url={address}">
<title>TAO</title>
<a href="{address}">Open the console</a>
"""


def open_privately(address: str) -> bool:
    """Open it in this machine's browser; False when none could be started. Returns when the file is gone again."""
    with tempfile.TemporaryDirectory(prefix="tao-console-") as private:
        page = Path(private, "open.html")
        with os.fdopen(os.open(page, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(_PAGE.format(address=html.escape(address)))
        if not webbrowser.open(page.as_uri()):
            return False
        time.sleep(READING_SECONDS)
    return True
