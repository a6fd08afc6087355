"""What sections are made of: secrets by reference, numbers with bounds, a base that takes no unknown key."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr


def _resolve_secret(value: Any) -> Any:
    """`env:NAME` reads an environment variable, `file:PATH` a file; a plain value is refused."""
    if value is None or isinstance(value, SecretStr):
        return value
    scheme, _, rest = str(value).partition(":")
    if scheme == "env" and rest:
        if rest not in os.environ:
            raise ValueError(f"environment variable {rest} is not set; export it before the start")
        return os.environ[rest]
    if scheme == "file" and rest:
        try:
            return Path(rest).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ValueError(f"cannot read the secret file {rest}: {error.strerror}") from None
    raise ValueError("a secret is never written into the file: use env:NAME or file:PATH")


Secret = Annotated[SecretStr | None, BeforeValidator(_resolve_secret)]
RequiredSecret = Annotated[SecretStr, BeforeValidator(_resolve_secret)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Seconds = Annotated[float, Field(gt=0.0)]
Positive = Annotated[int, Field(ge=1)]
ClockTime = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$|^24:00$")]


def _server_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.username or parts.password:
        raise ValueError("an address holds no user or password; give a key or token in its own setting, by reference")
    try:
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        usable = False
    if not usable:
        raise ValueError("an address is of the form http://host:port or https://host:port")
    return value


ServerUrl = Annotated[str, AfterValidator(_server_url)]
"""Base URL of a server, without credentials: it stands in logs."""
OptionalServerUrl = Annotated[str, AfterValidator(lambda value: value and _server_url(value))]
"""The same, or "" for none."""


class Section(BaseModel):
    """Base of every section: immutable, no unknown keys, descriptions from the docstring under each field."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=(), allow_inf_nan=False
    )
