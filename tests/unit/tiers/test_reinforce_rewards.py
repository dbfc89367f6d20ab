"""Rewards: what each gives, what a cut answer gets, and that tests of programs run where they do little harm."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from reinforce_kit import chatters, model, prompts, rollouts, run, tokenizer

from nacre.errors import ConfigError, DataError, TrainingError
from nacre.kernel import hf
from nacre.lineage.graph import LICENCE_STOPS
from nacre.lineage.record import RELATIONS
from nacre.recipe.catalogue import find
from nacre.recipe.stage import Work
from nacre.tiers.tune.reinforce.config import Exact, Format, Length, Number, Programs, RewardsConfig
from nacre.tiers.tune.reinforce.rewards.catalogue import REWARDS, Answer, Rewards
from nacre.tiers.tune.reinforce.rewards.matching import last_number
from nacre.tiers.tune.reinforce.rewards.programs import code_of
from nacre.tiers.tune.reinforce.sandbox import Limits, Sandbox
from nacre.train.objectives.reward import LABELS


def answer(text: str, tokens: int = 3, cut: bool = False, **row: Any) -> Answer:
    return Answer(({"role": "user", "content": "?"},), text, row, tokens, cut)


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work({}, tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so 3 and 4 make 7.", "7"), ("1,234,567 people", "1234567"), ("-5", "-5"), ("8-5", "5"), ("= -5", "-5"),
        ("−12", "-12"), ("共３７元", "37"), ("答案是 ４２。", "42"), ("3.50", "3.5"), ("#### 18", "18"),
        ("1,2", "2"), ("v1.2.3", "1.2"), ("1e3", "3"),
    ],
)  # fmt: skip
def test_the_last_number_of_a_text(text: str, number: str) -> None:
    from decimal import Decimal

    assert last_number(text) == Decimal(number)


def test_a_text_without_a_number_has_none() -> None:
    assert last_number("none, 无") is None


def test_what_each_reward_gives(work: Work) -> None:
    rewards = Rewards(
        RewardsConfig(Exact(2.0), Number(), Format(r"<b>.*</b>", 0.5), length=Length(10, 4, weight=0.1)), work
    )
    assert rewards.needs == {"expected": "number"}
    found = rewards(
        [
            answer(" 7 ", expected="7"),
            answer("<b>3 + 4\n= 7.0</b>", 8, expected=["x", "7"]),
            answer("8", 10, expected="7"),
        ]
    )
    assert [parts for _, parts in found] == [
        {"exact": 1, "number": 1, "format": 0, "length": 0},
        {"exact": 0, "number": 1, "format": 1, "length": -0.5},
        {"exact": 0, "number": 0, "format": 0, "length": -1},
    ]
    assert [total for total, _ in found] == pytest.approx([3.0, 1.45, -0.1])


def test_an_answer_that_was_cut_earns_nothing_however_right_it_is(work: Work) -> None:
    rewards = Rewards(RewardsConfig(Exact(), Number(), Format(".*"), length=Length(10, 4)), work)
    [(total, parts)] = rewards([answer("7", 2, cut=True, expected="7")])
    assert parts == {"exact": 0, "number": 0, "format": 0, "length": -1}
    assert total == -1


def test_every_reward_has_its_settings_and_the_other_way_round() -> None:
    from dataclasses import fields

    assert [one.name for one in fields(RewardsConfig)] == sorted(REWARDS, key=[*vars(RewardsConfig(Exact()))].index)


# --- a reward model


def test_a_reward_model_of_its_own_vocabulary_is_what_is_climbed(tmp_path: Path) -> None:
    judge = chatters().with_head("classify", labels=LABELS, pooling="last", generator=torch.Generator().manual_seed(1))
    judge.config = judge.config.replace(pad_id=tokenizer().pad_id)
    hf.save(judge, tmp_path / "judge")
    tokenizer().save(tmp_path / "judge")
    inputs = {"model": model(tmp_path / "m"), "data": prompts(tmp_path / "d"), "reward_model": tmp_path / "judge"}
    run(tmp_path / "a", inputs, rewards={"model": {"clip": 0.4}}, loop={"iterations": 2})
    values = [line["parts"]["model"] for line in rollouts(tmp_path / "a")]
    assert len(set(values)) > 10
    assert max(map(abs, values)) <= 0.4
    del inputs["reward_model"]
    with pytest.raises(ConfigError, match="no reward model is given"):
        run(tmp_path / "b", inputs, rewards={"model": {}})
    with pytest.raises(ConfigError, match="nothing is rewarded by it"):
        run(tmp_path / "b", inputs | {"reward_model": tmp_path / "judge"})
    with pytest.raises(ConfigError, match="gives answers no reward"):
        run(tmp_path / "c", inputs | {"reward_model": inputs["model"]}, rewards={"model": {}})


@pytest.mark.parametrize("name", ["tune.grpo", "tune.ppo"])
def test_a_reward_model_stands_in_the_lineage_and_its_licence_reaches_what_it_taught(name: str) -> None:
    relation = find(name).inputs["reward_model"].relation
    assert relation == "aligned_with"
    assert relation in RELATIONS
    assert relation not in LICENCE_STOPS


# --- programs

# The kernel's own word: landlock_create_ruleset(NULL, 0, LANDLOCK_CREATE_RULESET_VERSION), the same call everywhere.
LANDLOCK = sys.platform == "linux" and ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1) >= 3
shuts = pytest.mark.skipif(not LANDLOCK, reason="files are shut by Landlock, which this kernel lacks (Linux 6.2)")
ADDS = "def add(a, b):\n    return a + b"


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    found = Sandbox(Limits(timeout_s=20, cpu_s=5))
    found.check()
    return found


def test_the_code_of_an_answer() -> None:
    assert code_of("text\n```python\na = 1\n```\nthen\n```\nb = 2\n```") == "b = 2\n"
    assert code_of("```py\na = 1") == "a = 1"
    assert code_of("a = 1") == "a = 1"


def test_the_share_of_tests_that_pass(work: Work) -> None:
    told: list[dict[str, Any]] = []

    class Told:
        def note(self, event: str, **details: Any) -> None:
            told.append({"event": event, **details})

        def update(self, step: int, total: int | None = None, **metrics: Any) -> None:
            del step, total, metrics

    work.progress = Told()
    rewards = Rewards(RewardsConfig(tests=Programs(isolated=False)), work)
    tests = ["assert add(1, 2) == 3", "assert add(1, 1) == 3", "add(1)", "assert add('a', 'b') == 'ab'"]
    right = answer(f"Here:\n```python\n{ADDS}\n```", tests=tests)
    wrong = answer("def add(a, b): return 3", tests="assert add(1, 2) == 3\nassert add(1, 1) == 2")
    found = rewards([right, wrong, answer("no code", tests=tests), right])
    assert [parts["tests"] for _, parts in found] == [0.5, 0.0, 0.0, 0.5]
    assert told[0]["event"] == "the sandbox of tests"
    files = "files outside its own folder and Python's library"
    assert (files in told[0]["prevents"]) == LANDLOCK
    assert (files in told[0]["allows"]) != LANDLOCK
    with pytest.raises(DataError, match="neither text nor a list"):
        rewards([answer("a = 1", tests=[1])])


@pytest.mark.parametrize(
    "code",
    [
        "import os\nos._exit(0)",
        "raise SystemExit(0)",
        "import sys\nsys.exit()",
        "import os\nfor n in range(3, 20):\n    try: os.write(n, b'done\\n')\n    except OSError: pass\nos._exit(0)",
        "def f(:",
    ],
)
def test_leaving_early_passes_no_test(sandbox: Sandbox, code: str) -> None:
    assert sandbox.run(code, ("assert True", "assert True")).passed == 0


@pytest.mark.skipif(sys.platform != "linux", reason="what is taken from a process is taken by Linux")
@pytest.mark.parametrize(
    "code",
    [
        "import subprocess\nsubprocess.run(['true'], check=True)",
        "import os\nos.fork()",
        "import threading\nthreading.Thread(target=print).start()",
        "import socket\nsocket.socket()",
        "import os, signal\nos.kill(os.getppid(), 0)",
        "import os\nos.execv('/bin/true', ['true'])",
        "a = 'a' * 2**31",
        "open('large', 'w').write('a' * 2**25)",
        "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (100, 100))",
    ],
)
def test_what_a_program_may_not_do_ends_it(sandbox: Sandbox, code: str) -> None:
    assert sandbox.run(code, ("assert True",)).passed == 0
    assert sandbox.run("", ("assert True",)).passed == 1


def test_a_test_that_leaves_does_not_undo_those_before_it(sandbox: Sandbox) -> None:
    assert sandbox.run(ADDS, ("assert add(1, 2) == 3", "import os; os._exit(1)", "assert True")).passed == 1


@shuts
@pytest.mark.parametrize(
    "code",
    [
        "open({file!r}).read()",
        "open({file!r}, 'a').write('b')",
        "import os\nos.truncate({file!r}, 0)",
        "import os\nos.remove({file!r})",
        "import os\nos.rename({file!r}, 'mine')",
        "import os\nos.link({file!r}, 'mine')",
        "import os\nos.listdir({folder!r})",
        "import os\nos.mkdir({folder!r} + '/new')",
        "import os\nos.symlink('/etc/passwd', {folder!r} + '/new')",
        "import os\nos.symlink({file!r}, 'mine')\nopen('mine').read()",
        "open({new!r}, 'w')",
        "open('/etc/passwd').read()",
        "open('/proc/self/environ').read()",
        "open('/proc/%d/cmdline' % __import__('os').getppid()).read()",
    ],
)
def test_no_file_of_others_is_read_or_written(sandbox: Sandbox, code: str) -> None:
    """Of files and folders that everybody may read and write, so that it is not their mode that refuses."""
    with TemporaryDirectory() as name:
        folder, file = Path(name), Path(name, "open")
        file.write_text("a")
        folder.chmod(0o777)
        file.chmod(0o666)
        said = code.format(file=str(file), folder=name, new=str(folder / "new"))
        refused = f"try:\n    exec({said!r})\nexcept OSError as error:\n    refused = error.errno"
        assert sandbox.run(refused, ("assert refused in (1, 13, 18)",)).passed == 1
        assert [one.name for one in folder.iterdir()] == ["open"]
        assert file.read_text() == "a"


@shuts
def test_what_programs_need_stays_open(sandbox: Sandbox) -> None:
    tests = (
        "import os; os.mkdir('a'); open('a/b', 'w').write('c'); os.rename('a/b', 'd'); assert open('d').read() == 'c'",
        "os.remove('d'); os.rmdir('a'); assert os.listdir('.') == []",
        "import tempfile; tempfile.tempdir = '.'; tempfile.NamedTemporaryFile().write(b'a')",
        "open(os.devnull, 'w').write('a')",
        "import sqlite3, decimal, random, csv, email, unittest, zoneinfo, hashlib; random.seed(); os.urandom(4)",
        "def f(): raise ValueError\ntry: f()\nexcept ValueError: import traceback; traceback.format_exc()",
    )
    assert sandbox.run("", tests).passed == len(tests)


def test_endless_programs_are_ended_and_nothing_is_left_of_them() -> None:
    found = Sandbox(Limits(timeout_s=20, cpu_s=1)).run("while True: pass", ("assert True",))
    assert (found.passed, found.ended) == (0, "died")
    asleep = Sandbox(Limits(timeout_s=2))
    began = time.monotonic()
    assert asleep.run("import time\ntime.sleep(600)", ("assert True",)).ended == "timeout"
    assert time.monotonic() - began < 60


def test_a_program_sees_no_environment_and_its_folder_is_removed(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("NACRE_SECRET", "1")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    tests = (
        "import os; assert 'NACRE_SECRET' not in os.environ",
        "import os; assert os.listdir('.') == []",
        "open('a', 'w').write('b'); assert open('a').read() == 'b'",
        "import sys; assert sys.flags.isolated and not sys.path[0].startswith(os.getcwd())",
    )
    os.chmod(tmp_path, 0o755)
    assert sandbox.run("", tests).passed == 4
    assert not list(tmp_path.iterdir())


def test_where_the_network_stays_the_stage_refuses_unless_told_otherwise(work: Work, monkeypatch: Any) -> None:
    monkeypatch.setattr(Sandbox, "check", lambda self: None)
    with pytest.raises(ConfigError, match="the network cannot be taken"):
        Rewards(RewardsConfig(tests=Programs()), work)
    Rewards(RewardsConfig(tests=Programs(isolated=False)), work)


def test_a_reward_that_gives_no_number_is_named(work: Work, monkeypatch: Any) -> None:
    from nacre.tiers.tune.reinforce.rewards import matching

    monkeypatch.setattr(matching.ExactReward, "__call__", lambda self, answers: [float("inf")] * len(answers))
    with pytest.raises(TrainingError, match="the reward exact says inf of the answer '7'"):
        Rewards(RewardsConfig(Exact()), work)([answer("7", expected="7")])
