"""Structured extraction: an order by mail → JSON with three fields. Pure.

The reward knows no right answer: the schema says what each field looks like, and a function of the user's asks that
every value stands word for word in the mail. Most mails hold a second value of the same kind (another reference,
another person) that meets both and is wrong.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.learning.tasks.task import Item, Split, Task, chat, share
from tao_daemon.config.sampling import Strategy
from tao_daemon.config.scorers import JsonSchemaScorer, PythonScorer

MAX_TOKENS = 48
_SCHEMA = Path(__file__).with_name("extraction.schema.json")

_SYSTEM = 'Extract the data of the mail into a JSON object with the keys "name", "city" and "code".'
_ASK = 'Mail: "{mail}"\n\nWrite only the JSON object {{"name": ..., "city": ..., "code": ...}}'

_FIRST = (
    "Anna", "Boris", "Clara", "David", "Elena", "Farid", "Greta", "Henry", "Irina", "James", "Karin", "Louis",
    "Maria", "Nadia", "Oscar", "Paula", "Quinn", "Robert", "Sofia", "Tomas", "Ulla", "Victor", "Wanda", "Yusuf",
)  # fmt: skip
_LAST = (
    "Berg", "Costa", "Dietrich", "Evans", "Fischer", "Garcia", "Hansen", "Ivanov", "Jansen", "Keller", "Lopez",
    "Miller", "Novak", "Olsen", "Peters", "Quist", "Rossi", "Schmidt", "Turner", "Ulrich", "Vogel", "Weber", "Young",
    "Zimmer",
)  # fmt: skip
_CITIES = (
    "Oslo", "Lisbon", "Vienna", "Dublin", "Madrid", "Prague", "Warsaw", "Athens", "Berlin", "Zurich", "Geneva",
    "Turin", "Lyon", "Porto", "Ghent", "Graz", "Krakow", "Leeds", "Malmo", "Nantes", "Riga", "Sofia", "Tallinn",
    "Utrecht",
)  # fmt: skip
_GOODS = (
    "desk lamps", "oak chairs", "bike helmets", "tea cups", "wool blankets", "wall clocks", "garden tools",
    "rain coats", "steel pans", "paper rolls", "glass bowls", "radio sets", "travel bags", "shelf boards",
    "candle sets", "door mats",
)  # fmt: skip
_MAILS = (
    "Hello, this is {name} from {city}. I would like {quantity} {goods}, my order is {code}.",
    "Please send {quantity} {goods} to {city}. Order {code}. Regards, {name}",
    "{name} here. Order {code} is still open: {quantity} {goods}, to be delivered to {city}.",
    "Good morning, about order {code}: we need {quantity} {goods} in {city}. Thank you, {name}",
    "My name is {name} and I live in {city}. I ordered {quantity} {goods} under number {code}.",
    "Order {code}, {quantity} {goods}. Ship them to our shop in {city}, please. {name}",
)
_EXTRAS = (
    "",
    "",
    " It replaces the old order {other}.",
    " Do not mix it up with {other}, please.",
    " My colleague {person} knows about it.",
)


def grounded(request: Mapping[str, Any], answer: str) -> float:
    """The share of the answer's values that stand word for word in the mail; 0 for what is no JSON object."""
    mail = str(request["messages"][-1]["content"]).partition("\n\n")[0]
    found = _object(answer)
    if not found:
        return 0.0
    return sum(isinstance(value, str | int) and str(value) in mail for value in found.values()) / len(found)


def _object(answer: str) -> dict[str, Any]:
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _truth(item: Item, answer: str) -> float:
    """The share of fields that are exactly right, in an answer that is a JSON object with these keys alone."""
    found, gold = _object(answer), item.facts
    if set(found) != set(gold):
        return 0.0
    return sum(str(found[key]).strip() == str(gold[key]) for key in gold) / len(gold)


def _draw(rng: random.Random, split: Split) -> Item:
    first, last = share(_FIRST, split), share(_LAST, split)
    facts = {
        "name": f"{rng.choice(first)} {rng.choice(last)}",
        "city": rng.choice(share(_CITIES, split)),
        "code": _code(rng, split),
    }
    words = {
        "quantity": rng.randint(2, 60),
        "other": _code(rng, split),
        "person": f"{rng.choice(first)} {rng.choice(last)}",
    }
    text = rng.choice(_MAILS) + rng.choice(_EXTRAS)
    mail = text.format(**facts, **words, goods=rng.choice(share(_GOODS, split)))
    return Item(chat(_SYSTEM, _ASK.format(mail=mail), MAX_TOKENS), json.dumps(facts), facts)


def _code(rng: random.Random, split: Split) -> str:
    number = 4 * rng.randint(250, 2499) + rng.choice(split.value)
    return f"{rng.choice('ABCDEFGH')}{rng.choice('KLMNPRST')}-{number}"


TASK = Task(
    name="extraction",
    title="Structured extraction",
    what="A mail to a shop becomes a JSON object with name, city and order code.",
    max_tokens=MAX_TOKENS,
    draw=_draw,
    truth=_truth,
    scorers=(
        JsonSchemaScorer(name="schema", type="json_schema", schema_file=_SCHEMA),
        PythonScorer(name="grounded", type="python", callable=f"{__name__}:grounded"),
    ),
    strategies=(
        Strategy(name="structured", type="structured", schema_file=_SCHEMA, completions=2, temperature=0.6),
        Strategy(name="shown", type="few_shot", completions=2, examples=3, temperature=0.8),
    ),
    reward_is="the schema's patterns and whether each value stands in the mail; not whether it is the right one",
)
