"""A client of the Docker Engine API, as Docker and Podman speak it: one method per thing that a sandbox needs.

Errors of the HTTP library end here: every answer that is no success becomes what ``failure.classify`` says.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from sandbox.container.attachment import Attachment
from sandbox.container.failure import Operation, classify, has_ended
from sandbox.container.settings import ContainerSettings, EngineAddress
from sandbox.errors import (
    EngineUnusableError,
    ImageMissingError,
    SandboxBrokenError,
    SandboxError,
    TransferRefusedError,
)

OLDEST_API = (1, 40)
NEWEST_API = (1, 47)
REQUEST_S = 60.0
"""For an answer that needs no job to do anything; an engine under load takes seconds."""
KILL_S = 10.0
REMOVE_TRIES = 30
REMOVE_PAUSE_S = 0.1
_NOT_MODIFIED = 304
_NOT_FOUND = 404
_CONFLICT = 409
_FAILED = 500
_UPGRADED = 101
_FIRST_ERROR = 400

_KEEP_ALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)
"""An engine on another host that is gone without a word is noticed within a minute, also while nothing is said."""

Json = Mapping[str, Any]


class Engine:
    """A connection pool to one engine. Used concurrently on one event loop; ``connect`` comes first."""

    def __init__(
        self,
        settings: ContainerSettings,
        unanswered: Callable[[SandboxError], None] = lambda _: None,
    ) -> None:
        """Remember where; nothing is reached before ``connect``.

        Args:
            settings: The operator's.
            unanswered: Told of each request that had no answer.

        Raises:
            SandboxUnavailableError: The address makes no sense, or a certificate cannot be read.
        """
        self._http = _client(settings)
        self._address = settings.engine
        self._unanswered = unanswered
        self._prefix = ""
        self.is_podman = False
        self.is_here = settings.engine.startswith("unix://")
        """Whether it seems to run on this host."""

    async def connect(self) -> str:
        """Agree on a version of the API and return it; called again after a loss, which may bring another engine.

        Raises:
            SandboxUnavailableError: The engine and this client have no version in common.
            EngineGoneError: Nobody answers.
        """
        said = _json(await self._answer(Operation.ASK, "GET", "/version", timeout=REQUEST_S))
        try:
            newest = _version(said["ApiVersion"])
            oldest = _version(said.get("MinAPIVersion", "1.0"))
            names = [str(part.get("Name")) for part in said.get("Components") or ()]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SandboxBrokenError(f"no container engine is there, but: {said!r:.200}") from error
        if newest < OLDEST_API or oldest > NEWEST_API:
            raise EngineUnusableError(
                f"the container engine speaks API {_text(oldest)} to {_text(newest)};"
                f" {_text(OLDEST_API)} to {_text(NEWEST_API)} are understood here"
            )
        self.is_podman = any("Podman" in name for name in names)
        agreed = _text(min(newest, NEWEST_API))
        self._prefix = f"/v{agreed}"
        return agreed

    async def close(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    async def get_json(self, path: str, **params: str) -> Any:
        """Return what a GET answers."""
        return _json(await self.call(Operation.ASK, "GET", path, params=params))

    async def create(self, name: str, config: Json) -> str:
        """Make a container and return its id. After a cancellation it is there or not, but not on its way."""
        making = asyncio.ensure_future(
            self.call(
                Operation.CREATE,
                "POST",
                "/containers/create",
                params={"name": name},
                json=config,
                subject=str(config["Image"]),
            )
        )
        try:
            answer = await asyncio.shield(making)
        except asyncio.CancelledError:
            await asyncio.wait({making})
            raise
        return str(answer.json()["Id"])

    async def start(self, container: str) -> None:
        """Start a container."""
        await self.call(Operation.START, "POST", f"/containers/{container}/start")

    async def attach(self, container: str) -> Attachment:
        """Connect to the input and both outputs of a container that was not started yet."""
        path = f"{self._prefix}/containers/{container}/attach?stream=1&stdin=1&stdout=1&stderr=1"
        request = self._http.build_request(
            "POST", path, headers={"Connection": "Upgrade", "Upgrade": "tcp"}, timeout=None
        )
        try:
            async with asyncio.timeout(REQUEST_S):
                answer = await self._http.send(request, stream=True)
        except (httpx2.RequestError, TimeoutError) as error:
            raise self._none(Operation.ATTACH, error) from error
        if answer.status_code != _UPGRADED:
            await answer.aread()
            raise classify(Operation.ATTACH, answer.status_code, _message(answer))
        return Attachment(answer)

    async def wait(self, container: str) -> int:
        """Wait for the end of a container and return its exit code."""
        answer = await self.call(
            Operation.WAIT, "POST", f"/containers/{container}/wait", timeout=None
        )
        return int(answer.json()["StatusCode"])

    async def inspect(self, container: str) -> Any:
        """Return all that the engine knows of a container."""
        return await self.get_json(f"/containers/{container}/json")

    async def has_container(self, container: str) -> bool:
        """Tell whether a container is there, whether it runs or not."""
        path = f"/containers/{container}/json"
        answer = await self.call(Operation.ASK, "GET", path, also=(_NOT_FOUND,))
        return answer.status_code != _NOT_FOUND

    async def kill(self, container: str, signal: str) -> bool:
        """Send a signal to the first process; tell whether there was one."""
        return (
            await self._reach(f"/containers/{container}/kill", params={"signal": signal})
            is not None
        )

    async def run_inside(self, container: str, argv: Collection[str], user: str) -> bool:
        """Start a further process in a running container, and do not wait for it; tell whether that was possible."""
        command = {"Cmd": [*argv], "User": user}
        made = await self._reach(f"/containers/{container}/exec", json=command)
        if made is None:
            return False
        path = f"/exec/{made.json()['Id']}/start"
        return await self._reach(path, json={"Detach": True}) is not None

    async def _reach(self, path: str, **options: Any) -> httpx2.Response | None:
        """Send what a running container is needed for; return None if it does not run any more."""
        also = (_NOT_FOUND, _CONFLICT, _FAILED)
        answer = await self.call(Operation.KILL, "POST", path, also=also, timeout=KILL_S, **options)
        if answer.status_code == _FAILED and not has_ended(_message(answer)):
            raise classify(Operation.KILL, _FAILED, _message(answer))
        return answer if answer.status_code < _FIRST_ERROR else None

    async def remove(self, container: str) -> None:
        """Kill and remove a container, if it is there."""
        path, params = f"/containers/{container}", {"force": "true", "v": "true"}
        for left in reversed(range(REMOVE_TRIES)):
            also = (_NOT_FOUND, _CONFLICT, _FAILED) if left else (_NOT_FOUND, _CONFLICT)
            answer = await self.call(Operation.REMOVE, "DELETE", path, params=params, also=also)
            if answer.status_code != _FAILED:
                return
            await asyncio.sleep(REMOVE_PAUSE_S)  # Podman fails if its end comes in between

    async def create_volume(self, name: str, labels: Mapping[str, str]) -> None:
        """Make a volume of root's in Podman, if it is not there; Docker makes one with the container that mounts it."""
        # Without an owner it would be given to the user of the first container that starts with it.
        owner = {"o": "uid=0,gid=0"}
        await self.call(
            Operation.CREATE,
            "POST",
            "/volumes/create",
            json={"Name": name, "Labels": {**labels}, "DriverOpts": owner},
            also=(_CONFLICT,),
        )

    async def remove_volume(self, name: str) -> bool:
        """Remove a volume, if it is there; tell whether it is gone, and not in use still."""
        answer = await self.call(
            Operation.REMOVE, "DELETE", f"/volumes/{name}", also=(_NOT_FOUND, _CONFLICT)
        )
        return answer.status_code != _CONFLICT

    async def put_archive(
        self, container: str, path: str, tar: AsyncIterable[bytes] | bytes, subject: str
    ) -> None:
        """Unpack a tar archive below a folder of a container."""
        await self.call(
            Operation.COPY_IN,
            "PUT",
            f"/containers/{container}/archive",
            # Podman gives everything to root unless told otherwise.
            params={"path": path, "noOverwriteDirNonDir": "true", "copyUIDGID": "false"},
            content=tar,
            headers={"Content-Type": "application/x-tar"},
            subject=subject,
            timeout=None,
        )

    async def path_facts(self, container: str, path: str) -> httpx2.Headers | None:
        """Return the headers about a path of a container; None if there is nothing.

        Raises:
            TransferRefusedError: A job changes the path between two looks of the engine.
        """
        url, params = f"/containers/{container}/archive", {"path": path}
        answer = await self.call(
            Operation.COPY_OUT, "HEAD", url, params=params, also=(_NOT_FOUND, _FAILED)
        )
        if answer.status_code == _FAILED:
            # An answer to HEAD has no words: those to GET say whether it is the path or the engine.
            async with self.stream(Operation.COPY_OUT, "GET", url, path, params=params):
                raise TransferRefusedError(f"{path!r} is changed while it is looked at")
        return None if answer.status_code == _NOT_FOUND else answer.headers

    @asynccontextmanager
    async def stream(
        self, operation: Operation, method: str, path: str, subject: str = "", **options: Any
    ) -> AsyncIterator[httpx2.Response]:
        """Yield an answer whose content is read piece by piece."""
        try:
            async with self._http.stream(method, self._prefix + path, **options) as answer:
                if answer.status_code >= _FIRST_ERROR:
                    await answer.aread()
                    raise classify(operation, answer.status_code, _message(answer), subject)
                yield answer
        except httpx2.ReadTimeout as error:
            if (
                operation is Operation.PULL
            ):  # the engine has answered; it is the registry that is waited for
                raise ImageMissingError(
                    f"there is no image {subject}: its registry is silent"
                ) from error
            raise self._none(operation, error, subject) from error
        except httpx2.RequestError as error:
            raise self._none(operation, error, subject) from error

    def _none(self, operation: Operation, error: Exception, subject: str = "") -> SandboxError:
        """Return what it means that there was no answer."""
        words = f"{self._address}: {str(error) or type(error).__name__}"
        meaning = classify(operation, None, words, subject)
        self._unanswered(meaning)
        return meaning

    async def call(  # noqa: PLR0913  # one request, by name
        self,
        operation: Operation,
        method: str,
        path: str,
        *,
        also: Collection[int] = (),
        subject: str = "",
        timeout: float | None = REQUEST_S,  # noqa: ASYNC109  # of the connection, by the library
        **options: Any,
    ) -> httpx2.Response:
        """Send a request and return the answer.

        Args:
            operation: What is asked, for the classifier.
            method: Of HTTP.
            path: Below the version.
            also: Statuses that are no errors here.
            subject: What it is about, for a message.
            timeout: Seconds without a byte; None waits for ever.
            **options: As the library takes them.
        """
        options |= {"also": also, "subject": subject, "timeout": timeout}
        return await self._answer(operation, method, self._prefix + path, **options)

    async def _answer(
        self,
        operation: Operation,
        method: str,
        path: str,
        *,
        also: Collection[int] = (),
        subject: str = "",
        **options: Any,
    ) -> httpx2.Response:
        """Send a request to a path as it is, with or without a version."""
        try:
            answer = await self._http.request(method, path, **options)
        except httpx2.RequestError as error:
            raise self._none(operation, error, subject) from error
        if answer.status_code >= _FIRST_ERROR and answer.status_code not in also:
            raise classify(operation, answer.status_code, _message(answer), subject)
        return answer


