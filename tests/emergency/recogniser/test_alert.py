"""Alerts: kept before they are sent, sent once, and to those who are due."""

import contextlib
import json
import logging
import os
import pathlib
import re
import signal
import subprocess
import sys
import textwrap
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from lib.data.catalog import DataError
from lib.emergency.recogniser.alert import SAME, Alert, Outbox
from lib.paths import ROOT

SAMPLES = (1000 * np.sin(np.arange(64_000) / 9)).astype(np.int16)


def alert(**changes):
    facts = {"kind": "fire", "korean": "화재", "probability": 0.97, "votes": ("CNN", "Whisper encoder"), "onset": 7.3}
    facts |= {"raised": 1.8e9, "location": "부엌", "transcript": "불이야", "model": "0" * 64, "samples": SAMPLES}
    return Alert(**facts | changes)


@pytest.fixture
def server():
    """A real receiver on this machine; `answers` are its status codes, in order, then 200."""
    received, answers = [], []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status = answers.pop(0) if answers else 200
            if status == 200:
                received.append((self.path, body))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass

    http = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    yield f"json://127.0.0.1:{http.server_port}", received, answers
    http.shutdown()
    http.server_close()


class TestKeeping:
    def test_facts_and_sound(self, tmp_path):
        name = Outbox(tmp_path).put(alert())
        kept = json.loads((tmp_path / name / "alert.json").read_text(encoding="utf-8"))
        assert kept["korean"] == "화재" and kept["location"] == "부엌" and kept["onset"] == 7.3
        assert kept["message"] == ('fire (화재) at 부엌, 2027-01-15 08:00:00 UTC, probability 97 %, called by CNN, '
                                   'Whisper encoder. Said: "불이야".')  # fmt: skip
        samples, rate = soundfile.read(tmp_path / name / "clip.flac", dtype="int16")
        assert rate == 16_000 and np.array_equal(samples, SAMPLES)

    @pytest.mark.parametrize(("changes", "kept"), [({"raised": 1.8e9 + 5}, False), ({"raised": 1.8e9 + SAME}, True),
                                                   ({"kind": "fall"}, True), ({"location": "방"}, True)])  # fmt: skip
    def test_the_same_again(self, tmp_path, changes, kept):
        box = Outbox(tmp_path)
        box.put(alert())
        assert bool(box.put(alert(**changes))) == kept and len(box.waiting(everything=True)) == 1 + kept

    def test_a_full_disk_says_what_to_do_and_leaves_nothing_half(self, tmp_path, monkeypatch):
        monkeypatch.setattr(json, "dump", lambda *_, **__: (_ for _ in ()).throw(OSError("No space left on device")))
        with pytest.raises(DataError, match=r"fire \(화재\).*could not be kept.*Act on it now"):
            Outbox(tmp_path).put(alert())
        assert not [path for path in tmp_path.iterdir() if path.name != ".lock"]

    def test_nobody_else_may_read_it(self, tmp_path):
        name = Outbox(tmp_path / "box").put(alert())
        assert (tmp_path / "box" / name).stat().st_mode & 0o077 == 0


