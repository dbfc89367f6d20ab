"""Placeholders and back, in whole texts, in streams, and for good; rows of data cleaning."""

from __future__ import annotations

import pytest

from nacre.data.masking import Masker, Policy, scrubbed
from nacre.data.masking.rows import MaskConfig, mask_rows
from nacre.data.report import DropReport
from nacre.errors import ConfigError

ID, PHONE, OTHER = "11010519491231002X", "13800138000", "13900139000"


def test_one_value_has_one_placeholder_within_a_request() -> None:
    masker = Masker()
    assert masker.mask(f"{PHONE}或{OTHER}，再说一遍{PHONE}") == "[PHONE_1]或[PHONE_2]，再说一遍[PHONE_1]"
    assert masker.mask(f"身份证{ID}，手机{OTHER}") == "身份证[ID_1]，手机[PHONE_2]"
    assert masker.counts == {"mobile": 4, "identity": 1}
    assert masker.restore("[PHONE_2]的[ID_1]，[ID_9]") == f"{OTHER}的{ID}，[ID_9]"


def test_placeholders_do_not_collide_with_text_already_there() -> None:
    masker = Masker()
    text = f"模板里写着[PHONE_1]，号码是{PHONE}"
    masked = masker.mask(text)
    assert PHONE not in masked
    assert masker.restore(masked) == text
    later = masker.mask("后来又写[PHONE_2]和[PHONE_3]")
    assert masker.restore(later) == "后来又写[PHONE_2]和[PHONE_3]"


def test_allowed_kinds_stay_and_blocked_ones_are_counted() -> None:
    masker = Masker(Policy(kinds={"mobile": "allow", "identity": "block"}))
    assert masker.mask(f"{PHONE} {ID}") == f"{PHONE} [ID_1]"
    assert masker.blocked == {"identity": 1}
    assert not masker.counts


@pytest.mark.parametrize("size", range(1, 12))
def test_a_stream_is_restored_wherever_it_is_cut(size: int) -> None:
    masker = Masker()
    masker.mask(f"{PHONE} {OTHER} {ID}")
    answer = "Call [PHONE_1] or [PHONE_2], see [1] and [ID_1][ID_x] [[PHONE_1]"
    restorer = masker.restorer()
    out = ""
    for start in range(0, len(answer), size):
        out += restorer.feed(answer[start : start + size])
        assert len(restorer.held) < len("[PHONE_1]")
    assert out + restorer.flush() == masker.restore(answer)
    assert PHONE in out


def test_a_stream_that_ends_inside_a_placeholder_keeps_its_text() -> None:
    masker = Masker()
    masker.mask(PHONE)
    restorer = masker.restorer()
    assert restorer.feed("to [PHON") == "to "
    assert restorer.flush() == "[PHON"
    assert restorer.flush() == ""


def test_text_that_can_be_no_placeholder_is_not_held_back() -> None:
    masker = Masker()
    masker.mask(PHONE)
    restorer = masker.restorer()
    assert restorer.feed("a list [") == "a list "
    assert restorer.feed("1, 2") == "[1, 2"


def test_scrubbed_text_cannot_be_restored() -> None:
    assert scrubbed(f"{ID}打{PHONE}和{OTHER}") == "<ID>打<PHONE>和<PHONE>"
    assert scrubbed(f"{ID} {PHONE}", ["identity"]) == f"<ID> {PHONE}"


@pytest.mark.parametrize(
    "wrong", [{"default": "hide"}, {"kinds": {"idcard": "mask"}}, {"kinds": {"email": "no"}}, {"opaque": "mask"}]
)
def test_a_wrong_policy_is_an_error_that_names_it(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"hide|idcard|'no'|'mask'"):
        Policy(**wrong)  # type: ignore[arg-type]


def test_rows_are_scrubbed_at_any_depth_and_the_report_shows_no_value() -> None:
    rows = [
        {"text": f"打{PHONE}", "label": PHONE},
        {"messages": [{"role": "user", "content": f"我是{ID}"}]},
        {"text": "没有"},
        {"tokens": [PHONE, "号"], "tags": ["B-X", "O"]},
    ]
    report = DropReport()
    masked = list(mask_rows(rows, MaskConfig(), report))
    assert masked[0] == {"text": "打<PHONE>", "label": PHONE}
    assert masked[1]["messages"][0]["content"] == "我是<ID>"
    assert masked[2] is rows[2]
    assert masked[3]["tokens"] == ["<PHONE>", "号"]
    told = str(report.to_dict())
    assert PHONE not in told
    assert ID not in told
    assert report.step("mask").changed["masked: Chinese mobile number"].count == 2
    assert report.step("mask").rows_in == report.step("mask").rows_out == 4


def test_rows_mask_only_the_kinds_and_fields_named() -> None:
    row = {"text": f"{PHONE} a@b.cn", "note": PHONE}
    (masked,) = mask_rows([row], MaskConfig(("mobile",), ("text",)), DropReport())
    assert masked == {"text": "<PHONE> a@b.cn", "note": PHONE}
    with pytest.raises(ConfigError, match="phones"):
        MaskConfig(("phones",))
