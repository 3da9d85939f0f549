"""Alerts about detected emergencies: stored on disk first, then sent to the configured contacts.

    outbox = Outbox(folder, family=["mailto://…"], emergency=["json://…"])
    outbox.put(alert)      # written to disk before anything is sent
    outbox.send()          # to the family; failed deliveries are retried by the next call
    outbox.confirm(name)   # a person confirms the emergency: the next call also sends it to the emergency contact

By default there are no contacts, and alerts stay in the folder. This is a research study, not a safety device.
"""

import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apprise
import numpy as np
import soundfile

from lib.data.catalog import DataError
from lib.emergency.features import RATE
from lib.paths import atomic

_log = logging.getLogger(__name__)
logging.getLogger("apprise").setLevel(logging.INFO)  # its DEBUG records contain the whole message


@dataclass(frozen=True)
class Alert:
    """A detected emergency, its calibrated probability, and its window of audio, (n,) int16 at 16 kHz (samples).

    kind, korean: class name. votes: voters that detected it. onset: seconds into the recording. raised: seconds since
    1970, UTC. location: as configured, never guessed. transcript: the words. model: digest of weights and settings.
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
        """An identifier that sorts by time and is the same for the same alert."""
        facts = f"{self.kind} {self.location} {self.onset:.3f} {self.model}"
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(self.raised))
        return f"{stamp}-{hashlib.sha256(facts.encode()).hexdigest()[:8]}"

    def message(self) -> str:
        said = f' Said: "{self.transcript}".' if self.transcript else ""
        where = f" at {self.location}" if self.location else ""
        when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.raised))
        return (f"{self.kind} ({self.korean}){where}, {when}, probability {100 * self.probability:.0f} %, "
                f"detected by {', '.join(self.votes)}.{said}")  # fmt: skip


class Outbox:
    """Alerts on disk, one folder each: its data, its audio, and an empty marker file for each address reached.

    family, emergency: addresses in Apprise's format (https://github.com/caronc/apprise). The emergency contact receives
    only alerts that a person has confirmed. Each address is sent all alerts in the folder that it has not received.
    """

    def __init__(self, folder: Path, family: str | Sequence[str] = (), emergency: str | Sequence[str] = ()):
        self.folder = Path(folder)
        self._family, self._emergency = _senders(family), _senders(emergency)

    def put(self, alert: Alert) -> str:
        """Store `alert` and return its name; DataError if the folder cannot be written."""
        facts = {name: value for name, value in vars(alert).items() if name != "samples"}
        facts |= {"name": alert.name, "message": alert.message()}
        text = json.dumps(facts, ensure_ascii=False, indent=1, default=float)
        folder = self.folder / alert.name
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                soundfile.write(folder / "clip.flac", alert.samples, RATE)
            except Exception as error:  # an alert without audio is better than none
                _log.warning("The sound of the alert %s could not be saved: %s", alert.name, error)
                (folder / "clip.flac").unlink(missing_ok=True)
            with atomic(folder / "alert.json") as temporary:  # written last: without this file there is no alert
                temporary.write_text(text, encoding="utf-8")
        except OSError as error:
            raise DataError(f"The alert {alert.message()} could not be saved in {self.folder} ({error}). Act on it "
                            "now, and free some space there.") from error  # fmt: skip
        return alert.name

    def send(self) -> list[str]:
        """Attempt every pending delivery once; return the names of alerts that have now reached all recipients."""
        done = []
        for alert in self.waiting():
            folder = self.folder / alert["name"]
            for mark, sender in self._due(alert["name"]).items():
                if _sent(sender, alert, folder / "clip.flac"):
                    with contextlib.suppress(OSError):  # if this fails, the alert is sent again; other deliveries go on
                        (folder / mark).touch()
            if not self._due(alert["name"]):
                done.append(alert["name"])
        return done

    def confirm(self, name: str) -> None:
        """Mark an alert as confirmed by a person, so that the emergency contact gets it; DataError if it is unknown."""
        if not (self.folder / name / "alert.json").exists():
            raise DataError(f"There is no alert {name!r} in {self.folder}.")
        (self.folder / name / "confirmed").touch()

    def waiting(self) -> list[dict[str, Any]]:
        """Return the data of alerts that have not reached all recipients, oldest first."""
        found = []
        for path in sorted(self.folder.glob("*/alert.json")):
            try:
                alert = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                _log.warning("%s cannot be read, and is not sent. Listen to the clip.flac beside it.", path)
                continue
            if "told" not in alert and self._due(alert["name"]):  # "told": stored by an earlier version
                found.append(alert)
        return found

    def _due(self, name: str) -> dict[str, apprise.Apprise]:
        """Return the senders that have not delivered the alert yet, by the name of the marker file of a delivery."""
        folder = self.folder / name
        allowed = self._family | (self._emergency if (folder / "confirmed").exists() else {})
        return {mark: sender for mark, sender in allowed.items() if not (folder / mark).exists()}


def _senders(addresses: str | Sequence[str]) -> dict[str, apprise.Apprise]:
    """Return one sender per address, to track deliveries; keyed by hash, as an address may contain a password."""
    senders = {}
    for address in [addresses] if isinstance(addresses, str) else addresses:
        sender = senders[f"sent-{hashlib.sha256(address.encode()).hexdigest()[:8]}"] = apprise.Apprise()
        if not sender.add(address):
            raise ValueError("Apprise does not recognise one of the addresses, expected URLs such as mailto://…; see "
                             "https://github.com/caronc/apprise")  # fmt: skip
    return senders


def _sent(sender: apprise.Apprise, alert: dict, clip: Path) -> bool:
    """Send an alert to one address, without audio if that is refused (e.g. too large); return whether it succeeded."""
    message = {"body": alert["message"], "title": f"Emergency? {alert['kind']}",
               "notify_type": apprise.NotifyType.WARNING}  # fmt: skip
    return bool(sender.notify(**message, attach=str(clip)) or sender.notify(**message))