class TestSending:
    def test_by_default_to_nobody(self, tmp_path):
        box = Outbox(tmp_path)
        box.put(alert())
        assert box.send() == [] and box.waiting() == []

    def test_to_the_family_once(self, tmp_path, server):
        address, received, _ = server
        box = Outbox(tmp_path, family=[address])
        name = box.put(alert())
        assert box.send() == [name] and box.send() == [] and len(received) == 1
        assert "화재" in received[0][1]["message"] and received[0][1]["attachments"][0]["filename"] == "clip.flac"

    def test_to_the_emergency_contact_after_a_person_has_confirmed(self, tmp_path, server):
        address, received, _ = server
        box = Outbox(tmp_path, family=[f"{address}/family"], emergency=[f"{address}/119"])
        name = box.put(alert())
        box.send()
        assert [path for path, _ in received] == ["/family"]
        box.confirm(name)
        box.send()
        assert [path for path, _ in received] == ["/family", "/119"]

    def test_what_fails_is_visible_and_tried_again_later_each_time(self, tmp_path, server):
        address, received, answers = server
        answers += [500, 500]
        box = Outbox(tmp_path, family=[address])
        name = box.put(alert())
        assert box.send(now=100.0) == [] and box.waiting()[0]["tries"] == 1
        assert box.send(now=104.0) == [] and len(answers) == 1  # not yet due
        assert box.send(now=105.0) == [] and box.waiting()[0]["next"] == 115.0
        assert box.send(now=115.0) == [name] and len(received) == 1 and box.waiting() == []

    def test_survives_a_kill_between_keeping_and_sending(self, tmp_path, server):
        address, received, _ = server
        script = textwrap.dedent(f"""
            import os, signal, numpy as np
            from lib.emergency.recogniser.alert import Alert, Outbox
            box = Outbox({str(tmp_path)!r}, family=[{address!r}])
            box.put(Alert("fire", "화재", .9, ("CNN",), 1.0, 1.8e9, "", "", "0", np.zeros(100, np.int16)))
            os.kill(os.getpid(), signal.SIGKILL)
        """)
        killed = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
        assert killed.returncode == -signal.SIGKILL and not received
        box = Outbox(tmp_path, family=[address])
        assert len(box.send()) == 1 and len(received) == 1

    def test_survives_a_kill_while_it_is_being_sent(self, tmp_path):
        """Told once more rather than not at all."""
        received, sending = [], []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                received.append(self.rfile.read(int(self.headers["Content-Length"])))
                if len(received) == 1:
                    sending[0].kill()
                    sending[0].wait()
                with contextlib.suppress(OSError):  # nobody waits for an answer any more
                    self.send_response(200)
                    self.end_headers()

            def log_message(self, *_):
                pass

        http = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        address = f"json://127.0.0.1:{http.server_port}"
        box = Outbox(tmp_path, family=[address])
        name = box.put(alert())
        alerts = "from lib.emergency.recogniser.alert import Outbox"
        script = f"{alerts}; Outbox({str(tmp_path)!r}, family=[{address!r}]).send(); print(1)"
        sending.append(subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE,
                                        env=os.environ | {"PYTHONPATH": str(ROOT)}))  # fmt: skip
        out, _ = sending[0].communicate(timeout=60)
        assert sending[0].returncode == -signal.SIGKILL and not out and len(received) == 1
        assert box.waiting()[0]["name"] == name and box.send() == [name] and len(received) == 2
        assert box.send() == [] and box.waiting() == []
        http.shutdown(), http.server_close()

    def test_what_was_half_kept_is_not_sent_and_not_left_there(self, tmp_path, server):
        address, received, _ = server
        partial = tmp_path / ".20270115T080000-00000000.partial"
        partial.mkdir()
        (partial / "clip.flac").write_bytes(b"sound")
        box = Outbox(tmp_path, family=[address])
        assert box.send() == [] and not received
        assert box.put(alert()) and not partial.exists()

    def test_unknown_address(self, tmp_path):
        with pytest.raises(ValueError, match="family: Apprise does not recognise one of the addresses"):
            Outbox(tmp_path, family=["carrier-pigeon"])

    def test_unknown_alert(self, tmp_path):
        with pytest.raises(DataError, match="no alert 'x'"):
            Outbox(tmp_path).confirm("x")


def test_logs_hold_neither_words_nor_places(tmp_path, server, caplog):
    address, _, answers = server
    answers += [500]
    caplog.set_level(logging.DEBUG)
    box = Outbox(tmp_path, family=[address])
    box.put(alert(transcript="비밀번호는 사과", location="서울시 어딘가"))
    box.send(now=1.0), box.send(now=100.0)
    assert not re.search("사과|어딘가", caplog.text)


