"""The demo's traffic: support tickets to three web shops, as the chat requests their support desk sends.

Pure. A ticket is put together from phrases, so that hundreds of them are distinct and most are near-duplicates of
none; about one in twelve repeats an earlier one with another order number, as impatient customers do.

seed → tickets (endless, no text twice) → requests
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

CATEGORIES: Final = ("billing", "delivery", "product", "account")

SYSTEM: Final = (
    'Classify the support ticket into a JSON object with the keys "category" (billing, delivery, product, account) '
    'and "urgent" (true, false).'
)
QUESTION: Final = 'Ticket: "{text}"\n\nWrite the JSON object with the keys "category" and "urgent":'
"""System and user message say what is wanted without an example: what the small model makes of it is rarely valid."""

_HINT: Final = "Answer with one short line in exactly this form: "

ANSWER_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "category": {"enum": list(CATEGORIES)},
        "urgent": {"type": "boolean"},
    },
    "required": ["category", "urgent"],
    "additionalProperties": False,
}
"""What a usable answer is. It says nothing about which category is right: nobody labelled anything."""

MAX_TOKENS: Final = 32
"""The clients' limit on an answer; a valid one takes about 16."""

_REPEATS = 1 / 12
_REMEMBERED = 40
_REPEAT_END = ")"

_ITEMS = {
    "alder-books": (
        "cookbook", "atlas", "set of crime novels", "picture book", "signed first edition", "calendar",
        "travel guide", "poetry anthology", "chess handbook", "boxed trilogy", "dictionary", "songbook",
    ),
    "brook-cycles": (
        "touring saddle", "bike helmet", "rear rack", "dynamo lamp", "child seat", "folding lock", "pannier bag",
        "gravel tyre", "cargo trailer", "repair stand", "rain cape", "handlebar mirror",
    ),
    "cove-audio": (
        "turntable", "bookshelf speaker", "headphone amplifier", "studio microphone", "subwoofer", "radio alarm",
        "wireless earbuds", "cassette deck", "soundbar", "mixing desk", "record cleaner", "tone arm",
    ),
}  # fmt: skip

_PROBLEMS = {
    "billing": (
        "I was charged twice for the {item}.",
        "The invoice for order {n} shows the wrong VAT number.",
        "My refund of {euros} euros never reached my bank account.",
        "You took money for the {item} although I cancelled in time.",
        "The discount code from your newsletter was not applied to my basket.",
        "Why is there a handling fee of {euros} euros on my statement?",
        "Our accountant needs a receipt for the {item}.",
        "My card was declined, and yet the payment shows as pending.",
        "The price went up between the basket and the confirmation of order {n}.",
        "I paid by gift voucher and the full sum was still debited.",
        "A monthly membership that nobody here ordered is being collected.",
        "Please split the bill for order {n} between two companies.",
        "The instalment plan for the {item} lists one payment too many.",
    ),
    "delivery": (
        "The parcel with the {item} has not moved since {day}.",
        "Tracking says delivered, but nobody in the house has seen order {n}.",
        "The courier left the {item} out in the rain.",
        "Half of order {n} is missing from the box.",
        "You shipped to my old street instead of the new one.",
        "Customs is holding the {item} and wants a form from the sender.",
        "The driver rang once and drove off with my package.",
        "Can order {n} still be sent to a pick-up point?",
        "A stranger's {item} was in the carton that came on {day}.",
        "Express shipping was booked, yet nothing has left your warehouse.",
        "I need the {item} to arrive after {day}, since we are away.",
        "The neighbour who signed for order {n} does not exist.",
        "Two weeks have passed and the {item} is still being packed.",
    ),
    "product": (
        "The {item} arrived with a deep crack along one side.",
        "After a week the {item} stopped working altogether.",
        "Does the {item} come with a warranty outside Europe?",
        "A screw is missing from the {item}.",
        "The colour of the {item} has nothing to do with your photo.",
        "There is a burning smell whenever we use the {item}.",
        "The manual that came with the {item} is in Finnish only.",
        "Is a spare part available for a {item} bought in {year}?",
        "My {item} makes a loud clicking noise.",
        "The {item} you sent is used, with scratches and dust in every corner.",
        "Which size of {item} suits a person of {cm} centimetres?",
        "The label on the {item} and what is inside do not match.",
        "Your {item} gave my son an allergic rash.",
    ),
    "account": (
        "I cannot log in since the password reset on {day}.",
        "Somebody changed the e-mail address of my profile without asking.",
        "The confirmation code for signing in never arrives.",
        "Please delete my customer record and everything you store about me.",
        "My order history is empty, although I have bought {few} things here.",
        "How do I move my wish list with the {item} to another profile?",
        "The site locked me out after three attempts.",
        "Two customer numbers exist under my name; please merge them.",
        "I keep getting newsletters after unsubscribing on {day}.",
        "There are log-ins from abroad on my profile that were not mine.",
        "My surname changed; where can I correct it?",
        "The app signs me out whenever I put the {item} in the basket.",
        "Our team would like a shared business login with {few} seats.",
    ),
}  # fmt: skip

