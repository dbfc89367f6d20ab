"""The scaling rule and the table of machines: known answers, the four limits, prices that are unknown."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nacre.errors import ConfigError, UsageError
from nacre.kernel.config import KernelConfig
from nacre.kernel.presets import preset
from nacre.recipe.hardware import Hardware, choose, machines
from nacre.recipe.scaling import (
    SHAPES,
    Rule,
    Shape,
    Sized,
    Weight,
    budget_flops,
    explain,
    money_text,
    size,
    vocabulary,
)


def llama(shape: Shape, vocab_size: int = 32_000) -> KernelConfig:
    sizes = {"hidden_size": shape.hidden_size, "layers": shape.layers, "heads": shape.heads}
    return preset("llama2", **sizes, vocab_size=vocab_size, max_positions=4096)


def sized(flops: float, unique: float, **options: object) -> Sized:
    return size(flops, unique, llama, 2048, **options)  # type: ignore[arg-type]


def test_chinchillas_budget_buys_a_kernel_of_its_class() -> None:
    """Hoffmann et al. 2022, table 3: 5.76e23 operations are best spent on 67 billion parameters, 1.5e12 tokens."""
    found = sized(5.76e23, 1e13)
    assert 4e10 < found.weight.parameters < 9e10
    assert 1e12 < found.tokens < 2.5e12


def test_operations_are_about_six_times_parameters_times_tokens_in_large_kernels() -> None:
    found = sized(1e22, 1e13)
    computed = found.weight.parameters - found.weight.embedding
    assert found.spent_flops == pytest.approx(6 * computed * found.tokens, rel=0.25)
    assert found.spent_flops == pytest.approx(1e22, rel=1e-6)


def test_repeated_tokens_count_nearly_fully_up_to_four_epochs_and_then_less_and_less() -> None:
    """Muennighoff et al. 2023, equation 5."""
    rule = Rule()
    assert rule.effective(1e9, 5e8) == 5e8
    assert rule.effective(1e9, 4e9) == pytest.approx(1e9 * (1 + 15.39 * (1 - math.exp(-3 / 15.39))))
    assert rule.effective(1e9, 4e9) > 0.9 * 4e9
    assert rule.effective(1e9, 1e13) == pytest.approx(16.39e9)


def test_each_limit_is_named_by_what_would_move_it() -> None:
    compute = sized(1e18, 1e12)
    assert compute.bound == "compute"
    assert sized(1e19, 1e12).weight.parameters > compute.weight.parameters
    data = sized(1e22, 1e9)
    assert data.bound == "data"
    assert data.epochs == pytest.approx(4.0)
    assert data.spent_flops < data.budget_flops
    assert sized(1e22, 1e10).weight.parameters > data.weight.parameters
    assert sized(1e9, 1e12).bound == "floor"
    assert sized(1e30, 1e15).bound == "ceiling"
    assert "of the budget is left" in explain(data)


@given(st.floats(1e12, 1e26), st.floats(1e4, 1e14), st.floats(1.0, 10.0))
def test_more_budget_or_more_data_never_gives_a_smaller_kernel(flops: float, unique: float, more: float) -> None:
    found = sized(flops, unique)
    assert sized(flops * more, unique).weight.parameters >= found.weight.parameters
    assert sized(flops, unique * more).weight.parameters >= found.weight.parameters
    assert found.spent_flops <= flops * (1 + 1e-9)
    assert found.epochs <= found.rule.epochs * (1 + 1e-9)


def test_the_table_is_buildable_and_grows() -> None:
    weights = [Weight.of(llama(shape), 1024).computing for shape in SHAPES]
    assert weights == sorted(weights)
    assert all(shape.hidden_size % 64 == 0 and shape.hidden_size % shape.heads == 0 for shape in SHAPES)


def test_embedding_rows_are_counted_apart_and_cost_no_operations() -> None:
    shape = Shape(128, 2, 4)
    body = preset("bert", hidden_size=128, layers=2, heads=4, vocab_size=1000).replace(head="none")
    wide = body.replace(vocab_size=30_000)
    assert Weight.of(wide, 64).flops_per_token == Weight.of(body, 64).flops_per_token
    assert Weight.of(wide, 64).embedding - Weight.of(body, 64).embedding == 29_000 * shape.hidden_size


@pytest.mark.parametrize(("flops", "unique"), [(0, 1e9), (1e18, 0), (math.nan, 1e9), (math.inf, 1e9)])
def test_no_budget_or_no_text_is_refused(flops: float, unique: float) -> None:
    with pytest.raises(ConfigError, match="size no kernel"):
        sized(flops, unique)


def test_vocabulary_follows_the_text_and_its_characters() -> None:
    assert vocabulary(500e3) < vocabulary(5e6) < vocabulary(50e6)
    assert vocabulary(1.0) == 512
    assert vocabulary(1e12) == 32_000
    assert vocabulary(100e3, distinct_characters=4_000) >= 8_000 - 64
    assert all(vocabulary(10.0**n) % 64 == 0 for n in range(3, 12))


def test_budgets_in_time_operations_and_money() -> None:
    h100, cpu = machines()["h100"], machines()["cpu-2-cores"]
    assert budget_flops("90min", h100) == pytest.approx(5400 * h100.flops_per_second())
    assert budget_flops("2H", h100) == pytest.approx(7200 * h100.flops_per_second())
    assert budget_flops("1e18flop", cpu) == 1e18
    assert budget_flops("5usd", h100) == pytest.approx(budget_flops("2h", h100))
    for wrong in ("", "2", "h", "-2h", "2 parsecs", "1e", "infh"):
        with pytest.raises(UsageError):
            budget_flops(wrong, h100)


def test_an_unknown_price_is_unknown_and_never_zero() -> None:
    cpu = machines()["cpu-2-cores"]
    assert cpu.money(3600) is None
    assert money_text(cpu, 3600) == "unknown"
    assert "money       unknown" in explain(sized(1e18, 1e12), cpu)
    with pytest.raises(UsageError, match="price"):
        budget_flops("5usd", cpu)
    free = Hardware("given", {"float32": 1.0}, 0.5, price_per_hour=0.0)
    assert free.money(3600) == 0.0


def test_small_sums_are_not_rounded_to_nothing() -> None:
    assert money_text(machines()["h100"], 0.1) == "under 0.01 USD"


def test_a_file_of_the_users_adds_machines_and_replaces_blocks(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(
        "h100: {title: ours, peak_tflops: {bf16: 989}, utilisation: 0.5, price_per_hour: 1.0, currency: EUR}\n"
        "closet: {title: an old card, peak_tflops: {float32: 10}, utilisation: 0.2}\n",
        encoding="utf-8",
    )
    known = machines(own)
    assert known["h100"].money(3600) == 1.0
    assert known["h100"].currency == "EUR"
    assert known["closet"].flops_per_second() == pytest.approx(2e12)
    assert known["a100"] == machines()["a100"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x: {title: a, peak_tflops: {bf16: 1}, utilisation: 2}", "utilisation"),
        ("x: {title: a, peak_tflops: {}, utilisation: 0.5}", "peak_tflops"),
        ("x: {title: a, peak_tflops: {bf16: 1}, utilisation: 0.5, price: 2}", "unknown key 'price'"),
        ("x: {title: a, peak_tflops: {bf16: 1}, utilisation: 0.5, price_per_hour: -1}", "price_per_hour"),
        ("- x", "no table of machines"),
    ],
)
def test_a_wrong_table_of_machines_is_told(text: str, said: str, tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=said):
        machines(own)


def test_every_shipped_machine_is_dated_and_called_editable() -> None:
    for machine in machines().values():
        assert machine.dated
        assert "editable" in machine.note
    with pytest.raises(UsageError) as caught:
        choose(["h10"], machines())
    assert "'h100'" in caught.value.remedy


def test_the_answer_is_plain_and_needs_no_torch() -> None:
    code = (
        "import json, sys\n"
        "from nacre.kernel.presets import preset\n"
        "from nacre.recipe.scaling import size\n"
        "found = size(1e16, 1e8, lambda s: preset('gpt2', hidden_size=s.hidden_size, layers=s.layers, heads=s.heads,"
        " vocab_size=4096), 256)\n"
        "print(json.dumps([found.to_dict(), 'torch' in sys.modules]))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    plain, torch = json.loads(out)
    assert not torch
    assert plain["parameters"] > plain["embedding_parameters"] > 0
    assert plain["bound"] in ("compute", "data", "floor", "ceiling")
