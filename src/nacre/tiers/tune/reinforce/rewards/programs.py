"""The reward of passing tests: the code of an answer is run, with the tests after it, in a process of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from nacre.errors import ConfigError, DataError
from nacre.tiers.tune.reinforce.config import Programs
from nacre.tiers.tune.reinforce.sandbox import Limits, Sandbox

if TYPE_CHECKING:
    from nacre.recipe.stage import Work
    from nacre.tiers.tune.reinforce.rewards.catalogue import Answer

_FENCED = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)


def code_of(text: str) -> str:
    """The last fenced block of an answer, or all of it where there is none."""
    blocks = _FENCED.findall(text)
    return blocks[-1] if blocks else text


class TestsReward:
    """See `Programs`. What the sandbox does not prevent on this machine is told when it is made."""

    needs, cut = "tests", 0.0

    def __init__(self, settings: Programs, work: Work) -> None:
        limits = Limits(settings.timeout_s, settings.cpu_s, settings.memory_mib, settings.file_mib)
        self.sandbox, self.parallel = Sandbox(limits), settings.parallel
        self.sandbox.check()
        work.progress.note("the sandbox of tests", prevents=self.sandbox.prevents, allows=self.sandbox.allows)
        if settings.isolated and not self.sandbox.offline:
            raise ConfigError(
                "tests: the network cannot be taken from the programs that models write on this machine",
                remedy="run in a container without a network and set rewards.tests.isolated: false, or allow user "
                "namespaces (sysctl kernel.unprivileged_userns_clone=1)",
            )

    def __call__(self, answers: Sequence[Answer]) -> list[float]:
        asked = [(code_of(one.text), _tests(one)) for one in answers]
        different = list(dict.fromkeys(asked))
        with ThreadPoolExecutor(self.parallel) as pool:
            shares = dict(zip(different, pool.map(lambda one: self._share(*one), different), strict=True))
        return [shares[one] for one in asked]

    def _share(self, code: str, tests: tuple[str, ...]) -> float:
        return self.sandbox.run(code, tests).passed / len(tests)


def _tests(answer: Answer) -> tuple[str, ...]:
    tests = answer.row["tests"]
    listed = [tests] if isinstance(tests, str) else tests
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        raise DataError("the field 'tests' is neither text nor a list of texts", remedy="write Python statements")
    return tuple(listed)