_CONTEXTS = (
    "Hello!", "Good morning.", "Hi there!", "Dear team:", "Good evening.", "To whom it may concern:", "", "",
    "This is my third message about this.", "I have been a customer for years.", "Quick question.",
    "Your chat was offline, so I write here.", "I am writing on behalf of my mother.", "Sorry to bother you again.",
    "Nobody picks up your phone.", "First order with you, and already trouble.",
)  # fmt: skip

_DETAILS = {
    "billing": (
        "My bank says that only you can fix it.", "The amount was taken on {day}.", "I have the statement here.",
        "It is the second time this year.", "We pay all our bills on time.", "The sum is not large, but still.",
        "Your summary in the profile shows something else.", "", "My tax return depends on it.",
    ),
    "delivery": (
        "The shipping company sends me back to you.", "It was promised for {day}.", "I have waited at home twice now.",
        "My order mail says something else.", "Your hotline only plays music.", "The depot closes early here.",
        "It is a present for my father.", "", "The same happened in spring.",
    ),
    "product": (
        "I only looked at it on {day}.", "Photos are attached.", "The rest of the order was fine.",
        "I searched your pages for an answer.", "A friend has the same one without trouble.",
        "We use it every day at work.", "The shop assistant on the phone had no idea.", "",
        "It was not cheap, after all.",
    ),
    "account": (
        "I tried two browsers and my phone.", "The help page did not help.", "This began on {day}.",
        "My mail filter is not the reason.", "The old address no longer exists.", "I use no password manager.",
        "I have a voucher there that ends soon.", "", "My wife sees the same on her computer.",
    ),
}  # fmt: skip

_ASKS = (
    "Please answer today, it cannot wait.", "No rush, whenever you find the time.", "What should I do now?",
    "I need this solved before {day}.", "Thanks for looking into it.", "Otherwise I will go to a lawyer.",
    "Kindly tell me the next step.", "This is an emergency for our business!", "Any help is welcome.",
    "Call me back on {day}, please.", "Just so that you know.", "I expect a reply within the hour.",
    "How long will that take?", "Have a nice week.", "Stop everything else and help me!", "",
    "Could somebody check, please?", "It is not pressing.",
)  # fmt: skip

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday", "the 3rd", "the 21st")


@dataclass(frozen=True, slots=True)
class Ticket:
    """One customer's message. `tenant` is the shop, `conversation` the thread it belongs to."""

    text: str
    tenant: str
    conversation: str
    subject: str

    @property
    def request(self) -> dict[str, Any]:
        """The OpenAI chat request that the support desk sends for it."""
        question = QUESTION.format(text=self.text)
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
        return {"model": "assistant", "messages": messages, "max_tokens": MAX_TOKENS}


def hints() -> dict[str, str]:
    """Exploration by strategy name: one example per category, so that none of them is preferred.

    Clients never send these; training makes their effect the model's own.
    """
    examples = {c: json.dumps({"category": c, "urgent": place % 2 == 0}) for place, c in enumerate(CATEGORIES)}
    return {f"shown-{category}": _HINT + example for category, example in examples.items()}


def tickets(seed: int) -> Iterator[Ticket]:
    """Endless traffic; the same seed gives the same tickets, and no text comes twice."""
    rng = random.Random(seed)
    sent: set[str] = set()
    recent: list[Ticket] = []
    while True:
        number = len(sent) + 1
        ticket = _repeat(rng, recent) if recent and rng.random() < _REPEATS else _new(rng, number)
        if ticket.text in sent:
            continue
        sent.add(ticket.text)
        if not ticket.text.endswith(_REPEAT_END):
            recent = [*recent[1 - _REMEMBERED :], ticket]
        yield ticket


def _new(rng: random.Random, number: int) -> Ticket:
    tenant = rng.choice(tuple(_ITEMS))
    kind = rng.choice(tuple(_PROBLEMS))
    problem, detail, ask = rng.choice(_PROBLEMS[kind]), rng.choice(_DETAILS[kind]), rng.choice(_ASKS)
    parts = [rng.choice(_CONTEXTS), problem, detail, ask]
    if rng.random() < 0.2:
        parts = [parts[0], detail, problem, ask]
    text = " ".join(part for part in parts if part)
    text = text.format(item=rng.choice(_ITEMS[tenant]), day=rng.choice(_DAYS), **_numbers(rng))
    return Ticket(text, tenant, f"c{number:05d}", f"{tenant}-customer-{rng.randint(1, 400)}")


def _numbers(rng: random.Random) -> dict[str, int]:
    ranges = {"n": (1000, 9999), "euros": (3, 90), "few": (3, 30), "year": (2015, 2025), "cm": (150, 199)}
    return {name: rng.randint(low, high) for name, (low, high) in ranges.items()}


def _repeat(rng: random.Random, recent: list[Ticket]) -> Ticket:
    """An earlier ticket again, with a number that tells it apart; the clusters of the buffer see through that."""
    earlier = rng.choice(recent)
    return replace(earlier, text=f"{earlier.text} (Reminder {rng.randint(1000, 9999)}{_REPEAT_END}")