class TestWhatMustNotStopTheOthers:
    @pytest.mark.parametrize("content", [None, "", "{", "null", "[]", "{}", '{"told": 3}'], ids=repr)
    def test_a_damaged_alert(self, tmp_path, server, caplog, content):
        address, received, _ = server
        box = Outbox(tmp_path, family=[address])
        damaged = box.put(alert())
        if content is None:
            (tmp_path / damaged / "alert.json").unlink()
        else:
            (tmp_path / damaged / "alert.json").write_text(content)
        whole = box.put(alert(kind="fall", raised=1.8e9 + 9))
        assert box.send() == [whole] and box.send() == [] and not box.waiting()
        assert len(received) == 1 and f"{damaged} cannot be read" in caplog.text
        assert (tmp_path / damaged / "clip.flac").exists()

    DAMAGED = [{"raised": "now"}, {"raised": 10**400}, {"next": None}, {"told": "family"}, {"told": [[]]}]
    DAMAGED += [{"message": 3}, {"name": "../x"}, {"tries": "1"}]

    @pytest.mark.parametrize("change", DAMAGED, ids=repr)
    def test_a_damaged_fact(self, tmp_path, server, caplog, change):
        """Of an alert that is there must not keep another one from being kept and sent."""
        box = Outbox(tmp_path, family=[server[0]])
        damaged = box.put(alert())
        path = tmp_path / damaged / "alert.json"
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | change))
        whole = box.put(alert(kind="fall"))
        assert box.send() == [whole] and f"{damaged} cannot be read" in caplog.text

    def test_a_receiver_that_refuses_the_sound_gets_the_words(self, tmp_path, server):
        address, received, answers = server
        answers += [413]
        box = Outbox(tmp_path, family=[address])
        name = box.put(alert())
        assert box.send(now=100.0) == [] and box.send(now=105.0) == [name]
        ((_, message),) = received
        assert "화재" in message["message"] and not message["attachments"]

    def test_of_several_addresses_only_those_not_reached_are_tried_again(self, tmp_path, server):
        address, received, answers = server
        answers += [200, 500]
        box = Outbox(tmp_path, family=[f"{address}/a", f"{address}/b"])
        name = box.put(alert())
        assert box.send(now=100.0) == [] and [path for path, _ in received] == ["/a"]
        assert box.send(now=105.0) == [name] and [path for path, _ in received] == ["/a", "/b"]
        assert address not in (tmp_path / name / "alert.json").read_text(encoding="utf-8")  # it may hold a password

    def test_an_address_that_is_added_later_is_not_sent_what_is_over(self, tmp_path, server):
        address, received, _ = server
        box = Outbox(tmp_path, family=[address])
        name = box.put(alert())
        assert box.send() == [name]
        assert Outbox(tmp_path, family=[address, f"{address}/new"]).send() == [] and len(received) == 1

    def test_a_clock_that_was_set_back(self, tmp_path, server):
        address, _, answers = server
        answers += [500]
        box = Outbox(tmp_path, family=[address])
        name = box.put(alert())
        assert box.send(now=4e9) == [] and box.send(now=1.8e9) == [name]

    def test_a_sender_that_raises(self, tmp_path, server, monkeypatch):
        address, received, _ = server
        box = Outbox(tmp_path, family=[f"{address}/a", f"{address}/b"])
        name = box.put(alert())
        first = next(iter(box._senders["family"].values()))
        monkeypatch.setattr(first, "notify", lambda **_: 1 / 0)
        assert box.send(now=100.0) == [] and [path for path, _ in received] == ["/b"]
        monkeypatch.undo()
        assert box.send(now=105.0) == [name] and [path for path, _ in received] == ["/b", "/a"]

    def test_a_disk_that_fills_while_sending(self, tmp_path, server, monkeypatch):
        address, received, _ = server
        box = Outbox(tmp_path, family=[address])
        names = [box.put(alert()), box.put(alert(kind="fall"))]

        def full(folder, alert):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("lib.emergency.recogniser.alert._write", full)
        with pytest.raises(DataError, match="could not be noted.*No space left.*Free some"):
            box.send()
        assert len(received) == 2
        monkeypatch.undo()
        assert sorted(box.send()) == sorted(names)


class Killed(BaseException):
    """In place of SIGKILL: nothing is done after it."""


