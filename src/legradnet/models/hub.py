"""A model of a hub, `hub:OWNER/NAME@REVISION`: two files through huggingface_hub, kept in its cache."""

import re
import threading
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path

from legradnet.errors import UserError
from legradnet.models.description import CONFIG, WEIGHTS, read_description

HUB = "hub:"
_NAMED = re.compile(r"hub:(?P<repository>[\w.-]{1,96}/[\w.-]{1,96})(?:@(?P<revision>[\w.+/-]+))?", re.ASCII)
_PROBE_SECONDS = 7.0  # a server
_SNAPSHOT = re.compile(r"models--(?P<owner>[^/]+?)--(?P<name>[^/]+)/snapshots/(?P<commit>[0-9a-f]+)")
_WAYS_OUT = "Ways out: a hub cache filled where there is a network (HF_HOME), or the path of the model's folder."


def from_hub(named: str) -> Path:
    """The model folder in the hub's cache that `hub:OWNER/NAME@REVISION` names; what is not there yet is downloaded.

    Nothing is asked of the network once both files are there, also where the revision is a branch that has moved on.

    Args:
        named: With a branch, a tag or a commit as the revision.

    Raises:
        UserError: No such name, repository or revision, none of a model of ours, or no network.
    """
    # late, as it is slow to import; nothing but two files is asked for: no pickle, no code
    from huggingface_hub import constants, hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import (
        EntryNotFoundError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repository, revision = _parts(named)
    cached = [try_to_load_from_cache(repository, file, revision=revision) for file in (CONFIG, WEIGHTS)]
    folders = {Path(path).parent if isinstance(path, str) else None for path in cached}
    if len(folders) == 1 and (folder := folders.pop()):
        return folder
    if constants.HF_HUB_OFFLINE:
        why = f"HF_HUB_OFFLINE is set, and {named} is not in the hub's cache, {constants.HF_HUB_CACHE}"
        raise UserError(f"{why}. {_WAYS_OUT}")
    url = hf_hub_url(repository, CONFIG, revision=revision)
    if reason := unreachable(url, any_answer=True):  # the hub's client would try for most of a minute
        why = f"{named} is not in the hub's cache yet, and {constants.ENDPOINT} can't be reached: {reason}"
        raise UserError(f"{why}. {_WAYS_OUT}")
    try:
        config = Path(hf_hub_download(repository, CONFIG, revision=revision))
        read_description(config.parent, named)
        commit = config.parent.name  # one commit's files, though the revision may be moving on
        return Path(hf_hub_download(repository, WEIGHTS, revision=commit)).parent
    except UserError:
        raise
    except RevisionNotFoundError:
        raise UserError(f"{named}: {repository} has no revision {revision}.") from None
    except LocalEntryNotFoundError as error:  # which is an EntryNotFoundError, and means that there is no network
        raise UserError(f"Downloading {named} failed: {error}") from error
    except EntryNotFoundError:
        raise UserError(f"{named} is no model of LegRadNet: it lacks {CONFIG} or {WEIGHTS}.") from None
    except RepositoryNotFoundError:
        raise UserError(
            f"{named}: there is no {repository} on {constants.ENDPOINT}, or it is not open to everybody and HF_TOKEN "
            "does not let you in."
        ) from None
    except Exception as error:  # whatever the hub's client makes of a broken connection
        raise UserError(f"Downloading {named} failed: {error}") from error


def hub_name(folder: Path) -> str | None:
    """`hub:OWNER/NAME@COMMIT`, if `folder` is a model in the hub's cache."""
    found = _SNAPSHOT.search(folder.as_posix())
    return f"{HUB}{found['owner']}/{found['name']}@{found['commit']}" if found else None


def unreachable(url: str, *, any_answer: bool = False) -> str | None:
    """Why `url` can't be had, or None. In a thread, as a name look-up has no time-out of its own.

    Args:
        url: What a server is asked for.
        any_answer: Whether a refusal will do, too: the server is there.
    """
    answer: list[str | None] = [f"no answer within {_PROBE_SECONDS:.0f} s"]

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_PROBE_SECONDS):
                answer[0] = None
        except urllib.error.HTTPError as error:
            answer[0] = None if any_answer else f"the server answers {error.code} {error.reason}"
        except (OSError, ValueError, HTTPException) as error:
            answer[0] = str(getattr(error, "reason", error))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PROBE_SECONDS)
    return answer[0]


def _parts(named: str) -> tuple[str, str]:
    found = _NAMED.fullmatch(named)
    if found is None or ".." in named or "--" in found["repository"]:
        raise UserError(f"checkpoint={named} is no model of a hub: it is written hub:OWNER/NAME@REVISION.")
    if found["revision"] is None:
        raise UserError(
            f"checkpoint={named} names no revision, and could be another model tomorrow: it is written "
            f"{named}@REVISION, with a tag, a commit or a branch."
        )
    return found["repository"], found["revision"]
