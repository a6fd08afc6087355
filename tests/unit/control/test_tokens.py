"""Tokens: secrets are nowhere but with their holders, scopes include what they should and no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tao_daemon.control.auth import Authenticator, ensure_token
from tao_daemon.control.scopes import Scope, effective
from tao_daemon.control.tokens import TokenError, TokenFile
from tao_daemon.domain.errors import ConfigError


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


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokens.json").write_text('{"version": 1}')
    with pytest.raises(ConfigError, match=r"tokens\.json"):
        TokenFile(tmp_path).list()
