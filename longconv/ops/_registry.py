"""The sole chooser of backends.

An op owns one :class:`Backends`: its backends, best first. ``choose`` takes the first that supports a call when the
caller says ``"auto"``, and the one that is named otherwise; a named backend that can't serve the call is an error
that gives the reason.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from longconv._checks import check_choice

logger = logging.getLogger("longconv")


def _always(*_: Any) -> None:
    return None


@dataclass(frozen=True)
class Backend:
    """One implementation of an op.

    Attributes:
        name: what the caller writes in ``backend=``.
        forward: the computation; takes the op's arguments but for ``backend``.
        backward: the gradients, with arguments that the op's module states; None where ``forward`` alone exists.
        available: None, or the reason why this machine can't run the backend at all.
        supports: None, or the reason why the backend can't serve a call; takes ``forward``'s arguments.
        slower: None, or the reason why a backend after it is faster for a call, so that ``"auto"`` passes it over;
            takes ``forward``'s arguments.
        auto: whether ``backend="auto"`` may take it.
        bind: None, or a function of ``forward``'s arguments that returns ``forward`` for tensors that are all laid out
            like these, with everything decided but their addresses; or None where they have to be copied first.
    """

    name: str
    forward: Callable[..., Any]
    backward: Callable[..., Any] | None = None
    available: Callable[[], str | None] = _always
    supports: Callable[..., str | None] = _always
    slower: Callable[..., str | None] = _always
    auto: bool = True
    bind: Callable[..., Callable[..., Any] | None] | None = None

    def refusal(self, *call: Any) -> str | None:
        """None if the backend can serve this call, else the reason why not."""
        return self.available() or self.supports(*call)


@dataclass
class Backends:
    """The backends of one op, best first.

    >>> gpu = Backend("gpu", abs, available=lambda: "no GPU")
    >>> backends = Backends("double", [gpu, Backend("plain", lambda x: 2 * x)])
    >>> backends.choose("auto", 3).forward(3)
    6
    >>> backends.choose("gpu", 3)
    Traceback (most recent call last):
        ...
    ValueError: double: backend 'gpu' can't serve this call: no GPU
    """

    op: str
    backends: list[Backend]
    _names: tuple[str, ...] = field(init=False, repr=False)
    _logged: set[tuple[str, ...]] = field(default_factory=set, repr=False)

    def __post_init__(self) -> None:
        ALL[self.op] = self
        self._names = ("auto", *(backend.name for backend in self.backends))

    def names(self) -> tuple[str, ...]:
        """The names that ``backend=`` accepts, ``"auto"`` first."""
        return self._names

    def choose(self, name: str, *call: Any) -> Backend:
        """The backend for a call: the named one, or for ``"auto"`` the first that serves it and isn't slower.

        Raises:
            ValueError: no such backend, or it can't serve the call (with the reason).
        """
        if name != "auto":
            check_choice(f"{self.op}: backend", name, self.names())
            backend = next(backend for backend in self.backends if backend.name == name)
            if reason := backend.refusal(*call):
                raise ValueError(f"{self.op}: backend {name!r} can't serve this call: {reason}")
            return backend
        refused: dict[str, str] = {}
        for backend in self.backends:
            if not backend.auto:
                continue
            reason = backend.refusal(*call) or backend.slower(*call)
            if reason is None:
                self._log(backend.name, refused)
                return backend
            refused[backend.name] = reason
        raise ValueError(f"{self.op}: no backend can serve this call ({_joined(refused)})")

    def bind(self, *call_and_name: Any) -> Callable[..., Any] | None:
        """The short way for calls laid out like this one, if its backend, which the last argument names, has one."""
        *call, name = call_and_name
        bind = self.choose(name, *call).bind
        return None if bind is None else bind(*call)

    def status(self) -> dict[str, str | None]:
        """For every backend None if this machine can run it, else the reason why not."""
        return {backend.name: backend.available() for backend in self.backends}

    def _log(self, name: str, refused: dict[str, str]) -> None:
        """Say it once for each backend and those refused before it, with the reasons of that first call."""
        key = (name, *refused)
        if key not in self._logged:
            self._logged.add(key)
            logger.info("%s: backend %s%s", self.op, name, f" (refused: {_joined(refused)})" if refused else "")


def _joined(refused: dict[str, str]) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in refused.items())


ALL: dict[str, Backends] = {}
"""Every op's backends by the op's name; filled as the ops are imported."""
