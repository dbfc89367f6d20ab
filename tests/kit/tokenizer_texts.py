"""A small bilingual text to train tokenizers on in tests."""

from __future__ import annotations

_ENGLISH = (
    "My card was charged twice for the same order, please refund one of the payments.",
    "The parcel hasn't arrived although the tracking page says it was delivered yesterday.",
    "How do I change the delivery address of an order that is already on its way?",
    "I forgot my password and the reset mail never comes, what should I do now?",
    "The lamp stopped working after 3 weeks; is it still under warranty (24 months)?",
    "Can I pay in 3 instalments, or by bank transfer, instead of using my credit card?",
)
_CHINESE = (
    "我的银行卡被扣了两次款，请把其中一笔退给我。",
    "物流显示包裹昨天已经签收，可是我并没有收到。",
    "订单已经发货了，还能修改收货地址吗？",
    "忘记密码了，重置邮件一直没收到，该怎么办？",
    "台灯用了三个星期就坏了，还在保修期内吗？",
    "可以分三期付款，或者用银行转账代替信用卡吗？",
)
TEXTS = [
    *_ENGLISH,
    *_CHINESE,
    *(f"{english} {chinese}" for english, chinese in zip(_ENGLISH, _CHINESE, strict=True)),
    "Order #A-1042 → €19.99 (付款成功) 🙂👍🏽 naïve café",
]
