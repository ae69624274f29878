"""From the bytes of a file to a tree with places."""

from __future__ import annotations

from pathlib import PurePath

from daemon.jobfile.json_tree import read_json
from daemon.jobfile.problem import START, Mark, Problem
from daemon.jobfile.tree import Mapping
from daemon.jobfile.yaml_tree import read_yaml

MAX_FILE_BYTES = 256 * 1024
"""The YAML parser needs seconds for more, and no job file does."""

_BYTE_ORDER_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"\0\0\xfe\xff": "UTF-32"}


def read_tree(content: bytes, name: str) -> Mapping:
    """Return the mapping that a file holds; a name that ends in ``.json`` is read as JSON.

    Raises:
        Problem: It holds none.
    """
    text = _decode(content)
    is_json = PurePath(name).suffix.lower() == ".json"
    root = read_json(text) if is_json else read_yaml(text)
    if root is None:
        raise Problem(START, "", "the file is empty; a job needs at least job_command")
    if not isinstance(root, Mapping):
        raise Problem(root.mark, "", "a job must be a mapping of fields, such as job_command")
    return root


def _decode(content: bytes) -> str:
    if len(content) > MAX_FILE_BYTES:
        raise Problem(START, "", f"the file is larger than {MAX_FILE_BYTES // 1024} KiB")
    for start, encoding in _BYTE_ORDER_MARKS.items():
        if content.startswith(start):
            raise Problem(START, "", f"the file is encoded as {encoding}; save it as UTF-8")
    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        text = content.decode()
    except UnicodeDecodeError as exc:
        good = content[: exc.start].decode()
        raise Problem(Mark.at(good, len(good)), "", "holds bytes that are not UTF-8") from exc
    if "\0" in text:
        raise Problem(Mark.at(text, text.index("\0")), "", "holds a NUL byte")
    return text
