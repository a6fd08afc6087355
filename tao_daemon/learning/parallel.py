"""The processes that share a training, as one of them sees the others.

Every process holds all weights, computes its share of every step's groups, and takes the same step: gradients and
sums go through all-reduce, which gives every process the same numbers. Processes of one host meet through a file,
over gloo on a CPU (loopback only) and NCCL on GPUs. Every collective has a deadline.

meet → (mine → sum) at every step → part
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from tao_daemon.learning.place import PeerLost, Place

COLLECTIVE_SECONDS = 600.0
"""The slowest process may be so far behind the fastest; also the longest that loading may differ."""
T = TypeVar("T")


class Ranks(Protocol):
    """The processes of one training. All of them call the same methods in the same order."""

    @property
    def place(self) -> Place: ...

    def mine(self, items: Sequence[T]) -> list[T]:
        """This process's share: every n-th item."""
        ...

    def sum(self, values: Sequence[float]) -> list[float]:
        """Elementwise over all processes, the same everywhere. Raises PeerLost."""
        ...

    def sum_tensor(self, values_N: Tensor) -> Tensor:
        """Elementwise over all processes, the same everywhere. Raises PeerLost."""
        ...

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Replace every gradient by its sum over all processes; none counts as 0. Raises PeerLost."""
        ...

    def chosen(self, text: str) -> str:
        """What the first process says. Raises PeerLost."""
        ...


class Alone:
    """A training in one process."""

    place = Place()

    def mine(self, items: Sequence[T]) -> list[T]:
        return list(items)

    def sum(self, values: Sequence[float]) -> list[float]:
        return list(values)

    def sum_tensor(self, values_N: Tensor) -> Tensor:
        return values_N

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        pass

    def chosen(self, text: str) -> str:
        return text


ALONE = Alone()


class Together:
    """One of several processes."""

    def __init__(self, place: Place, store: Any) -> None:
        self._place, self._store = place, store
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._asked = 0

    @property
    def place(self) -> Place:
        return self._place

    def mine(self, items: Sequence[T]) -> list[T]:
        return list(items[self._place.rank :: self._place.count])

    def sum(self, values: Sequence[float]) -> list[float]:
        summed = self.sum_tensor(torch.tensor(values, dtype=torch.float64, device=self._device))
        return [float(value) for value in summed]

    def sum_tensor(self, values_N: Tensor) -> Tensor:
        with _peers():
            dist.all_reduce(values_N)
        return values_N

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        summed = self.sum_tensor(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, part in zip(gradients, summed.split_with_sizes([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def chosen(self, text: str) -> str:
        key = f"chosen/{self._asked}"
        self._asked += 1
        with _peers():
            if self._place.rank == 0:
                self._store.set(key, text)
                return text
            return str(self._store.get(key).decode("utf-8"))


@contextmanager
def meet(place: Place, meeting: Path) -> Iterator[Ranks]:
    """Join the others at a file that none but they know. Raises PeerLost when they do not come."""
    if place.count == 1:
        yield ALONE
        return
    cuda = torch.cuda.is_available()
    if not cuda:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    deadline = timedelta(seconds=COLLECTIVE_SECONDS)
    with _peers():
        store = dist.FileStore(str(meeting), place.count)  # type: ignore[attr-defined]
        store.set_timeout(deadline)
        dist.init_process_group(
            "nccl" if cuda else "gloo", store=store, rank=place.rank, world_size=place.count, timeout=deadline
        )
    try:
        yield Together(place, store)
    finally:
        dist.destroy_process_group()


@contextmanager
def _peers() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        first = (str(error).splitlines() or [""])[0]
        raise PeerLost(f"a process of the training ended or does not answer ({first[:200]})") from None
