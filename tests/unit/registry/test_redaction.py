"""An adapter keeps its name when probes are taken out of its fingerprint; nothing else may change that way."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tao_daemon.domain.adapter import Lineage
from tao_daemon.registry.manifest import Manifest, manifest_from_json, manifest_to_json

LINEAGE = Lineage(7, None, "/base", "d" * 64, ("a" * 32,), ("json",), "c" * 64)
MANIFEST = Manifest(5.0, 8, LINEAGE, {"adapter_model.safetensors": "1" * 64, "fingerprint.json": "2" * 64})
REDACTED = replace(MANIFEST, redacted={"fingerprint.json": ("3" * 64, "4" * 64)})


def test_the_name_is_the_same_and_every_state_of_the_file_is_known() -> None:
    assert REDACTED.name == MANIFEST.name
    for digest, expected in (("2", True), ("3", True), ("4", True), ("5", False)):
        assert REDACTED.accepts("fingerprint.json", digest * 64) is expected
    assert not MANIFEST.accepts("fingerprint.json", "3" * 64)
    assert not REDACTED.accepts("adapter_model.safetensors", "3" * 64)
    assert not REDACTED.accepts("absent.json", "3" * 64)


def test_it_survives_the_file_and_is_absent_where_nothing_was_erased() -> None:
    assert manifest_from_json(json.loads(json.dumps(manifest_to_json(REDACTED)))) == REDACTED
    assert "redacted" not in manifest_to_json(MANIFEST)
    assert manifest_from_json(manifest_to_json(MANIFEST)) == MANIFEST


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json", "manifest.json"])
def test_weights_cannot_be_redacted(name: str) -> None:
    value = {**manifest_to_json(MANIFEST), "redacted": {name: ["9" * 64]}}
    with pytest.raises(ValueError, match=r"cannot have been redacted; only fingerprint\.json can"):
        manifest_from_json(value)


@pytest.mark.parametrize("redacted", [3, [], {"fingerprint.json": 3}])
def test_what_is_no_redaction_is_no_manifest(redacted: object) -> None:
    with pytest.raises(ValueError, match="not a manifest"):
        manifest_from_json({**manifest_to_json(MANIFEST), "redacted": redacted})
