"""Lines that belong to a page and not to its text: cookie banners, copyright lines, navigation, repeated lines.

Only texts of at least `MIN_LINES` lines lose lines: a single line that says "登录" or "Contact us" is the text.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Iterable

import numpy as np

from nacre.data.rows import Row, content

MIN_LINES = 3
LONGEST_LINE = 200
LONGEST_NUMBERED = 24

_SENTENCES = [
    # English
    r"(?:we|this (?:web)?site|our (?:web)?site|by (?:using|continuing)).{0,60}\bcookies?\b.*",
    r"(?:accept|reject|manage|allow)(?: all)? cookies?(?: (?:settings|preferences))?",
    r"(?:©|\(c\)|copyright\b).{0,20}\b(?:19|20)\d\d\b.*",
    r".{0,80}\ball rights reserved\b.{0,40}",
    r"(?:click|tap) here to .{0,40}",
    r"(?:sign up|subscribe)(?: (?:for|to))? (?:our|the) newsletter.{0,40}",
    r"(?:please )?enable javascript.{0,60}",
    r"skip to (?:main )?content",
    r"(?:share|follow us) (?:this )?on (?:facebook|twitter|x|linkedin|weibo|wechat).{0,40}",
    # Chinese
    r".{0,30}(?:版权所有|版權所有|保留所有权利|保留一切权利|保留所有權利).{0,60}",
    r".{0,30}(?:未经(?:书面)?(?:授权|许可)|未經授權).{0,20}(?:转载|轉載|复制|使用).{0,30}",
    r".{0,40}(?:ICP备|ICP证|公网安备|京公网安备)\s*[\dA-Z].{0,30}",
    r"(?:本|我们的|我們的)?(?:网站|網站|站点)?.{0,10}使用.{0,6}cookies?.{0,60}",
    r"(?:扫一扫|扫码|扫描(?:上方|下方)?二维码|长按(?:识别)?二维码).{0,30}",
    r"(?:点击|點擊)(?:这里|此处|查看|阅读|閱讀)(?:更多|全文|原文)?.{0,10}",
    r"(?:责任编辑|责编|本文编辑|責任編輯)\s*[:：].{0,20}",
    r"(?:欢迎)?关注(?:我们|本站|本号)?的?(?:微信)?公众号.{0,30}",
]
_SENTENCE = re.compile("|".join(f"(?:{pattern})" for pattern in _SENTENCES), re.I)

_ITEMS = (
    "home|about|about us|contact|contact us|login|log in|log out|logout|sign in|sign up|register|search|menu|sitemap",
    "site map|next|previous|prev|back|back to top|top|share|tweet|subscribe|newsletter|faq|help|careers|jobs|press",
    "blog|news|products|services|privacy|privacy policy|terms|terms of use|terms of service|cookie policy|cookies",
    "legal|disclaimer|imprint|accessibility|advertise|feedback|print|comments|read more|more|my account|cart|checkout",
    "首页|首頁|主页|关于我们|關於我們|联系我们|聯繫我們|登录|登錄|登陆|注册|註冊|退出|搜索|搜尋|菜单|网站地图|上一页|下一页|上一頁|下一頁",
    "上一篇|下一篇|返回|返回顶部|回到顶部|返回首页|更多|查看更多|阅读更多|阅读全文|展开全文|分享|分享到|收藏|加入收藏|设为首页|友情链接",
    "免责声明|隐私政策|隱私政策|服务条款|用户协议|使用条款|帮助中心|帮助|客服中心|广告服务|招聘信息|加入我们|意见反馈|打印|评论",
    "相关阅读|相关文章|推荐阅读|热门文章|最新文章|微信|微博|朋友圈|qq空间|产品中心|新闻中心|下载|app下载|客户端",
)
_NAVIGATION = frozenset(item for line in _ITEMS for item in line.split("|"))
_SEPARATORS = re.compile(r"\s*[|｜·•»›>/／、—–-]\s*|\s{2,}|\t")


def is_boilerplate(line: str) -> bool:
    """Whether a whole line is a banner, a copyright line or navigation. Long lines are text."""
    bare = line.strip()
    if not bare or len(bare) > LONGEST_LINE:
        return False
    if _SENTENCE.fullmatch(bare):
        return True
    items = [item for item in _SEPARATORS.split(bare.strip("|｜·•»›>«‹<[]【】 ").lower()) if item]
    return bool(items) and all(item in _NAVIGATION for item in items)


def boilerplate(text: str) -> str:
    """Boilerplate lines removed from a text of at least `MIN_LINES` lines."""
    lines = text.split("\n")
    if len(lines) < MIN_LINES:
        return text
    kept = [line for line in lines if not is_boilerplate(line)]
    return text if len(kept) == len(lines) else "\n".join(kept)


def line_key(line: str) -> int:
    """64 bits of a line's hash; case and spacing do not matter, nor do the digits of a short line (page numbers)."""
    bare = " ".join(line.casefold().split())
    if len(bare) <= LONGEST_NUMBERED:
        bare = re.sub(r"\d+", "0", bare)
    return int.from_bytes(hashlib.blake2b(bare.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def repeated_lines(rows: Iterable[Row], fields: tuple[str, ...], min_rows: int) -> frozenset[int]:
    """Keys of the lines that stand in at least `min_rows` rows of several lines. Memory: 8 bytes a line."""
    keys = array("Q")
    for row in rows:
        lines = content(row, fields).split("\n")
        if len(lines) >= MIN_LINES:
            keys.extend({line_key(line) for line in lines if line.strip()})
    found, counts = np.unique(np.frombuffer(keys, dtype=np.uint64), return_counts=True)
    return frozenset(found[counts >= min_rows].tolist())


def without_lines(text: str, repeated: frozenset[int]) -> str:
    """The text without the lines whose keys are in `repeated`."""
    lines = text.split("\n")
    if len(lines) < MIN_LINES:
        return text
    kept = [line for line in lines if not line.strip() or line_key(line) not in repeated]
    return text if len(kept) == len(lines) else "\n".join(kept)
