"""Which language a text is in: by script where the script decides or the text is short, else by py3langid."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from nacre.lazy import require

# Letters per script, counted in this order. Han without kana is Chinese.
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_KANA = re.compile("[\u3040-\u30ff\u31f0-\u31ff]")
_HANGUL = re.compile("[\uac00-\ud7af\u1100-\u11ff]")
_ASCII = re.compile("[A-Za-z]")
_LETTER = re.compile(r"[^\W\d_]")

# A Chinese character carries as much as a short English word, and names in Chinese text are often Latin: this share of
# the letters makes a text Chinese.
HAN_SHARE = 0.1
# Below this many Latin letters the statistics of letters decide little: an ASCII text then counts as English.
MIN_LETTERS = 40
# What the model tells apart and a filter for Chinese keeps: Wu, Cantonese, classical Chinese, Min Nan.
CHINESE = {"wuu", "yue", "lzh", "nan"}
# The model sees no more than this: its answer does not change past a few hundred characters, its time does.
MAX_CHARACTERS = 2000


def language(text: str) -> str:
    """ISO 639-1 code of the text's language; `und` where it has no letters.

    Texts in Han script are decided by script (`zh`, or `ja` with kana), Hangul likewise; Latin text shorter than
    `MIN_LETTERS` letters is `en` when its letters are all ASCII; the rest is decided by py3langid.
    """
    n_letters = len(_LETTER.findall(text[:MAX_CHARACTERS]))
    if n_letters == 0:
        return "und"
    head = text[:MAX_CHARACTERS]
    n_ascii = len(_ASCII.findall(head))
    if n_ascii < n_letters:
        n_kana = len(_KANA.findall(head))
        n_han = len(_HAN.findall(head))
        if n_han + n_kana >= HAN_SHARE * n_letters:
            return "ja" if n_kana > 0.1 * (n_han + n_kana) else "zh"
        if len(_HANGUL.findall(head)) >= HAN_SHARE * n_letters:
            return "ko"
    elif n_letters < MIN_LETTERS:
        return "en"
    code: str = _identifier().classify(head)[0]
    return "zh" if code in CHINESE else code


@lru_cache(maxsize=1)
def _identifier() -> Any:
    module = require("py3langid.langid")
    return module.LanguageIdentifier.from_model_file(module.MODEL_FILE, norm_probs=True)