def label_filter(*labels: str) -> str:
    """Return the ``filters`` of a list of what carries all of these labels."""
    return json.dumps({"label": [*labels]})


def _client(settings: ContainerSettings) -> httpx2.AsyncClient:
    tls = settings.ca_file is not None
    address = EngineAddress.parse(settings.engine, tls=tls)
    # Each running command holds two connections; the pool must not be what bounds the slots.
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=16)
    # Loading the certificates of the system takes longer than a job's requests.
    verify = _tls_context(settings) if tls else False
    transport = httpx2.AsyncHTTPTransport(
        uds=address.socket or None,
        verify=verify,
        limits=limits,
        socket_options=_KEEP_ALIVE if address.url else None,
    )
    # Proxies of the environment are for the internet, not for the engine.
    return httpx2.AsyncClient(
        transport=transport,
        base_url=address.url or "http://engine",
        # What is packed may be a bomb, and on a socket it only costs time.
        headers={"Accept-Encoding": "identity"},
        trust_env=False,
    )


def _tls_context(settings: ContainerSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
        if settings.cert_file is not None:
            context.load_cert_chain(settings.cert_file, settings.key_file)
    except (OSError, ssl.SSLError) as error:
        raise EngineUnusableError(
            f"the certificates for {settings.engine} cannot be used: {error}"
        ) from error
    return context


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _json(answer: httpx2.Response) -> Any:
    try:
        return answer.json()
    except ValueError as error:
        raise SandboxBrokenError(
            f"no container engine is there, but: {answer.text!r:.200}"
        ) from error


def _message(answer: httpx2.Response) -> str:
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:500].strip() or answer.reason_phrase
