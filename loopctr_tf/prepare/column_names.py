"""What the name of a column suggests, and the name of the input that is made of it."""

import itertools
import keyword
import re
from collections.abc import Collection, Sequence

USER = ("user", "uid", "customer", "member", "visitor", "reviewer", "cookie", "account", "client")
ITEM = (
    *("item", "article", "product", "ad", "adgroup", "asin", "movie", "video", "book", "track"),
    *("song", "news", "sku", "goods", "creative", "listing", "business", "offer", "content", "iid"),
)
TIME = ("timestamp", "time", "ts", "datetime", "unixtime", "date", "at", "day", "hour", "stamp")
ORDER = ("pos", "position", "order", "rank", "step", "sequence", "seq")
LABEL = ("label", "click", "clicked", "clk", "target", "like", "liked", "converted", "y")
RATING = ("rating", "stars", "score", "overall")
SESSION = ("session", "request", "impression", "query", "trace", "uuid", "row", "index")

_RESULTS = (
    *("dwell", "watch", "watched", "playtime", "revenue", "conversion", "converted", "review"),
    *("nonclk", "nonclick", "noclick", "unclick", "unclicked"),
)
_RESULT_PAIRS = (
    *("play time", "playing time", "read time", "reading time", "stay time", "view time"),
    *("long view", "not clicked", "not click", "non click", "non clk", "no click", "finish play"),
)
_RESPONSES = (
    *("like", "liked", "dislike", "follow", "share", "forward", "comment", "favorite", "favourite"),
    *("fav", "collect", "cart", "buy", "bought", "purchase", "purchased", "order", "ordered"),
    *("click", "clicked", "clk", "hate", "report", "subscribe", "download", "install", "converted"),
)
_CHINESE = {
    **{"用户": "user", "商品": "item", "物品": "item", "视频": "video", "文章": "article"},
    **{"时间": "time", "日期": "date", "点击": "click", "标签": "label", "评分": "rating"},
    **{"类别": "category", "品牌": "brand", "价格": "price", "性别": "gender", "年龄": "age"},
}
_TYPED = re.compile(r":(token|float)(_seq)?$")
"""RecBole's files have the type in the header: ``item_id:token``."""
_RESERVED = ("self", "inputs", "refine_top_k")


def _plain(name: str) -> str:
    """The name without a type, common Chinese words in English."""
    name = _TYPED.sub("", name.strip())
    for word, english in _CHINESE.items():
        name = name.replace(word, f" {english} ")
    return name


def words(name: str) -> list[str]:
    """The words of a name: ``clickArticle_id`` has click, article and id."""
    name = re.sub(r"([a-z])([A-Z])", r"\1_\2", _plain(name))
    return re.findall(r"[a-z]+|[0-9]+", name.lower())


def named(name: str, known: Sequence[str]) -> bool:
    """Whether a word of ``name`` is one of ``known``, ``userid`` being a user."""
    return any(word in known or word.removesuffix("id") in known for word in words(name))


def is_id(name: str) -> bool:
    """Whether a name says that the column holds ids."""
    found = words(name)
    return "id" in found or any(word.endswith("id") for word in found[-1:])


def result_of_the_click(name: str) -> bool:
    """Whether a column's name suggests that it is known only after the user's response."""
    found = words(name)
    pairs = itertools.pairwise(found)
    return (
        named(name, _RESULTS)
        or found[:1] == ["next"]
        or any(" ".join(pair) in _RESULT_PAIRS for pair in pairs)
    )


def another_response(name: str) -> bool:
    """Whether a column of 0 and 1 of that name is likely to be a response, as ``is_follow`` is."""
    return named(name, _RESPONSES)


def can_be_input(name: str) -> bool:
    """Whether a model may have an input of that name."""
    return (
        name.isascii()
        and name.isidentifier()
        and not keyword.iskeyword(name)
        and name not in _RESERVED
        and not name.startswith("state_")
    )


def input_name(column: str, taken: Collection[str]) -> str:
    """A name for the input made of a column: its own if possible, else one as like it as can be.

    Args:
      column: name of the column.
      taken: names in use, in lower case.
    """
    name = column
    if not can_be_input(name):
        name = re.sub(r"[^0-9A-Za-z]+", "_", _plain(column)).strip("_") or "feature"
        if not can_be_input(name):
            name = f"{name}_" if keyword.iskeyword(name) else f"feature_{name}"
    names = [name, *(f"{name.rstrip('_')}_{number}" for number in range(2, len(taken) + 3))]
    return next(name for name in names if name.lower() not in taken)
