"""May this request be answered? The token, the address's failures and the subject's minute, in the order of their cost.

An address counts only what came without a good token, so a team behind one address is never held up by its size.
Once an address has used up its failures, a token that was good before still passes, and anything else is refused
unread: guessing costs us no cryptography.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from fastapi import Request

from mt5_actor_windows.admission import network_of
from serve_app.auth import Caller, TokenVerifier
from serve_app.client_address import ClientAddress
from serve_app.problems import Problem, unauthorized
from serve_app.rate_limit import Budget, RateLimiter

MOST_NETWORKS = 10_000  # remembered at a time; whoever has more of them is not stopped by a list


@dataclass(frozen=True)
class Visit:
    """A request that may be answered: who asks, and what is left of the minute."""

    caller: Caller
    budget: Budget


class FailureBuckets:
    """Per network a bucket of `per_minute` failures that fills up again evenly. `now`: seconds that never go back."""

    def __init__(
        self, per_minute: int, *, now: Callable[[], float] = time.monotonic, most_networks: int = MOST_NETWORKS
    ) -> None:
        self.per_minute = per_minute
        self._now = now
        self._most_networks = most_networks
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # network -> failures left, and when

    def check(self, network: str) -> None:
        """Problem 429 with Retry-After when the bucket is empty."""
        left = self._left_now(network)
        if left < 1:
            wait = max(1, math.ceil((1 - left) * 60 / self.per_minute))
            raise Problem(
                429,
                "too-many-failures",
                "Too many requests without a good token",
                f"Your address may send {self.per_minute} requests a minute without a good token.",
                hint="Wait as long as Retry-After says. Behind a proxy: is it in the setting trusted_proxies?",
                headers={"Retry-After": str(wait)},
            )

    def count(self, network: str) -> None:
        self._left[network] = (self._left_now(network) - 1, self._now())
        self._left.move_to_end(network)
        while len(self._left) > self._most_networks:
            self._left.popitem(last=False)

    def _left_now(self, network: str) -> float:
        left, since = self._left.get(network, (float(self.per_minute), self._now()))
        return min(float(self.per_minute), left + (self._now() - since) * self.per_minute / 60)


class Admission:
    """Lets a request in when its token is good, has the scope, and its subject's minute is not used up."""

    def __init__(
        self, verifier: TokenVerifier, limiter: RateLimiter, addresses: ClientAddress, failures: FailureBuckets
    ) -> None:
        self.verifier = verifier
        self._limiter = limiter
        self._addresses = addresses
        self._failures = failures

    def admit_known(self, authorization: bytes, scope: str) -> Visit | None:
        """A visit that costs neither cryptography nor a question to anybody else; None when it has to be admitted."""
        caller = self.verifier.recall(authorization.decode("latin-1"))
        if caller is None or scope not in caller.scopes:
            return None
        budget = self._limiter.take_held(caller.subject)
        return None if budget is None else Visit(caller, budget)

    async def admit(self, request: Request, scope: str) -> Visit:
        """Problem 401, 403 or 429; 503 while no token, or no request, can be checked."""
        sent = [value for name, value in request.scope["headers"] if name == b"authorization"]
        authorization = sent[0].decode("latin-1") if sent else None
        caller = self.verifier.recall(authorization) if len(sent) == 1 else None
        if caller is None:
            caller = self._examine(request, authorization, len(sent))
        budget = await self._limiter.take(caller.subject)  # a refused scope counts, too
        request.scope["budget"] = budget
        return Visit(caller.require(scope), budget)

    def _examine(self, request: Request, authorization: str | None, times: int) -> Caller:
        network = network_of(self._addresses.of(request.scope))
        self._failures.check(network)
        try:
            if times > 1:  # a proxy and we might read different ones
                raise unauthorized("The Authorization header was sent more than once.", error="invalid_request")
            return self.verifier.from_header(authorization)
        except Problem as problem:
            if problem.status == 401:
                self._failures.count(network)
            raise
