"""Tokens: secrets are nowhere but with their holders, scopes include what they should and no more."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest

from tao_daemon.control.auth import Authenticator, ensure_token, read_token
from tao_daemon.control.scopes import Scope, effective
from tao_daemon.control.tokens import TokenError, TokenFile
from tao_daemon.domain.errors import ConfigError
from tao_daemon.domain.events import TokenIssued


def issue(tokens: TokenFile, name: str, *scopes: Scope, expires_at: float | None = None) -> tuple[str, str]:
    token, secret = tokens.prepare(name, scopes, expires_at, 100.0)
    tokens.add(token)
    return token.id, secret


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_only_digests_are_kept_and_only_the_owner_reads_them(tmp_path: Path) -> None:
    tokens = TokenFile(tmp_path)
    _, secret = issue(tokens, "ann", Scope.READ)
    file = tmp_path / "tokens.json"
    assert secret not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert "sha256" not in tokens.list()[0].to_json()


def test_a_token_allows_its_scopes_until_it_expires_or_is_revoked(tmp_path: Path) -> None:
    clock, tokens = Clock(), TokenFile(tmp_path)
    local = ensure_token(tmp_path)
    # The daemon reads the file that another process writes.
    authenticator = Authenticator(local, TokenFile(tmp_path), clock)
    first, secret = issue(tokens, "ann", Scope.OPERATE, expires_at=200.0)
    found = authenticator.identify(f"Bearer {secret}")
    assert found is not None
    assert found.name == "ann"
    assert found.scopes == {Scope.OPERATE, Scope.READ}
    clock.now = 200.0
    assert authenticator.identify(f"Bearer {secret}") is None
    _, other = issue(tokens, "bob", Scope.APPROVE)
    assert authenticator.identify(f"Bearer {other}") is not None
    tokens.revoke(tokens.list()[1].id, 300.0)
    assert authenticator.identify(f"Bearer {other}") is None
    assert tokens.find(first).name == "ann"


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic abc", "Bearer wrong", "Bearer tao_x\x00"])
def test_nobody_gets_in_without_a_token(tmp_path: Path, header: str | None) -> None:
    tokens = TokenFile(tmp_path)
    issue(tokens, "ann", Scope.READ)
    assert Authenticator(ensure_token(tmp_path), tokens, Clock()).identify(header) is None


def test_no_scope_lets_something_new_serve_but_approve() -> None:
    assert [scope for scope in Scope if Scope.APPROVE in effective([scope])] == [Scope.APPROVE, Scope.ADMIN]
    assert effective([Scope.GATEWAY]) == {Scope.GATEWAY}
    assert effective([Scope.ADMIN]) == set(Scope)


def test_a_named_token_cannot_pose_as_somebody_else(tmp_path: Path) -> None:
    tokens, local = TokenFile(tmp_path), ensure_token(tmp_path)
    _, secret = issue(tokens, "ci", Scope.OPERATE)
    authenticator = Authenticator(local, tokens, Clock())
    named, administrator = authenticator.identify(f"Bearer {secret}"), authenticator.identify(f"bearer {local}")
    assert named is not None
    assert administrator is not None
    assert named.actor("daemon") == "ci (daemon)"
    assert named.actor(None) == "ci"
    assert administrator.actor("ann") == "ann"
    assert administrator.actor(None) == "local"


@pytest.mark.parametrize(
    ("name", "scopes", "expires_at"),
    [
        ("", [Scope.READ], None),
        ("daemon", [Scope.READ], None),
        ("a b", [Scope.READ], None),
        ("x" * 65, [Scope.READ], None),
        ("ann", [], None),
        ("ann", [Scope.READ], 100.0),
        ("taken", [Scope.READ], None),
    ],
)
def test_what_cannot_be_issued(tmp_path: Path, name: str, scopes: list[Scope], expires_at: float | None) -> None:
    tokens = TokenFile(tmp_path)
    issue(tokens, "taken", Scope.READ)
    with pytest.raises(TokenError):
        tokens.prepare(name, scopes, expires_at, 100.0)


def test_a_name_is_free_again_once_its_token_is_revoked(tmp_path: Path) -> None:
    tokens = TokenFile(tmp_path)
    first, _ = issue(tokens, "ann", Scope.READ)
    tokens.revoke(first, 100.0)
    second, _ = issue(tokens, "ann", Scope.READ)
    assert first != second


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sha256", '"é"'),
        ("sha256", "7"),
        ("created_at", "1" + "0" * 400),
        ("expires_at", '"soon"'),
        ("expires_at", "NaN"),
        ("revoked_at", "[]"),
        ("scopes", '["everything"]'),
    ],
)
def test_a_damaged_entry_is_no_token_and_no_bug(tmp_path: Path, field: str, value: str) -> None:
    _, secret = issue(TokenFile(tmp_path), "ann", Scope.READ)
    file = tmp_path / "tokens.json"
    [entry] = json.loads(file.read_text())["tokens"]
    body = json.dumps({**entry, field: "HERE"}).replace('"HERE"', value)
    file.write_text(f'{{"version": 1, "tokens": [{body}]}}')
    with pytest.raises(ConfigError, match=r"tokens\.json"):
        TokenFile(tmp_path).holder(secret, 100.0)


@pytest.mark.parametrize("text", ["", '{"version": 1}', "[" * 200_000, "null"])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "tokens.json").write_text(text)
    with pytest.raises(ConfigError, match=r"tokens\.json"):
        TokenFile(tmp_path).list()


def test_what_cannot_be_written_leaves_every_token_as_it_was(tmp_path: Path) -> None:
    tokens = TokenFile(tmp_path)
    first, secret = issue(tokens, "ann", Scope.READ)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, hard))
    try:
        with pytest.raises(ConfigError, match=r"cannot write the tokens to .*tokens\.json"):
            tokens.revoke(first, 100.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert tokens.holder(secret, 100.0) is not None


def test_a_local_token_that_a_crash_left_empty_is_made_anew(tmp_path: Path) -> None:
    file = tmp_path / "control.token"
    file.touch(0o600)
    with pytest.raises(ConfigError, match=r"there is no token in .*control\.token"):
        read_token(tmp_path)
    made = ensure_token(tmp_path)
    assert len(made) > 40
    assert read_token(tmp_path) == made == ensure_token(tmp_path)
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_local_token_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "control.token").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"control\.token"):
        ensure_token(tmp_path)


def test_a_draft_is_what_the_journal_says_and_nobody_holds_it_yet(tmp_path: Path) -> None:
    tokens = TokenFile(tmp_path)
    issued, token, secret = tokens.draft("ann", [Scope.OPERATE, Scope.READ], 2.0, 100.0, "bob", "on call")
    assert issued == TokenIssued(token.id, "ann", ("read", "operate"), 100.0 + 2 * 86_400, "bob", "on call")
    assert tokens.holder(secret, 100.0) is None
    tokens.add(token)
    assert tokens.holder(secret, 100.0 + 2 * 86_400 - 1) == token
    assert tokens.holder(secret, 100.0 + 2 * 86_400) is None
    assert tokens.draft("eve", [Scope.READ], None, 100.0, "bob", "r")[1].expires_at is None
    assert [path.name for path in tmp_path.iterdir()] == ["tokens.json"]
