"""What the tuning rules see of one launch: facts of machines, placement, network. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hpctrain.facts import Facts, HostFacts


@dataclass(frozen=True, slots=True)
class Situation:
    """One launch, before anything is decided.

    Args:
        host_names: the hosts that get ranks, in order.
        local_ranks: ranks on each of them, in the same order.
        uses_gpus: whether ranks compute on GPUs.
        subnet: the network chosen for MPI's traffic, if any, and the fact behind the choice.
    """

    facts: Facts
    host_names: tuple[str, ...]
    local_ranks: tuple[int, ...]
    uses_gpus: bool
    subnet: str | None
    subnet_fact: str

    @property
    def is_remote(self) -> bool:
        return any(not self.facts.is_launcher(name) for name in self.host_names)

    @property
    def exchanges_on_gpus(self) -> bool:
        """Whether NCCL carries gradients between hosts."""
        return self.uses_gpus and self.is_remote

    def known_hosts(self) -> list[HostFacts]:
        return [facts for name in self.host_names if (facts := self.facts.of(name)) is not None]

    def unknown_hosts(self) -> list[str]:
        """Return the hosts that were never asked what they are."""
        return [name for name in self.host_names if self.facts.of(name) is None]

    def all_hosts(self, test: Callable[[HostFacts], bool]) -> bool:
        """Return whether every host is known and passes."""
        known = self.known_hosts()
        return len(known) == len(self.host_names) and all(test(facts) for facts in known)

    def same_on_all(self, look: Callable[[HostFacts], tuple[str, ...]]) -> tuple[str, ...]:
        """Return what every host has alike; empty where one differs or was never asked."""
        known = self.known_hosts()
        answers = {look(facts) for facts in known}
        return answers.pop() if len(answers) == 1 and not self.unknown_hosts() else ()

    def describe_absence(self, absence: str) -> str:
        """Word an absence: a host that was never asked may have what others lack."""
        unknown = self.unknown_hosts()
        return f"{absence} known; {len(unknown)} hosts were never asked" if unknown else absence
