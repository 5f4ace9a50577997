"""Fetches a model from the hub into the Hugging Face cache. Nothing else in tgen touches the network on its own.

The huggingface_hub library speaks to the hub. tgen itself chooses the files and compares each file with the digest that the hub names. It
also goes on where a killed pull stopped, even in the middle of a file, which that library no longer does.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tgen.checkpoint.hub.cache import UNFINISHED, Repository, repository, split_revision
from tgen.checkpoint.hub.choice import choose
from tgen.errors import CheckpointError, TgenError, UnsupportedError, UsageError
from tgen.files import read_json
from tgen.ui.counting import Bar, NoBar, counting

NAME = re.compile(r"([\w.-]+/)?[\w.-]+", re.ASCII)
REVISION = re.compile(r"[\w.-]+(/[\w.-]+)*", re.ASCII)
BLOCK = 2**18  # bytes that are written or hashed at a time
TRIES, PAUSE = 5, 1.0  # failures in a row without a new byte after which a pull gives up, and seconds that it waits after a failure
BUSY = (429, 500, 502, 503, 504)  # the statuses of a hub that may answer properly a second later
DIGEST = re.compile("[0-9a-f]{40}([0-9a-f]{24})?")
COMMIT = re.compile("[0-9a-f]{40}")
AGAIN = "pull it again; it goes on where it stopped"


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository: its name, its size in bytes, and the digest of its content, which names it in the cache.

    Large files have a SHA-256; small ones, which Git itself keeps, have Git's SHA-1 of a blob.
    """

    name: str
    size: int
    digest: str

    def fits(self, path: Path) -> bool:
        """Whether a file has this content."""
        large = len(self.digest) == 64
        hashed = hashlib.sha256() if large else hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)
        with open(path, "rb") as file:
            while block := file.read(BLOCK):
                hashed.update(block)
        return hashed.hexdigest() == self.digest


@dataclass(frozen=True, slots=True)
class Pulled:
    """The result of a pull: the folder, how many files and bytes it holds, and how many of these bytes came over the network."""

    folder: Path
    files: int
    size: int
    fetched: int


def pull(wanted: str, patterns: Sequence[str] = ()) -> Pulled:
    """Fetch `org/name` or `org/name@revision`: the files that tgen needs, and those that match `patterns`.

    The revision points to the new files only after all of them have come and were checked. Raises UsageError for an invalid name,
    UnsupportedError without huggingface_hub, CheckpointError for a repository, revision or file that the hub does not give, and TgenError
    if the hub cannot be reached.
    """
    name, revision = split_revision(wanted)
    if not NAME.fullmatch(name) or ".." in name or not REVISION.fullmatch(revision or "main") or ".." in (revision or ""):
        raise _no_name(wanted)
    _require_library()
    _check_name(name)
    with _hub_errors(name, revision):
        hub = _Hub(name, revision or "main")
        found: dict[str, int] = {}
        names = choose(hub.files, patterns, lambda index: read_json(hub.fetch(index, found, NoBar())))
        missing = sum(hub.files[one].size for one in names if not hub.has(one))
        with counting(f"pulling {name}", missing, of_bytes=True) as bar:
            for one in names:
                hub.fetch(one, found, bar)
        hub.repository.name_commit(revision or "main", hub.commit)
    return Pulled(hub.snapshot, len(names), sum(hub.files[one].size for one in names), sum(found.values()))