class Steps:
    """Every access to the disk and every message, counted; the `fails`-th does not happen.

    kill: nor does any after it; else it is an OSError, and the others go well.
    """

    def __init__(self, patch, fails=None, kill=False):
        self.fails, self.kill, self.count, self.received, self.unsure = fails, kill, 0, [], set()
        for owner, names in ((pathlib.Path, ("mkdir", "rename", "replace", "open", "read_text", "exists", "unlink")),
                             (os, ("open", "fsync")), (soundfile, ("write",)), (json, ("dump",))):  # fmt: skip
            for name in names:
                # No power is cut here: whether the disk has the bytes is not waited for.
                step = (lambda descriptor: None) if name == "fsync" else getattr(owner, name)
                patch.setattr(owner, name, self.counted(step))

        def sender():
            addresses = []
            notify = self.counted(lambda **message: self.received.append((addresses[0], message["title"])) or True)
            return SimpleNamespace(add=lambda address: addresses.append(address) or True, notify=notify)

        patch.setattr("lib.emergency.recogniser.alert.apprise.Apprise", sender)

    def counted(self, function):
        def step(*args, **options):
            self.count += 1
            if self.fails and (self.count == self.fails or (self.kill and self.count > self.fails)):
                raise Killed if self.kill else OSError(28, "No space left on device")
            return function(*args, **options)

        return step


def a_day(folder, patch, fails=None, kill=False):
    """Put two alerts, send and confirm; what was kept, what was told to have failed, and what arrived."""
    steps, kept, failed = Steps(patch, fails, kill), [], []
    turns = []
    for number, kind in enumerate(("fire", "fall")):
        one = alert(kind=kind, raised=1.8e9 + 100 * number)
        turns += [lambda box, one=one: kept.append(box.put(one)), Outbox.send,
                  lambda box: kept and box.confirm(kept[0]), Outbox.send]  # fmt: skip
    try:
        for turn in turns:
            try:
                turn(Outbox(folder, family=["a", "b"], emergency=["119"]))
            except DataError as error:
                failed.append(str(error))
    except Killed:
        failed.append("killed")
    return steps, [name for name in kept if name], failed


class TestAnyStepMayFail:
    """One after the other, each of them; then everything works again."""

    @pytest.fixture
    def steps(self, tmp_path_factory):
        with pytest.MonkeyPatch.context() as patch:
            steps, kept, failed = a_day(tmp_path_factory.mktemp("whole"), patch)
        assert len(kept) == 2 and not failed and len(steps.received) == 5
        return steps.count

    @pytest.mark.parametrize("kill", [False, True], ids=["an error", "a kill"])
    def test_nothing_is_lost_and_little_said_twice(self, tmp_path, steps, kill):
        for fails in range(1, steps + 1):
            folder = tmp_path / str(fails)
            with pytest.MonkeyPatch.context() as patch:
                before, kept, failed = a_day(folder, patch, fails, kill)
            with pytest.MonkeyPatch.context() as patch:
                after = Steps(patch)
                box = Outbox(folder, family=["a", "b"], emergency=["119"])
                box.send(now=4e9), box.send(now=4.1e9)
                everything = box.waiting(everything=True)
                assert not box.waiting(), fails
            received = before.received + after.received
            twice = len(received) - len(set(received))
            # What was put reaches all; whatever was not is told at once, or the process was killed in `put`.
            assert {name for name in kept} <= {one["name"] for one in everything}, fails
            for one in everything:
                assert {(to, f"Emergency? {one['kind']}") for to in ("a", "b")} <= set(received), fails
            assert len(everything) == 2 or failed, fails
            assert kill or len(everything) == 2 or any("could not be kept" in line for line in failed), fails
            assert twice <= 1, (fails, received)
            assert not list(folder.glob(".*.partial")), fails


def test_a_kind_that_is_no_text(tmp_path, server):
    """A class folder named in CP949 has lone surrogates in its name."""
    address, received, _ = server
    name = os.fsdecode("화재".encode("cp949"))
    box = Outbox(tmp_path, family=[address])
    assert box.put(alert(kind=name, korean=name, location=name)) and box.put(alert(kind=name, location=name)) is None
    assert len(box.send()) == 1 and "\\udc" in received[0][1]["message"]


def test_a_sound_that_cannot_be_kept_leaves_the_words(tmp_path, server):
    """libsndfile's errors are no OSError."""
    address, received, _ = server
    box = Outbox(tmp_path, family=[address])
    box.put(alert(samples=SAMPLES.astype(np.complex64)))
    assert len(box.send()) == 1 and "화재" in received[0][1]["message"] and not received[0][1]["attachments"]
