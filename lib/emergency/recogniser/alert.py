"""Alerts: what is said of an emergency, to whom, and that none is lost.

    outbox = Outbox(folder, family=["mailto://…"], emergency=["json://…"])
    outbox.put(alert)      # on disk, whole or not at all, before anything is sent
    outbox.send()          # to the family; what fails is tried again later
    outbox.confirm(name)   # a person says that it is one: now the emergency contact gets it too

By default there is nobody to send to, and alerts stay in the folder. This is a study, and no safety device.
"""

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import apprise
import numpy as np
import soundfile
from filelock import FileLock

from lib.data.catalog import DataError
from lib.emergency.features import RATE

logging.getLogger("apprise").setLevel(logging.INFO)  # what it says at DEBUG holds the whole message

FIRST_RETRY, LAST_RETRY = 5.0, 3600.0  # seconds after a failed try; doubled each time
SAME = 60.0  # seconds within which an alert of the same kind and place is the same


@dataclass(frozen=True)
class Alert:
    """kind, korean: what happens. probability: calibrated, of an emergency. votes: who called it one.

    onset: seconds into the recording. raised: seconds since 1970, UTC. location: from configuration, never guessed.
    transcript: what was said. model: digest of the weights. samples: (n,) int16 at 16 kHz, in which it was heard.
    """

    kind: str
    korean: str
    probability: float
    votes: tuple[str, ...]
    onset: float
    raised: float
    location: str
    transcript: str
    model: str
    samples: np.ndarray = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        """Sorts by time; the same alert has the same name."""
        facts = f"{self.kind} {self.location} {self.onset:.3f} {self.model}"
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(self.raised))
        return f"{stamp}-{hashlib.sha256(facts.encode()).hexdigest()[:8]}"

    def message(self) -> str:
        said = f' Said: "{self.transcript}".' if self.transcript else ""
        where = f" at {self.location}" if self.location else ""
        when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.raised))
        return (f"{self.kind} ({self.korean}){where}, {when}, probability {100 * self.probability:.0f} %, "
                f"called by {', '.join(self.votes)}.{said}")  # fmt: skip


class Outbox:
    """Alerts in a folder, each with its sound and with who has been told.

    family, emergency: addresses as apprise reads them (https://github.com/caronc/apprise). The emergency contact gets
    what a person has confirmed, and nothing else.
    """

    def __init__(self, folder: Path, family: Sequence[str] = (), emergency: Sequence[str] = ()):
        self.folder = Path(folder)
        self._who = {"family": apprise.Apprise(), "emergency": apprise.Apprise()}
        for name, addresses in (("family", family), ("emergency", emergency)):
            for address in addresses:
                if not self._who[name].add(address):
                    raise ValueError(f"{name}: an address is none that apprise knows; see its list of services")

    def put(self, alert: Alert) -> str | None:
        """Keep `alert`; its name, or None if one of its kind was raised at its place within `SAME` seconds."""
        with self._lock():
            for other in self.waiting(everything=True):
                near = abs(other["raised"] - alert.raised) < SAME
                if near and (other["kind"], other["location"]) == (alert.kind, alert.location):
                    return None
            for left in self.folder.glob(".*.partial"):  # by a process that was killed: sound that nobody will need
                shutil.rmtree(left, ignore_errors=True)
            partial = self.folder / f".{alert.name}.partial"
            try:
                partial.mkdir(mode=0o700, parents=True)
                soundfile.write(partial / "clip.flac", alert.samples, RATE)
                facts = {name: value for name, value in asdict(alert).items() if name != "samples"}
                _write(partial / "alert.json", facts | {"name": alert.name, "message": alert.message()})
                _write(partial / "state.json", {"told": {}, "tries": 0, "next": 0.0, "confirmed": False})
                partial.rename(self.folder / alert.name)
            except OSError as error:
                shutil.rmtree(partial, ignore_errors=True)
                raise DataError(f"The alert {alert.message()} could not be kept in {self.folder} ({error}). "
                                "Act on it now, and free some space there.") from error  # fmt: skip
        return alert.name

    def send(self, now: float | None = None) -> list[str]:
        """Try once to tell whoever is due; the names of alerts that are now told to all of them.

        What fails is due again after 5 s, 10 s, 20 s … an hour at most, and `waiting` shows its tries.
        """
        now, done = time.time() if now is None else now, []
        with self._lock():
            for alert in self.waiting():
                if alert["next"] > now:
                    continue
                told, complete = dict(alert["told"]), True
                for who in self._due(alert):
                    clip = str(self.folder / alert["name"] / "clip.flac")
                    sent = self._who[who].notify(body=alert["message"], title=f"Emergency? {alert['kind']}",
                                                 notify_type=apprise.NotifyType.WARNING, attach=clip)  # fmt: skip
                    if sent:
                        told[who] = now
                        # Written after each: a crash between two repeats one message at most, and loses none.
                        self._note(alert["name"], told=told, tries=0, next=0.0)
                    else:
                        complete = False
                if complete:
                    done.append(alert["name"])
                else:
                    wait = min(FIRST_RETRY * 2 ** alert["tries"], LAST_RETRY)
                    self._note(alert["name"], told=told, tries=alert["tries"] + 1, next=now + wait)
        return done

    def confirm(self, name: str) -> None:
        """A person says that it is an emergency: the emergency contact is due.

        Raises:
            DataError: there is no alert of this name.
        """
        with self._lock():
            if not (self.folder / name / "state.json").exists():
                raise DataError(f"There is no alert {name!r} in {self.folder}.")
            self._note(name, confirmed=True, next=0.0)

    def waiting(self, everything: bool = False) -> list[dict[str, Any]]:
        """Alerts that somebody is still to be told of, oldest first: their facts, who was told, and how many tries
        have failed; with `everything`, all alerts."""
        found = []
        for path in sorted(self.folder.glob("[0-9]*/alert.json")):
            alert = json.loads(path.read_text(encoding="utf-8")) | _state(path.parent)
            if everything or self._due(alert):
                found.append(alert)
        return found

    def _due(self, alert: dict) -> list[str]:
        allowed = ["family", "emergency"] if alert["confirmed"] else ["family"]
        return [who for who in allowed if len(self._who[who]) and who not in alert["told"]]

    def _note(self, name: str, **changes: Any) -> None:
        folder = self.folder / name
        _write(folder / "state.json", _state(folder) | changes)

    def _lock(self) -> FileLock:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return FileLock(self.folder / ".lock")


def _state(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "state.json").read_text(encoding="utf-8"))


def _write(path: Path, content: dict) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(content, file, ensure_ascii=False, indent=1)
        file.flush()
        os.fsync(file.fileno())  # an alert outlives a power cut as well
    temporary.replace(path)
