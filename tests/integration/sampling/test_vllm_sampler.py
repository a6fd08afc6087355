"""The sampler over real HTTP: what it asks, what it makes of good answers, and how it takes bad ones."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest
from sampling_types import MakePrompts, MakeSampler

from tao_daemon.domain.completion import PLAIN, REFUSED, Answer
from tao_daemon.domain.errors import UpstreamError, UpstreamTimeout
from tao_daemon.domain.ports import Sampler
