"""Alerts: stored before they are sent, and sent to the contacts that are due."""

import contextlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
import soundfile

from lib.data.catalog import DataError
from lib.emergency.recogniser.alert import Alert, Outbox
from lib.paths import ROOT

SAMPLES = (1000 * np.sin(np.arange(64_000) / 9)).astype(np.int16)


def alert(**changes):
    facts = {"kind": "fire", "korean": "화재", "probability": 0.97, "votes": ("CNN", "Whisper encoder"), "onset": 7.3}
    facts |= {"raised": 1.8e9, "location": "부엌", "transcript": "불이야", "model": "0" * 64, "samples": SAMPLES}
    return Alert(**facts | changes)


@pytest.fixture
def server():
    """A local HTTP receiver; `answers` are its status codes, in order, then 200."""
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
        assert kept["message"] == ('fire (화재) at 부엌, 2027-01-15 08:00:00 UTC, probability 97 %, detected by CNN, '
                                   'Whisper encoder. Said: "불이야".')  # fmt: skip
        samples, rate = soundfile.read(tmp_path / name / "clip.flac", dtype="int16")
        assert rate == 16_000 and np.array_equal(samples, SAMPLES)

    def test_a_full_disk_says_what_to_do_and_leaves_nothing_half(self, tmp_path, monkeypatch):
        monkeypatch.setattr(os, "replace", lambda *_, **__: (_ for _ in ()).throw(OSError("No space left on device")))
        with pytest.raises(DataError, match=r"fire \(화재\).*could not be saved.*Act on it now"):
            Outbox(tmp_path).put(alert())
        assert Outbox(tmp_path, family=["json://127.0.0.1"]).waiting() == []

    def test_nobody_else_may_read_it(self, tmp_path):
        name = Outbox(tmp_path / "box").put(alert())
        assert (tmp_path / "box" / name).stat().st_mode & 0o077 == 0


class TestSending:
    def test_survives_a_kill_while_it_is_being_sent(self, tmp_path):
        """It is sent again rather than lost."""
        received, sending = [], []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                received.append(self.rfile.read(int(self.headers["Content-Length"])))
                if len(received) == 1:
                    sending[0].kill()
                    sending[0].wait()
                with contextlib.suppress(OSError):  # the killed sender no longer waits for an answer
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

    def test_what_fails_is_pending_until_the_next_call(self, tmp_path, server):
        address, received, answers = server
        answers += [500, 500]  # with and without audio
        box = Outbox(tmp_path, family=[address])
        name = box.put(alert())
        assert box.send() == [] and [one["name"] for one in box.waiting()] == [name]
        assert box.send() == [name] and len(received) == 1 and box.waiting() == []

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

    def test_a_receiver_that_refuses_the_sound_gets_the_words(self, tmp_path, server):
        address, received, answers = server
        answers += [413]
        box = Outbox(tmp_path, family=[address])
        name = box.put(alert())
        assert box.send() == [name]
        ((_, message),) = received
        assert "화재" in message["message"] and not message["attachments"]

    def test_of_several_addresses_only_those_not_reached_are_tried_again(self, tmp_path, server):
        address, received, answers = server
        answers += [200, 500, 500]
        box = Outbox(tmp_path, family=[f"{address}/a", f"{address}/b"])
        name = box.put(alert())
        assert box.send() == [] and [path for path, _ in received] == ["/a"]
        assert box.send() == [name] and [path for path, _ in received] == ["/a", "/b"]
        files = [file for file in (tmp_path / name).iterdir() if file.name != "clip.flac"]
        assert not any(
            address in file.name + file.read_text(encoding="utf-8") for file in files
        )  # an address may hold a password

    def test_unknown_address(self, tmp_path):
        with pytest.raises(ValueError, match="Apprise does not recognise one of the addresses"):
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
    box.send(), box.send()
    assert not re.search("사과|어딘가", caplog.text)


def test_a_sound_that_cannot_be_kept_leaves_the_words(tmp_path, server):
    """libsndfile's errors are not OSErrors."""
    address, received, _ = server
    box = Outbox(tmp_path, family=[address])
    box.put(alert(samples=SAMPLES.astype(np.complex64)))
    assert len(box.send()) == 1 and "화재" in received[0][1]["message"] and not received[0][1]["attachments"]


def test_a_damaged_alert_and_one_of_an_earlier_version_do_not_stop_the_others(tmp_path, server, caplog):
    address, received, _ = server
    box = Outbox(tmp_path, family=[address])
    damaged, earlier, good = (box.put(alert(raised=1.8e9 + day * 86_400)) for day in range(3))
    (tmp_path / damaged / "alert.json").write_text("{")
    facts = json.loads((tmp_path / earlier / "alert.json").read_text(encoding="utf-8"))
    (tmp_path / earlier / "alert.json").write_text(json.dumps(facts | {"told": ["family"]}), encoding="utf-8")
    assert box.send() == [good] and len(received) == 1 and damaged in caplog.text
