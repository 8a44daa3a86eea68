"""The commands that bring plugins: never an option where a name belongs."""

import json
from typing import Any

from membridge.claudeconfig import plugins
from membridge.claudeconfig.three_way import Leaf


def leaf(**value: Any) -> Leaf:
    return Leaf(json.dumps(value).encode())


def market(**source: str) -> dict[str, Any]:
    return {"source": source}


def test_marketplaces_come_first_and_only_what_is_missing() -> None:
    ours = leaf(enabledPlugins={"a@m": True, "off@m": True}, extraKnownMarketplaces={"m": market(repo="o/m")})
    wanted = leaf(
        enabledPlugins={"a@m": True, "b@n": True, "off@m": False, "never@m": False},
        extraKnownMarketplaces={"m": market(repo="o/m"), "n": market(url="https://host/n.git", ref="v 1")},
    )

    assert plugins.commands(ours, wanted) == [
        "claude plugin marketplace add 'https://host/n.git#v 1'",
        "claude plugin install b@n",
        "claude plugin disable off@m",
    ]
    assert plugins.commands(wanted, wanted) == []
    assert plugins.commands(None, None) == []


def test_a_name_that_looks_like_an_option_is_left_out() -> None:
    wanted = leaf(
        enabledPlugins={"--config=x": True, "a@m": True},
        extraKnownMarketplaces={"m": market(repo="--evil"), "n": market(repo=""), "o": {"source": "odd"}},
    )

    assert plugins.commands(None, wanted) == ["claude plugin install a@m"]


def test_what_is_here_is_common_and_the_rest_as_before() -> None:
    old, here = leaf(enabledPlugins={"a@m": True}), leaf(enabledPlugins={"a@m": True, "b@m": True})
    shared = leaf(enabledPlugins={"a@m": False, "b@m": True, "c@m": True})

    found = plugins.common(old, here, shared)
    assert found is not None
    assert json.loads(found.body) == {"enabledPlugins": {"a@m": True, "b@m": True}}
    assert plugins.common(None, None, shared) is None
