"""What sections are made of: secrets by reference, numbers with bounds, a base that takes no unknown key."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationInfo

UNREAD = SecretStr("https://secret.unread.invalid")
"""Instead of a secret that was not asked for: opens nothing, and is an address where one is wanted."""


@dataclass
class SecretsOf:
    """Context of a validation: the sections whose secrets are read; those of others stay `UNREAD`."""

    sections: Collection[str]
    section: str = ""
    """The one that is being read."""


def _resolve_secret(value: Any, info: ValidationInfo) -> Any:
    """`env:NAME` reads an environment variable, `file:PATH` a file; a plain value is refused, and so is an empty one:
    it would sign or open nothing. White space around it does not count."""
    if value is None or isinstance(value, SecretStr):
        return value
    scheme, _, rest = str(value).partition(":")
    wanted = info.context
    if scheme in ("env", "file") and rest and wanted is not None and wanted.section not in wanted.sections:
        return UNREAD
    if scheme == "env" and rest:
        if rest not in os.environ:
            raise ValueError(f"environment variable {rest} is not set; export it before the start")
        source, secret = f"environment variable {rest}", os.environ[rest]
    elif scheme == "file" and rest:
        source, secret = f"secret file {rest}", _content(Path(rest))
    else:
        raise ValueError("a secret is never written into the file: use env:NAME or file:PATH")
    if not secret.strip():
        raise ValueError(f"the {source} is empty; leave the key out where there is no secret")
    return secret.strip()


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"cannot read the secret file {path}: {error.strerror}") from None
    except UnicodeError:
        raise ValueError(f"the secret file {path} is not UTF-8 text") from None


def _in_a_header(value: SecretStr | None) -> SecretStr | None:
    key = value.get_secret_value() if value else ""
    if not (key.isascii() and key.isprintable()):
        raise ValueError("it holds characters that no header can; is it the right variable or file?")
    return value


Secret = Annotated[SecretStr | None, BeforeValidator(_resolve_secret)]
HeaderSecret = Annotated[Secret, AfterValidator(_in_a_header)]
"""A secret that is sent as a header, such as a bearer token."""
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Seconds = Annotated[float, Field(gt=0.0)]
Positive = Annotated[int, Field(ge=1)]
SystemDigest = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
"""Another string would match no prompt, and nothing would say so."""
ClockTime = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$|^24:00$")]


_NO_ADDRESS = "an address is of the form http://host:port or https://host:port"


def _address(value: str, *, instead: str) -> str:
    """The http(s) address as it is. `instead`: what to do where it holds credentials. Raises ValueError that quotes
    nothing of it."""
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets around what is no address, a port that is no number
        raise ValueError(_NO_ADDRESS) from None
    if "@" in parts.netloc:
        raise ValueError(f"an address holds no user or password; {instead}")
    if not usable or not value.isprintable() or " " in value:
        raise ValueError(_NO_ADDRESS)
    return value


def _server_url(value: str) -> str:
    if "?" in value or "#" in value:
        raise ValueError("a base URL holds no ? and no #: paths are put behind it")
    return _address(value, instead="give a key or token in its own setting, by reference")


ServerUrl = Annotated[str, AfterValidator(_server_url)]
"""Base URL of a server, without credentials: it stands in logs."""
OptionalServerUrl = Annotated[str, AfterValidator(lambda value: value and _server_url(value))]
"""The same, or "" for none."""


def _secret_url(value: SecretStr) -> SecretStr:
    _address(value.get_secret_value(), instead="the receiver knows us by the path, or by a signature")
    return value


SecretUrl = Annotated[SecretStr, BeforeValidator(_resolve_secret), AfterValidator(_secret_url)]
"""A whole address, by reference: with its path, and never in logs. Without credentials all the same."""


class Section(BaseModel):
    """Base of every section: immutable, no unknown keys, descriptions from the docstring under each field."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=(), allow_inf_nan=False
    )
