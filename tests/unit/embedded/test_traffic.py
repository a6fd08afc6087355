"""The demo's tickets: distinct, varied enough for a split that means something, and requests that intake takes."""

from __future__ import annotations

import json
import string
from itertools import islice

import pytest

from tao_daemon.buffer.clusters import ClusterIndex
from tao_daemon.buffer.signatures import fingerprint
from tao_daemon.domain.prompt import Prompt, Source, Split
from tao_daemon.embedded.traffic import ANSWER_SCHEMA, CATEGORIES, MAX_TOKENS, Ticket, hints, tickets
from tao_daemon.intake.decoding import decode
from tao_daemon.scoring.json_verifier import JsonVerifier

FIRST = 320


def sent(seed: int, count: int = FIRST) -> list[Ticket]:
    return list(islice(tickets(seed), count))


def received(ticket: Ticket, offset: int) -> Prompt:
    headers = [("tenant", ticket.tenant.encode()), ("conversation", ticket.conversation.encode())]
    value = json.dumps(ticket.request).encode()
    return decode(value, headers, Source("prompts", 0, offset), 0.0, max_bytes=65_536)


@pytest.mark.parametrize("seed", range(3))
def test_hundreds_of_distinct_tickets_form_well_over_150_clusters_in_both_splits(seed: int) -> None:
    prompts = [received(ticket, offset) for offset, ticket in enumerate(sent(seed))]
    index = ClusterIndex(similarity=0.7, held_out_fraction=0.3, salt="")
    assignments = index.assign([fingerprint(prompt) for prompt in prompts])
    assert len({prompt.user_text for prompt in prompts}) == FIRST >= 300
    assert 200 <= len(index) < FIRST, "varied, and yet with near-duplicates"
    held_out = {a.cluster for a in assignments if a.split is Split.HELD_OUT}
    train = {a.cluster for a in assignments if a.split is Split.TRAIN}
    assert len(held_out) >= 60, "enough for the demo's gate"
    assert len(train) >= 100, "enough for several rounds"


def test_the_same_seed_gives_the_same_traffic_and_another_one_other_traffic() -> None:
    assert sent(1, 50) == sent(1, 50)
    assert sent(1, 50) != sent(2, 50)


def test_no_text_comes_twice_however_long_it_runs() -> None:
    texts = [ticket.text for ticket in sent(3, 5000)]
    assert len(set(texts)) == len(texts)


def test_repeats_stay_in_their_conversation() -> None:
    conversations = [ticket.conversation for ticket in sent(4)]
    assert 5 < FIRST - len(set(conversations)) < FIRST / 4


def test_every_shop_and_every_placeholder_is_filled() -> None:
    batch = sent(5, 2000)
    shops = {ticket.tenant: sum(t.tenant == ticket.tenant for t in batch) for ticket in batch[:50]}
    assert len(shops) == 3
    assert max(shops.values()) < len(batch) / 2
    for ticket in batch:
        assert not set("{}") & set(ticket.text)
        assert ticket.text[0] in string.ascii_uppercase
        assert "  " not in ticket.text
        assert len(ticket.text.split()) <= 45


def test_hints_show_valid_answers_and_prefer_no_category() -> None:
    verifier = JsonVerifier(ANSWER_SCHEMA, timeout_seconds=5.0)
    shown = [instruction[instruction.index("{") :] for instruction in hints().values()]
    assert [verifier.check(example) for example in shown] == [1.0] * len(CATEGORIES)
    assert {json.loads(example)["category"] for example in shown} == set(CATEGORIES)
    assert {json.loads(example)["urgent"] for example in shown} == {True, False}


def test_clients_see_no_hint() -> None:
    (ticket,) = sent(6, 1)
    asked = json.dumps(ticket.request)
    assert not any(instruction in asked for instruction in hints().values())
    assert ticket.request["max_tokens"] == MAX_TOKENS
