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
import math
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
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
# What is kept of an alert beside its facts. told: groups and addresses that have it. next: when a try is due.
_UNSENT = {"told": [], "tries": 0, "next": 0.0, "confirmed": False}
_TYPES = {"name": str, "kind": str, "location": str, "message": str, "raised": int | float}
_TYPES |= {"told": list, "tries": int, "next": int | float, "confirmed": bool}


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
    what a person has confirmed, and nothing else. An alert that cannot be read is passed over, with a warning.
    Each method raises a DataError where the folder cannot be written.
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
                    raise ValueError(f"{group}: Apprise does not recognise one of the addresses, expected URLs such as "
                                     "mailto://…; see https://github.com/caronc/apprise")  # fmt: skip
                self._senders[group][f"{group} {hashlib.sha256(address.encode()).hexdigest()[:8]}"] = sender

    def put(self, alert: Alert) -> str | None:
        """Keep `alert`; its name, or None if one of its kind was raised at its place within `SAME` seconds."""
        facts = {name: value for name, value in vars(alert).items() if name != "samples"}
        with self._locked(f"The alert {alert.message()} could not be kept", "Act on it now"):
            for other in self.waiting(everything=True):
                near = abs(other["raised"] - alert.raised) < SAME
                if near and (other["kind"], other["location"]) == (alert.kind, alert.location):
                    return None
            partial = self.folder / f".{alert.name}.partial"
            partial.mkdir(mode=0o700)
            try:
                _write(partial, facts | {"name": alert.name, "message": alert.message()} | _UNSENT)
                try:
                    soundfile.write(partial / "clip.flac", alert.samples, RATE)
                except Exception as error:  # words without their sound are better than nothing
                    _log.warning("The sound of the alert %s could not be kept: %s", alert.name, error)
                    (partial / "clip.flac").unlink(missing_ok=True)
                partial.rename(self.folder / alert.name)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        return alert.name

    def send(self, now: float | None = None) -> list[str]:
        """Attempt every pending delivery once; returns the alerts that have reached all recipients.

        What fails is due again after 5 s, 10 s, 20 s … an hour at most, and `waiting` shows its tries.
        """
        now, done, failure = time.time() if now is None else now, [], None
        with self._locked("It could not be noted who has received alerts", "Until then they are sent again"):
            for alert in self.waiting():
                # Later than any retry could be: the clock has been set back.
                if now < alert["next"] <= now + LAST_RETRY:
                    continue
                try:
                    self._deliver(alert, now)
                except OSError as error:  # raised after the other alerts
                    failure = error
                if not self._due(alert):
                    done.append(alert["name"])
            if failure:
                raise failure
        return done

    def _deliver(self, alert: dict, now: float) -> None:
        """Send to every address that is due. OSError where this cannot be noted."""
        folder = self.folder / alert["name"]
        for group in self._due(alert):
            for address, sender in self._senders[group].items():
                if address not in alert["told"] and _sent(sender, alert, folder / "clip.flac"):
                    alert["told"].append(address)
                    _write(folder, alert)  # after each: a crash repeats one message at most, and loses none
            if self._senders[group].keys() <= set(alert["told"]):
                alert["told"].append(group)  # an address that is added later is not sent what is over
        if self._due(alert):
            alert["next"] = now + min(FIRST_RETRY * 2 ** min(alert["tries"], 10), LAST_RETRY)
            alert["tries"] += 1
        _write(folder, alert)

    def confirm(self, name: str) -> None:
        """A person says that it is an emergency: the emergency contact is due. DataError: no alert has this name."""
        with self._locked(f"It could not be noted that {name} is confirmed", "Call for help yourself"):
            found = [alert for alert in self.waiting(everything=True) if alert["name"] == name]
            if not found:
                raise DataError(f"There is no alert {name!r} in {self.folder}.")
            _write(self.folder / name, found[0] | {"confirmed": True, "next": 0.0})

    def waiting(self, everything: bool = False) -> list[dict[str, Any]]:
        """Pending alerts, oldest first: their facts, the addresses reached, and how many tries have failed; with
        `everything`, all alerts."""
        found = []
        for folder in sorted(self.folder.glob("[0-9]*/")):
            try:
                alert = json.loads((folder / "alert.json").read_text(encoding="utf-8"))
                whole = all(isinstance(alert[fact], kind) for fact, kind in _TYPES.items())
                whole = whole and alert["name"] == folder.name and all(isinstance(one, str) for one in alert["told"])
                whole = whole and math.isfinite(alert["raised"]) and math.isfinite(alert["next"])
            except (OSError, ValueError, LookupError, TypeError, OverflowError, RecursionError):
                whole = False
            if not whole:
                _log.warning("The alert %s cannot be read, and is not sent. Listen to its clip.flac.", folder)
            elif everything or self._due(alert):
                found.append(alert)
        return found

    def _due(self, alert: dict) -> list[str]:
        allowed = ["family", "emergency"] if alert["confirmed"] else ["family"]
        return [group for group in allowed if self._senders[group] and group not in alert["told"]]

    @contextlib.contextmanager
    def _locked(self, failed: str, advice: str) -> Iterator[None]:
        """The folder for one process at a time, without what a killed one left half written. OSError as DataError."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with FileLock(self.folder / ".lock"):
                for partial in self.folder.glob(".*.partial"):
                    shutil.rmtree(partial)
                yield
        except OSError as error:
            raise DataError(f"{failed} in {self.folder} ({error}). {advice}. Free some space there.") from error


def _sent(sender: apprise.Apprise, alert: dict, clip: Path) -> bool:
    """Send one alert to one address; whether it was taken."""
    body, title = (text.encode("utf-8", "backslashreplace").decode() for text in
                   (alert["message"], f"Emergency? {alert['kind']}"))  # fmt: skip
    try:
        # Only the first try has the sound, which some receivers refuse (too large, say).
        sound = {"attach": str(clip)} if not alert["tries"] and clip.exists() else {}
        return bool(sender.notify(body=body, title=title, notify_type=apprise.NotifyType.WARNING, **sound))
    except Exception as error:  # whatever one sender does, the others are to be tried
        _log.warning("%s could not be sent: %s", alert["name"], type(error).__name__)
        return False


def _write(folder: Path, alert: dict) -> None:
    temporary = folder / ".alert.json.tmp"
    # A class named by a folder in CP949 holds lone surrogates: as JSON's own escapes they are read again.
    with temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
        json.dump(alert, file, ensure_ascii=False, indent=1, default=float)
        file.flush()
        os.fsync(file.fileno())  # an alert outlives a power cut as well
    temporary.replace(folder / "alert.json")
