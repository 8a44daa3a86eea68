"""Files as documents for the merge: JSON by key, the index of an auto memory by entry, all others whole. Pure."""

import json
import re
from typing import cast

from membridge.claudecode import json_file
from membridge.claudeconfig import rules
from membridge.claudeconfig.three_way import MISSING, Leaf, Map, Tree

#: Deepest nesting of a JSON document that is merged by key; below it a value is merged whole.
MOST_DEEP = 16
_ENTRY = re.compile(r"[-*+] ")
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def tree_of(path: str, leaf: Leaf | None) -> Tree:
    """Return a file as a tree. Raises InvalidRequestError for JSON that cannot be read."""
    if leaf is None:
        return MISSING
    if rules.is_json(path):
        value = json_file.parsed(leaf.body, path)
        return _of_json(cast("object", value), MOST_DEEP) if value and isinstance(value, dict) else leaf
    if rules.is_list(path):
        found = {key: Leaf(text.encode()) for key, text in entries(leaf.body.decode()).items()}
        return Map(found) if found else leaf
    return leaf


def leaf_of(path: str, tree: Tree) -> Leaf | None:
    """Return a tree as a file, None for none."""
    if isinstance(tree, Leaf):
        return tree
    if tree is MISSING or not tree.keys:
        return None
    if rules.is_list(path):
        lines = [one.body.decode() for one in tree.keys.values() if isinstance(one, Leaf)]
        return Leaf("".join(line if line.endswith("\n") else f"{line}\n" for line in lines).encode())
    return Leaf(written(value_of(tree)))


def joined(ours: Leaf, theirs: Leaf) -> Leaf:
    """Return both versions of an entry of a list, ours first."""
    first = ours.body if ours.body.endswith(b"\n") else ours.body + b"\n"
    return Leaf(first + theirs.body)


def written(value: object) -> bytes:
    """Return a value as JSON that a person can read, with its keys in their order."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def value_of(tree: "Leaf | Map") -> object:
    """Return the JSON value of a tree."""
    if isinstance(tree, Leaf):
        return cast("object", json.loads(tree.body))
    return {key: value_of(one) for key, one in tree.keys.items()}


def _of_json(value: object, depth: int) -> "Leaf | Map":
    if isinstance(value, dict) and value and depth:
        fields = cast("dict[str, object]", value)
        return Map({key: _of_json(one, depth - 1) for key, one in fields.items()})
    # Sorted inside a leaf: the order of keys is no difference.
    return Leaf(json.dumps(value, sort_keys=True, ensure_ascii=False).encode())


def entries(text: str) -> dict[str, str]:
    """Return the entries of a Markdown list by their key: the file that an entry links to, else its text.

    Lines that continue an entry belong to it; each other line is an entry of its own.
    """
    blocks: list[list[str]] = []
    for line in text.splitlines():
        continues = bool(blocks) and line.startswith((" ", "\t")) and bool(line.strip())
        if continues and _ENTRY.match(blocks[-1][0]):
            blocks[-1].append(line)
        else:
            blocks.append([line])
    found: dict[str, str] = {}
    for block in blocks:
        whole = "\n".join(block)
        link = _LINK.search(whole) if _ENTRY.match(whole) else None
        key, number = link[1] if link else whole.strip(), 1
        while f"{key}#{number}" in found:
            number += 1
        found[f"{key}#{number}"] = whole
    return found
