"""Machine code that is kept on disk: who may read it, and what happens where it is broken."""

import os
import stat
import sys
import threading
from pathlib import Path

import pytest

from tensorfast.cuda.store import Store, user_folder

POSIX = pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")


class Maker:
    """Counts how often it is asked."""

    def __init__(self, made=b"code"):
        self.made, self.times = made, 0

    def __call__(self):
        self.times += 1
        return self.made


def test_what_is_kept_is_not_made_again(tmp_path):
    make = Maker()
    one = Store(tmp_path / "a" / "b")
    assert one.get("key", make) == one.get("key", make) == b"code"
    assert Store(tmp_path / "a" / "b").get("key", make) == b"code"
    assert make.times == 1
    assert Store(tmp_path / "a" / "b").get("other", make) == b"code"
    assert make.times == 2


@POSIX
def test_only_its_owner_may_look_into_it(tmp_path):
    folder = tmp_path / "cache"
    Store(folder).get("key", Maker())
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "key").stat().st_mode) == 0o600


@POSIX
def test_a_folder_that_is_open_to_others_is_closed(tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir()
    folder.chmod(0o777)
    Store(folder).get("key", Maker())
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@POSIX
def test_a_folder_of_someone_else_is_not_used(tmp_path, monkeypatch):
    make = Maker()
    Store(tmp_path).get("key", make)
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.warns(RuntimeWarning, match="another user owns it"):
        Store(tmp_path).get("key", make)
    assert make.times == 2


@pytest.mark.parametrize("broken", [b"", b"short", bytes(32) + b"code"])
def test_a_broken_entry_is_made_again(tmp_path, broken):
    make = Maker()
    Store(tmp_path).get("key", make)
    (tmp_path / "key").write_bytes(broken)
    assert Store(tmp_path).get("key", make) == b"code"
    assert Store(tmp_path).get("key", make) == b"code"
    assert make.times == 2


def test_where_no_folder_can_be_it_warns_once_and_keeps_in_memory(tmp_path):
    (tmp_path / "file").touch()
    make, store = Maker(), Store(tmp_path / "file" / "cache")
    with pytest.warns(RuntimeWarning, match=r"file/cache cannot be .* make it writable") as said:
        found = [store.get(key, make) for key in ("key", "key", "other")]
    assert found == [b"code"] * 3
    assert make.times == 2
    assert len(said) == 1


@pytest.mark.parametrize("call", ["mkstemp", "replace"])
def test_where_nothing_can_be_written_nothing_is_left_behind(tmp_path, monkeypatch, call):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.mkstemp" if call == "mkstemp" else "os.replace", full)
    with pytest.warns(RuntimeWarning, match="No space left on device"):
        assert Store(tmp_path).get("key", Maker()) == b"code"
    assert list(tmp_path.iterdir()) == []


def test_an_entry_that_cannot_be_read(tmp_path):
    (tmp_path / "key").mkdir()
    with pytest.warns(RuntimeWarning, match="cannot be used"):
        assert Store(tmp_path).get("key", Maker()) == b"code"


def test_no_home(monkeypatch):
    def lost():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", lost)
    with pytest.warns(RuntimeWarning, match="the user's cache folder cannot be used"):
        assert Store().get("key", Maker()) == b"code"


def test_a_failure_to_make_is_not_kept(tmp_path):
    def fail():
        raise ValueError("no")

    store = Store(tmp_path)
    with pytest.raises(ValueError, match="no"):
        store.get("key", fail)
    assert store.get("key", Maker()) == b"code"


def test_threads_share_one_making(tmp_path):
    make, store = Maker(), Store(tmp_path)
    threads = [threading.Thread(target=store.get, args=("key", make)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert make.times == 1


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/tensorfast/cuda"),
        ("linux", {"XDG_CACHE_HOME": ""}, "/home/.cache/tensorfast/cuda"),
        ("darwin", {}, "/home/Library/Caches/tensorfast/cuda"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/tensorfast/cuda"),
        ("win32", {}, "/home/AppData/Local/tensorfast/cuda"),
    ],
)
def test_where_it_is(monkeypatch, platform, variables, expected):
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: Path("/home"))
    assert user_folder() == Path(expected)
