"""Alerts: what is said of an emergency, and to whom.

    outbox = Outbox(folder, family=["mailto://…"], emergency=["json://…"])
    outbox.put(alert)      # on disk before anything is sent
    outbox.send()          # to the family; what fails is tried again by the next call
    outbox.confirm(name)   # a person says that it is one: the next call sends it to the emergency contact too

By default there is nobody to send to, and alerts stay in the folder. This is a study, and no safety device.
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
logging.getLogger("apprise").setLevel(logging.INFO)  # what it says at DEBUG holds the whole message


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
    """Alerts in a folder, each in one of its own: its facts, its sound, and an empty file for each address reached.

    family, emergency: addresses as apprise reads them (https://github.com/caronc/apprise). The emergency contact gets
    what a person has confirmed, and nothing else. An address gets all alerts of the folder that it has not had.
    """

    def __init__(self, folder: Path, family: Sequence[str] = (), emergency: Sequence[str] = ()):
        self.folder = Path(folder)
        self._family, self._emergency = _senders(family), _senders(emergency)

    def put(self, alert: Alert) -> str:
        """Keep `alert`; its name. DataError: the folder cannot be written."""
        facts = {name: value for name, value in vars(alert).items() if name != "samples"}
        facts |= {"name": alert.name, "message": alert.message()}
        text = json.dumps(facts, ensure_ascii=False, indent=1, default=float)
        folder = self.folder / alert.name
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                soundfile.write(folder / "clip.flac", alert.samples, RATE)
            except Exception as error:  # words without their sound are better than none
                _log.warning("The sound of the alert %s could not be kept: %s", alert.name, error)
                (folder / "clip.flac").unlink(missing_ok=True)
            with atomic(folder / "alert.json") as temporary:  # comes last: without it there is no alert
                temporary.write_text(text, encoding="utf-8")
        except OSError as error:
            raise DataError(f"The alert {alert.message()} could not be kept in {self.folder} ({error}). Act on it now. "
                            "Free some space there.") from error  # fmt: skip
        return alert.name

    def send(self) -> list[str]:
        """Attempt every pending delivery once; returns the alerts that have reached all recipients."""
        done = []
        for alert in self.waiting():
            folder = self.folder / alert["name"]
            for mark, sender in self._due(alert["name"]).items():
                if _sent(sender, alert, folder / "clip.flac"):
                    with contextlib.suppress(OSError):  # unnoted, it is sent again; the others come first
                        (folder / mark).touch()
            if not self._due(alert["name"]):
                done.append(alert["name"])
        return done

    def confirm(self, name: str) -> None:
        """A person says that it is an emergency: the emergency contact is due. DataError: no alert has this name."""
        if not (self.folder / name / "alert.json").exists():
            raise DataError(f"There is no alert {name!r} in {self.folder}.")
        (self.folder / name / "confirmed").touch()

    def waiting(self) -> list[dict[str, Any]]:
        """The facts of alerts that have not reached all recipients, oldest first."""
        found = []
        for path in sorted(self.folder.glob("*/alert.json")):
            try:
                alert = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                _log.warning("%s cannot be read, and is not sent. Listen to the clip.flac beside it.", path)
                continue
            if "told" not in alert and self._due(alert["name"]):  # "told": kept by an earlier version
                found.append(alert)
        return found

    def _due(self, name: str) -> dict[str, apprise.Apprise]:
        """Who is yet to get the alert: by the name of the file that says that it was reached."""
        folder = self.folder / name
        allowed = self._family | (self._emergency if (folder / "confirmed").exists() else {})
        return {mark: sender for mark, sender in allowed.items() if not (folder / mark).exists()}


def _senders(addresses: Sequence[str]) -> dict[str, apprise.Apprise]:
    """One for each address, so that those that were reached are left out later. By a hash: it may hold a password."""
    senders = {}
    for address in addresses:
        sender = senders[f"sent-{hashlib.sha256(address.encode()).hexdigest()[:8]}"] = apprise.Apprise()
        if not sender.add(address):
            raise ValueError("Apprise does not recognise one of the addresses, expected URLs such as mailto://…; see "
                             "https://github.com/caronc/apprise")  # fmt: skip
    return senders


def _sent(sender: apprise.Apprise, alert: dict, clip: Path) -> bool:
    """Send one alert to one address, without its sound if that is refused (as too large, say); whether it was taken."""
    message = {"body": alert["message"], "title": f"Emergency? {alert['kind']}",
               "notify_type": apprise.NotifyType.WARNING}  # fmt: skip
    return bool(sender.notify(**message, attach=str(clip)) or sender.notify(**message))