def _check_name(name: str) -> None:
    """Raise UsageError for a name that no repository of the hub can have, such as ./folder."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise _no_name(name) from error


def _no_name(wanted: str) -> UsageError:
    return UsageError(f"{wanted!r} is not the name of a model on the hub", "give ORG/NAME or ORG/NAME@REVISION")


class _Hub:
    """One commit of a repository on the hub, and its place in the cache."""

    def __init__(self, name: str, revision: str) -> None:
        from huggingface_hub import HfApi
        from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

        disable_progress_bars()
        logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)  # tgen reports an error in one line of its own
        self._endpoint = os.environ.get("HF_ENDPOINT") or None
        try:
            info = HfApi(endpoint=self._endpoint).model_info(name, revision=revision, files_metadata=True)
        except (json.JSONDecodeError, TypeError, AttributeError, KeyError) as error:
            raise _no_listing(self._endpoint) from error
        if not COMMIT.fullmatch(str(info.sha)):
            raise _no_listing(self._endpoint)
        self.repository: Repository = repository(name)
        self.commit = str(info.sha)
        self.snapshot = self.repository.folder / "snapshots" / self.commit
        self.files = {
            one.rfilename: RemoteFile(one.rfilename, int(one.size or 0), one.lfs.sha256 if one.lfs else str(one.blob_id))
            for one in info.siblings or ()
            if _is_inside(one.rfilename)
        }

    def has(self, name: str) -> bool:
        """Whether the snapshot has a file, or the cache has its content."""
        return (self.snapshot / name).exists() or self._blob(name).exists()

    def fetch(self, name: str, fetched: dict[str, int], bar: Bar | NoBar) -> Path:
        """The path of a file in the snapshot. If the cache lacks its content, download it and note the bytes in `fetched`."""
        place = self.snapshot / name
        if place.exists():
            return place
        from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

        blob = self._blob(name)
        blob.parent.mkdir(parents=True, exist_ok=True)
        self.repository.locks.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(self.repository.locks / f"{blob.name}.lock"):
            if not blob.exists():
                fetched[name] = self._download(self.files[name], blob, bar)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)  # it may be a link to a blob that was removed
            place.symlink_to(os.path.relpath(blob, place.parent))
        return place

    def _download(self, file: RemoteFile, blob: Path, bar: Bar | NoBar) -> int:
        """Download the missing part of a file, check the whole file, move it to its place, and return how many bytes came.

        Raises CheckpointError if the content does not match its digest, TgenError if the hub names no digest.
        """
        if not DIGEST.fullmatch(file.digest):
            raise TgenError(f"the hub names no digest of {file.name}, so tgen cannot check the file", "try another HF_ENDPOINT")
        from huggingface_hub.errors import EntryNotFoundError

        unfinished = blob.with_name(blob.name + UNFINISHED)
        with open(unfinished, "ab") as opened:
            start, tries = opened.tell(), TRIES
            bar.add(start)
            while (place := opened.tell()) < file.size:
                try:
                    self._receive(file, opened, bar)
                    if opened.tell() == place:
                        break
                except EntryNotFoundError as error:
                    message = f"the hub lists {file.name}, but does not have it"
                    raise CheckpointError(message, "its authors may have changed it just now; pull it again") from error
                except Exception as error:
                    tries = TRIES if opened.tell() > place else tries - 1
                    if not tries or not may_pass(error):
                        raise
                    time.sleep(PAUSE)
            opened.flush()
            os.fsync(opened.fileno())
        if unfinished.stat().st_size != file.size or not file.fits(unfinished):
            unfinished.unlink()
            raise CheckpointError(f"the content of {file.name} does not match the digest that the hub names", "pull it again")
        os.replace(unfinished, blob)
        return file.size - start

    def _receive(self, file: RemoteFile, opened: BinaryIO, bar: Bar | NoBar) -> None:
        """Append to the file what one answer of the hub brings. Raises the errors of the HTTP library."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.constants import HF_HUB_DOWNLOAD_TIMEOUT
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_stream_backoff  # type: ignore[attr-defined]

        url = hf_hub_url(self.repository.name, file.name, revision=self.commit, endpoint=self._endpoint)
        start = opened.tell()
        headers = {**build_hf_headers(), "Accept-Encoding": "identity", **({"Range": f"bytes={start}-"} if start else {})}
        with http_stream_backoff("GET", url, headers=headers, max_retries=0, timeout=HF_HUB_DOWNLOAD_TIMEOUT) as response:
            hf_raise_for_status(response)
            if start and response.status_code != 206:  # the hub ignores the range and sends the whole file
                opened.seek(0)
                opened.truncate()
                bar.add(-start)
            for block in response.iter_bytes(BLOCK):
                opened.write(block)
                opened.flush()
                bar.add(len(block))

    def _blob(self, name: str) -> Path:
        return self.repository.folder / "blobs" / self.files[name].digest


@contextmanager
def _hub_errors(name: str, revision: str | None) -> Iterator[None]:
    """Within this context, errors of huggingface_hub become errors of tgen with one sentence and a hint."""
    from huggingface_hub import errors

    where = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    try:
        yield
    except CheckpointError as error:
        raise type(error)(f"cannot pull {name}: {error.message}", error.hint) from None
    except errors.GatedRepoError as error:
        raise CheckpointError(
            f"{name} is gated: its authors ask who uses it",
            f"accept the terms at {where}/{name}, then set HF_TOKEN to a token of your account, or run `hf auth login`",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise CheckpointError(
            f"the hub has no model {name}, or it is private", "check the spelling; for a private one, set HF_TOKEN or run `hf auth login`"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(f"{name} has no revision {revision}", f"{where}/{name}/tree/main lists its branches and tags") from error
    except errors.OfflineModeIsEnabled as error:
        raise UsageError("the environment sets HF_HUB_OFFLINE, so nothing can be pulled", "unset HF_HUB_OFFLINE") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no status"
        known = {
            401: "set HF_TOKEN to a token that is valid",
            403: "your token lacks the right to read it",
            429: "wait a while, then pull it again",
        }
        raise TgenError(f"the hub answered {name} with status {status}", known.get(status, AGAIN)) from error
    except Exception as error:
        if (reason := network_trouble(error)) is None:
            raise
        raise TgenError(f"cannot reach {where}: {reason}", f"check the network; {AGAIN}") from error


def may_pass(error: Exception) -> bool:
    """Whether another try may succeed after this error of the network or the hub."""
    response = getattr(error, "response", None)
    return network_trouble(error) is not None or getattr(response, "status_code", None) in BUSY


def _no_listing(endpoint: str | None) -> TgenError:
    where = endpoint or "https://huggingface.co"
    return TgenError(f"{where} does not answer like a hub", "check HF_ENDPOINT, and whether your network asks for a login first")


def network_trouble(error: Exception) -> str | None:
    """The message of an error of the HTTP library that huggingface_hub uses, httpx or its successor; None for other errors."""
    module = type(error).__module__.partition(".")[0]
    if module in ("httpx", "httpx2"):
        return str(error).partition("\n")[0] or type(error).__name__
    return None


def _is_inside(name: str) -> bool:
    """Whether a name stays inside the folder that it is put into."""
    return not Path(name).is_absolute() and ".." not in Path(name).parts


def _require_library() -> None:
    from importlib.util import find_spec

    if find_spec("huggingface_hub") is None:
        raise UnsupportedError("tgen pull needs huggingface_hub, which is not installed", "pip install 'tgen[hub]'")
