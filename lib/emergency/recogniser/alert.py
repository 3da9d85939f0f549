"""Alerts: what is said of an emergency, to whom, and that none is lost.

    outbox = Outbox(folder, family=["mailto://…"], emergency=["json://…"])
    outbox.put(alert)      # on disk, whole or not at all, before anything is sent
    outbox.send()          # to the family; what fails is tried again later
    outbox.confirm(name)   # a person says that it is one: now the emergency contact gets it too

By default there is nobody to send to, and alerts stay in the folder. This is a study, and no safety device.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import apprise
import numpy as np
import soundfile
from filelock import FileLock

from lib.data.catalog import DataError
from lib.emergency.features import RATE

_log = logging.getLogger(__name__)
logging.getLogger("apprise").setLevel(logging.INFO)  # what it says at DEBUG holds the whole message

FIRST_RETRY, LAST_RETRY = 5.0, 3600.0  # seconds after a failed try; doubled each time
SAME = 60.0  # seconds within which an alert of the same kind and place is the same
# What the files of an alert have to hold.
FACTS = {"kind": str, "location": str, "message": str, "raised": (int, float)}
STATE = {"told": dict, "tries": int, "next": (int, float), "confirmed": bool}


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
        return f"{stamp}-{hashlib.sha256(facts.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"

    def message(self) -> str:
        said = f' Said: "{self.transcript}".' if self.transcript else ""
        where = f" at {self.location}" if self.location else ""
        when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.raised))
        return (f"{self.kind} ({self.korean}){where}, {when}, probability {100 * self.probability:.0f} %, "
                f"called by {', '.join(self.votes)}.{said}")  # fmt: skip


class Outbox:
    """Alerts in a folder, each with its sound and with the addresses that it has reached.

    family, emergency: addresses as apprise reads them (https://github.com/caronc/apprise). The emergency contact gets
    what a person has confirmed, and nothing else. An alert that cannot be read is moved to `damaged/`, with a warning.
    """

    def __init__(self, folder: Path, family: Sequence[str] = (), emergency: Sequence[str] = ()):
        self.folder = Path(folder)
        # One sender for each address, so that a retry leaves out those that were reached. They are noted by a hash,
        # as an address may hold a password.
        self._senders: dict[str, dict[str, apprise.Apprise]] = {"family": {}, "emergency": {}}
        for group, addresses in (("family", family), ("emergency", emergency)):
            for address in addresses:
                sender = apprise.Apprise()
                if not sender.add(address):
                    raise ValueError(f"{group}: an address is none that apprise knows; see its list of services")
                self._senders[group][f"{group} {hashlib.sha256(address.encode()).hexdigest()[:8]}"] = sender

    def put(self, alert: Alert) -> str | None:
        """Keep `alert`; its name, or None if one of its kind was raised at its place within `SAME` seconds."""
        try:
            with self._lock():
                self._finish()
                for other in self.waiting(everything=True):
                    near = abs(other["raised"] - alert.raised) < SAME
                    if near and (other["kind"], other["location"]) == (alert.kind, alert.location):
                        return None
                partial = self.folder / f".{alert.name}.partial"
                try:
                    partial.mkdir(mode=0o700, exist_ok=True)
                    facts = {name: value for name, value in asdict(alert).items() if name != "samples"}
                    _write(partial / "alert.json", facts | {"name": alert.name, "message": alert.message()})
                    try:
                        soundfile.write(partial / "clip.flac", alert.samples, RATE)
                    except (
                        Exception
                    ) as error:  # libsndfile's are no OSError; words without their sound are better than nothing
                        _log.warning("The sound of the alert %s could not be kept: %s", alert.name, error)
                        (partial / "clip.flac").unlink(missing_ok=True)
                    partial.rename(self.folder / alert.name)
                except OSError:
                    self._finish()
                    raise
        except (OSError, TypeError, ValueError) as error:
            raise DataError(f"The alert {alert.message()} could not be kept in {self.folder} ({error}). "
                            "Act on it now, and free some space there.") from error  # fmt: skip
        return alert.name

    def _finish(self) -> None:
        """Put in its place what `put` has written, now or before it was killed; drop what lacks its words."""
        for partial in self.folder.glob(".*.partial"):
            with contextlib.suppress(OSError):  # a full disk, say: another time
                if _checked(partial / "alert.json", FACTS):
                    partial.rename(self.folder / partial.name[1 : -len(".partial")])
                else:
                    shutil.rmtree(partial)

    def send(self, now: float | None = None) -> list[str]:
        """Attempt every pending delivery once; returns the alerts that have reached all recipients.

        What fails is due again after 5 s, 10 s, 20 s … an hour at most, and `waiting` shows its tries. Every second
        try leaves the sound out, for a receiver that does not take it (too large, say).

        Raises:
            DataError: the folder cannot be used; or something was sent, but the disk does not take a note of it, and it
                will be sent again.
        """
        try:
            with self._lock():
                return self._send(time.time() if now is None else now)
        except OSError as error:
            raise DataError(f"The alerts in {self.folder} could not be sent ({error}). Make the folder readable and "
                            "writable, and look there for what is due.") from error  # fmt: skip

    def _send(self, now: float) -> list[str]:
        done, unnoted = [], []
        self._finish()
        for alert in self.waiting():
            # Later than any retry could be: the clock has been set back.
            if now < alert["next"] <= now + LAST_RETRY:
                continue
            try:
                if self._deliver(alert, now):
                    done.append(alert["name"])
            except OSError as error:
                unnoted.append(f"{alert['name']} ({error})")
        if unnoted:
            raise DataError(f"It could not be noted in {self.folder} who has received {', '.join(unnoted)}. Free some "
                            "space there; until then these alerts are sent again and again.")  # fmt: skip
        return done

    def _deliver(self, alert: dict, now: float) -> bool:
        """Send to every address that is due; whether all were reached. OSError where this cannot be noted."""
        told, due = dict(alert["told"]), self._due(alert)
        for group in due:
            for address, sender in self._senders[group].items():
                if address not in told and _sent(sender, alert, self.folder / alert["name"] / "clip.flac"):
                    told[address] = now
                    # Written after each: a crash between two repeats one message at most, and loses none. On a full
                    # disk the other addresses come first: all are noted again below.
                    with contextlib.suppress(OSError):
                        self._note(alert["name"], told=told, tries=0, next=0.0)
            if self._senders[group].keys() <= told.keys():
                told[group] = now  # an address that is added later is not sent what is over
        if complete := told.keys() >= set(due):
            self._note(alert["name"], told=told)
        else:
            wait = min(FIRST_RETRY * 2 ** min(alert["tries"], 10), LAST_RETRY)
            self._note(alert["name"], told=told, tries=alert["tries"] + 1, next=now + wait)
        return complete

    def confirm(self, name: str) -> None:
        """A person says that it is an emergency: the emergency contact is due.

        Raises:
            DataError: there is no alert of this name, or the disk does not take a note of it.
        """
        try:
            with self._lock():
                if not (self.folder / name / "alert.json").exists():
                    raise DataError(f"There is no alert {name!r} in {self.folder}.")
                self._note(name, confirmed=True, next=0.0)
        except OSError as error:
            raise DataError(f"It could not be noted in {self.folder} that {name} is confirmed ({error}). Call for help "
                            "yourself, and free some space there.") from error  # fmt: skip

    def waiting(self, everything: bool = False) -> list[dict[str, Any]]:
        """Pending alerts, oldest first: their facts, the addresses reached, and how many tries have failed; with
        `everything`, all alerts."""
        found = []
        for folder in sorted(self.folder.glob("[0-9]*/")):
            try:
                alert = _checked(folder / "alert.json", FACTS)
                if alert is None:
                    self._set_aside(folder)
                    continue
                alert |= _state(folder) | {"name": folder.name}
            except OSError as error:  # it may be whole: too many open files, or a disk that comes back
                _log.warning("The alert %s cannot be read now (%s); it is tried again.", folder.name, error)
                continue
            if everything or self._due(alert):
                found.append(alert)
        return found

    def _set_aside(self, folder: Path) -> None:
        """Move an alert whose text cannot be read out of the way of the others; its sound stays with it."""
        aside = self.folder / "damaged" / f"{folder.name}-{time.time_ns()}"
        try:
            aside.parent.mkdir(mode=0o700, exist_ok=True)
            folder.rename(aside)
        except OSError:
            aside = folder  # a full or read-only disk: it is passed over each time
        _log.warning("The alert %s cannot be read; what is left of it is in %s. Listen to its clip.flac: nobody was "
                     "sent it.", folder.name, aside)  # fmt: skip

    def _due(self, alert: dict) -> list[str]:
        allowed = ["family", "emergency"] if alert["confirmed"] else ["family"]
        return [group for group in allowed if self._senders[group] and group not in alert["told"]]

    def _note(self, name: str, **changes: Any) -> None:
        folder = self.folder / name
        _write(folder / "state.json", _state(folder) | changes)

    def _lock(self) -> FileLock:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return FileLock(self.folder / ".lock")


def _state(folder: Path) -> dict[str, Any]:
    """Who was reached and when the next try is; as at first where that cannot be read: twice is better than never."""
    return _checked(folder / "state.json", STATE) or {"told": {}, "tries": 0, "next": 0.0, "confirmed": False}


def _checked(path: Path, kinds: Mapping[str, type | tuple[type, ...]]) -> dict[str, Any] | None:
    """The content of a JSON file; None where it is missing, no JSON, or lacks one of `kinds`.

    Raises:
        OSError: it is there, and cannot be read now.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    whole = isinstance(content, dict) and all(isinstance(content.get(name), kind) for name, kind in kinds.items())
    return content if whole else None


def _sent(sender: apprise.Apprise, alert: dict, clip: Path) -> bool:
    """Send one alert to one address; whether it was taken."""
    body, title = (text.encode("utf-8", "backslashreplace").decode() for text in
                   (alert["message"], f"Emergency? {alert['kind']}"))  # fmt: skip
    try:
        sound = {"attach": str(clip)} if alert["tries"] % 2 == 0 and clip.exists() else {}
        return bool(sender.notify(body=body, title=title, notify_type=apprise.NotifyType.WARNING, **sound))
    except Exception as error:  # whatever one sender does, the others are to be tried
        _log.warning("%s could not be sent: %s", alert["name"], type(error).__name__)
        return False


def _write(path: Path, content: dict) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    # A class named by a folder in CP949 holds lone surrogates: as JSON's own escapes they are read again.
    with temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
        json.dump(content, file, ensure_ascii=False, indent=1, default=float)
        file.flush()
        os.fsync(file.fileno())  # an alert outlives a power cut as well
    temporary.replace(path)
