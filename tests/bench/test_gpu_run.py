"""``make gpu`` on a machine without a GPU: what it refuses, and parts that fail, crash and hang."""

import json
import os
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench import gpu
from bench.gpu_parts import PARTS, Part
from bench.gpu_parts.store import last_lines, read, write

ROOT = Path(__file__).resolve().parents[2]

PARTLY = """
import json, pathlib, sys
path = pathlib.Path(sys.argv[1])
record = json.loads(path.read_text())
path.write_text(json.dumps({**record, "entries": [{"n": 1}]}))
"""

HANG = """
import subprocess, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
path.with_suffix(".pid").write_text(str(child.pid))
time.sleep(600)
"""


@dataclass(frozen=True)
class Fake(Part):
    """A part that is a line of Python, and has a second or two."""

    code: str = ""

    def command(self, record, seconds, rehearse):
        return [sys.executable, "-c", PARTLY + self.code, str(record)]

    def allowed(self, left):
        return min(left, self.seconds)


def fakes(**codes):
    seconds = {"hanging": 3}
    return [Fake(name, seconds.get(name, 20), "a fake", code=c) for name, c in codes.items()]


def run(parts, out, budget=60.0, **about):
    return gpu.run_all(parts, out, budget, dict(os.environ), about)


def test_a_part_that_fails_crashes_or_hangs_is_reported_and_the_rest_goes_on(tmp_path, capsys):
    parts = fakes(
        failing="raise ValueError('no good')",
        crashing="import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        hanging=HANG,
        fine="print('all is well')",
    )
    ended = run(parts, tmp_path, rehearsal=True)
    assert ended == {
        "failing": "failed",
        "crashing": "crashed: SIGSEGV",
        "hanging": "ended after 3 s",
        "fine": "done",
    }
    assert gpu.failed(parts, ended) == ["failing", "crashing", "hanging"]
    for name, status in ended.items():
        record = json.loads((tmp_path / f"{name}.json").read_text())
        # What was found before the end is kept, and what the record began with.
        assert record["entries"] == [{"n": 1}]
        assert record["status"] == status
        assert record["rehearsal"]
        assert record["part"] == name
    assert "ValueError: no good" in read(tmp_path / "failing.json")["last_lines"]
    shown = capsys.readouterr().out
    assert "ValueError: no good" in shown
    assert "all is well" in shown
    # What the part had started has ended with it.
    child = int((tmp_path / "hanging.pid").read_text())
    assert ended_within(child, 5)


def ended_within(pid, seconds):
    stop = time.monotonic() + seconds
    while time.monotonic() < stop:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_a_part_is_not_begun_when_the_time_is_over(tmp_path):
    parts = [*fakes(late=""), Fake("spare", 20, "a fake", rest=True)]
    ended = run(parts, tmp_path, budget=1.0)
    assert set(ended.values()) == {"not begun: no time left"}
    assert read(tmp_path / "late.json")["status"] == "not begun: no time left"
    # Nothing is lost where only what was to fill the time did not fit in.
    assert gpu.failed(parts, ended) == ["late"]


def test_no_part_may_take_more_than_is_left():
    part = PARTS[1]
    assert part.seconds < part.allowed(1000) < 2 * part.seconds
    assert part.allowed(30) == 30
    assert PARTS[-1].allowed(200) == 200


def test_a_dry_run_lists_every_part_and_the_sum(capsys):
    assert gpu.main(["--dry-run"]) == 0
    *lines, total = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [part.name for part in PARTS]
    assert [float(line.split()[1]) for line in lines] == [part.seconds for part in PARTS]
    assert float(total.split()[2]) == sum(part.seconds for part in PARTS) <= gpu.BUDGET < 540
    modules = {path.stem for path in (ROOT / "bench" / "gpu_parts").glob("*.py")}
    assert {part.name for part in PARTS} < modules


def test_only_picks_parts_in_their_own_order(capsys):
    assert gpu.main(["--dry-run", "--only", "tucker,machine"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["machine", "tucker", "in"]
    with pytest.raises(SystemExit) as refused:
        gpu.main(["--dry-run", "--only", "sweeps"])
    assert refused.value.code == 2
    assert "unknown parts ['sweeps']; the parts are machine, tests" in capsys.readouterr().err


def test_only_the_parts_asked_for_are_run(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "probe", lambda environment: ("NVIDIA H200", []))
    asked = []

    def run_part(part, *_):
        asked.append(part.name)
        return "done" if part.name == "fit" else "failed"

    monkeypatch.setattr(gpu, "run_part", run_part)
    assert gpu.main(["--only", "fit", "--out", str(tmp_path)]) == 0
    assert gpu.main(["--only", "sync,fit", "--out", str(tmp_path), "--commit", "abc"]) == 1
    assert asked == ["fit", "fit", "sync"]
    assert read(tmp_path / "sync.json")["commit"] == {"id": "abc", "dirty": False}


def test_without_a_gpu_it_says_so():
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        ["make", "gpu", f"PYTHON={sys.executable}", "OUT="],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert done.stderr.startswith("gpu: torch sees no CUDA GPU here")


def test_what_the_python_at_hand_lacks_is_named(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(gpu, "probe", lambda environment: (None, ["triton", "tensorly"]))
    assert gpu.main(["--out", str(tmp_path)]) == 1
    assert "lacks triton\n" in capsys.readouterr().err


def test_wheels_are_unpacked_where_the_parts_find_them(tmp_path):
    with pytest.raises(SystemExit, match="there is no wheel in it"):
        gpu.unpack(tmp_path, tmp_path)
    with zipfile.ZipFile(tmp_path / "rival-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("rival/__init__.py", "answer = 42")
    gpu.unpack(tmp_path, tmp_path / "site")
    assert (tmp_path / "site" / "rival" / "__init__.py").read_text() == "answer = 42"


@pytest.mark.parametrize(
    ("gpu_name", "folder"),
    [("NVIDIA H200", "nvidia-h200"), ("Tesla T4", "nvidia-tesla-t4")],
)
def test_results_lie_under_the_name_of_the_gpu(gpu_name, folder):
    assert gpu.folder_name(gpu_name) == folder


def test_a_rehearsal_goes_nowhere_by_itself(capsys):
    with pytest.raises(SystemExit):
        gpu.main(["--rehearse"])
    assert "needs --out" in capsys.readouterr().err


def test_a_record_tells_no_places_of_the_machine():
    text = f'a\n  File "{ROOT}/bench/x.py"\n  File "/opt/v/lib/python3.12/site-packages/torch/a.py"'
    assert last_lines(text, 2) == '  File "bench/x.py"\n  File "torch/a.py"'


def test_a_record_is_whole_or_not_there(tmp_path):
    path = tmp_path / "deep" / "record.json"
    assert read(path)["entries"] == []
    write(path, {"entries": [1]})
    assert read(path)["entries"] == [1]
    path.write_text('{"entries": [1')
    assert read(path) == {"entries": [], "not_run": [], "failures": []}
