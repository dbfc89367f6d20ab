"""Edits that take markup off text, conservatively: what only looks like markup stays."""

from __future__ import annotations

import html
import re

# Only known elements are tags: `a < b and c > d` and `List<String>` are text.
_BLOCK = (
    "p|div|br|hr|li|ul|ol|dl|dt|dd|table|thead|tbody|tr|h[1-6]|blockquote|pre|section|article|header|footer|nav|main|"
    "aside|figure|form"
)
_INLINE = (
    "a|abbr|b|bdi|big|button|caption|center|cite|code|del|em|figcaption|font|i|img|input|ins|kbd|label|mark|nobr|"
    "option|q|s|samp|select|small|span|strike|strong|sub|sup|td|textarea|th|title|tt|u|var|wbr|html|body|head|meta|link"
)
_HIDDEN = re.compile(r"<(script|style|noscript|template)\b[^>]*>.*?</\1\s*>|<!--.*?-->|<!doctype[^>]*>", re.S | re.I)
_BLOCK_TAG = re.compile(rf"[^\S\n]*</?(?:{_BLOCK})(?:\s[^<>]*)?/?>[^\S\n]*", re.I)
_INLINE_TAG = re.compile(rf"</?(?:{_INLINE})(?:\s[^<>]*)?/?>", re.I)
# With the semicolon only: `&copy=1` in an address is no entity.
_ENTITY = re.compile(r"&(?:[a-zA-Z][a-zA-Z0-9]{1,31}|#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6});")

_WIKI_FILE = re.compile(
    r"\[\[(?:File|Image|Category|文件|檔案|图像|圖像|分类|分類):[^\[\]]*(?:\[\[[^\[\]]*\]\][^\[\]]*)*\]\]", re.I
)
_WIKI_LINK = re.compile(r"\[\[(?:[^\[\]|\n]*\|)?([^\[\]|\n]+)\]\]")
_WIKI_TEMPLATE = re.compile(r"\{\{[^{}]*\}\}")
_WIKI_REF = re.compile(r"<ref\b[^<>]*/>|<ref\b[^<>]*>.*?</ref\s*>", re.S | re.I)
_WIKI_HEADING = re.compile(r"^(={2,6})\s*([^=\n]+?)\s*\1[^\S\n]*$", re.M)
_WIKI_EMPHASIS = re.compile(r"('{2,3}|'{5})(?=\S)([^'\n]+(?:'[^'\n]+)*?)(?<=\S)\1")
_WIKI_OUTER_LINK = re.compile(r"\[https?://[^\s\[\]]+\s+([^\[\]\n]+)\]")
_WIKI_SWITCH = re.compile(r"__(?:NO)?(?:TOC|EDITSECTION|INDEX|GALLERY|FORCETOC)__|-\{([^{}|;:]*)\}-")

_WIKI_SIGN = re.compile(r"\[\[|\[http|\{\{|''|==|__|-\{|<ref", re.I)

_MD_FENCE = re.compile(r"^[^\S\n]*(?:```|~~~)[^\n`]*$\n?", re.M)
_MD_LINK = re.compile(r"!?\[([^\[\]\n]*)\]\((?:<[^<>\n]*>|[^()\s]*(?:\([^()\s]*\)[^()\s]*)*)(?:\s+\"[^\"\n]*\")?\)")
_MD_HEADING = re.compile(r"^ {0,3}#{1,6}[^\S\n]+(.*?)(?:[^\S\n]+#+)?[^\S\n]*$", re.M)
_MD_STRONG = re.compile(r"\*\*(?=[^\s*])([^*\n]+)(?<=[^\s*])\*\*")
_MD_RULE = re.compile(r"^ {0,3}(?:(?:-[^\S\n]*){3,}|(?:\*[^\S\n]*){3,})$\n?", re.M)
_MD_SIGN = re.compile(r"\]\(|#|\*\*|```|~~~|-[^\S\n]*-|\*[^\S\n]*\*")


def html_markup(text: str) -> str:
    """HTML elements, comments, scripts and styles removed (a block element ends a line); entities resolved."""
    if "<" in text:
        text = _INLINE_TAG.sub("", _BLOCK_TAG.sub("\n", _HIDDEN.sub("", text)))
    return _ENTITY.sub(lambda entity: _character(entity[0]), text) if "&" in text else text


def _character(entity: str) -> str:
    return html.unescape(entity).replace("\xa0", " ")


def wiki_markup(text: str) -> str:
    """Links, headings, emphasis, references and templates of MediaWiki reduced to their text.

    A template goes only where other wiki markup stands too: `{{name}}` alone is a placeholder.
    """
    if _WIKI_SIGN.search(text) is None:
        return text
    has_links = bool(_WIKI_LINK.search(text) or _WIKI_HEADING.search(text))
    text = _WIKI_REF.sub("", text)
    if has_links:
        before = None
        while before != text:  # templates nest: the innermost go first
            before, text = text, _WIKI_TEMPLATE.sub("", text)
    text = _WIKI_LINK.sub(r"\1", _WIKI_FILE.sub("", text))
    text = _WIKI_OUTER_LINK.sub(r"\1", _WIKI_HEADING.sub(r"\2", text))
    return _WIKI_SWITCH.sub(lambda switch: switch[1] or "", _WIKI_EMPHASIS.sub(r"\2", text))


def markdown_markup(text: str) -> str:
    """Links to their text, headings and strong emphasis to plain text, fences and rules removed.

    Single asterisks, underscores, lists, quotations and tables stay: they are too often something else.
    """
    if _MD_SIGN.search(text) is None:
        return text
    text = _MD_RULE.sub("", _MD_FENCE.sub("", text))
    return _MD_STRONG.sub(r"\1", _MD_HEADING.sub(r"\1", _MD_LINK.sub(r"\1", text)))
