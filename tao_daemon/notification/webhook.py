"""One event, one POST: a message for Slack, or a CloudEvent in structured mode. Redirects are not followed."""

from __future__ import annotations

import json
from http import HTTPStatus

import aiohttp

from tao_daemon.config import Webhook
from tao_daemon.notification.cloud_event import CONTENT_TYPE, CloudEvent, encode, signature
from tao_daemon.notification.sinks import Refused, Undelivered
from tao_daemon.notification.slack import slack_message

SIGNATURE_HEADER = "X-Tao-Signature"
_PASSING = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
_LONGEST_PAUSE = 300.0


class WebhookSink:
    """A `Sink` for one [[events.webhooks]] entry."""

    def __init__(self, webhook: Webhook, session: aiohttp.ClientSession) -> None:
        self.name = webhook.name
        self._webhook = webhook
        self._session = session
        self._timeout = aiohttp.ClientTimeout(total=webhook.timeout_seconds)

    async def deliver(self, event: CloudEvent) -> None:
        body, headers = self._request(event)
        url = self._webhook.url.get_secret_value()
        try:
            async with self._session.post(
                url, data=body, headers=headers, timeout=self._timeout, allow_redirects=False
            ) as response:
                status, asked = response.status, response.headers.get("Retry-After", "")
        # The text of a client error may hold the address.
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Undelivered(f"webhook {self.name} does not answer ({type(error).__name__})") from None
        if status < HTTPStatus.MULTIPLE_CHOICES:
            return
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _PASSING:
            pause = min(float(asked), _LONGEST_PAUSE) if asked.isdecimal() else None
            raise Undelivered(f"webhook {self.name} answers {status}", pause)
        raise Refused(f"webhook {self.name} answers {status}")

    async def close(self) -> None:
        """The session belongs to whoever made it."""

    def _request(self, event: CloudEvent) -> tuple[bytes, dict[str, str]]:
        if self._webhook.format == "slack":
            return json.dumps(slack_message(event)).encode(), {"Content-Type": "application/json; charset=utf-8"}
        body, headers = encode(event), {"Content-Type": CONTENT_TYPE}
        if self._webhook.secret is not None:
            headers[SIGNATURE_HEADER] = signature(body, self._webhook.secret.get_secret_value())
        return body, headers
