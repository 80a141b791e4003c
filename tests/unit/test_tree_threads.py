"""Masks are read by the thread that scores while the loader notes what it reads: neither disturbs the other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event

from suite.contract.content import digest_of
from tasks.reading.trees import tree as trees
from tasks.reading.trees.opening import open_tree

LIMIT = 60  # s


def test_a_file_is_read_by_one_thread_though_another_stops_noting_meanwhile(tmp_path, monkeypatch):
    for name in ("loaded", "mask"):
        (tmp_path / name).write_bytes(name.encode())
    tree, digesting, over = open_tree(str(tmp_path)), Event(), Event()

    def digest_late(data: bytes) -> bytes:
        if data == b"mask":
            digesting.set()
            assert over.wait(LIMIT)
        return digest_of(data)

    monkeypatch.setattr(trees, "digest_of", digest_late)
    with ThreadPoolExecutor(1) as other:
        with tree.noting() as digests:
            tree.read("loaded")
            found = other.submit(tree.read, "mask")
            assert digesting.wait(LIMIT)
        over.set()
        assert found.result() == b"mask"
    assert digests["loaded"] == digest_of(b"loaded")
