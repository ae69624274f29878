"""TokenService: the calls of whoever issues tokens."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from agent_runner import wire
from agent_runner.project_names import PROJECT_NAME, PROJECT_RULE
from daemon.clock import Clock
from daemon.errors import UsageError
from daemon.server.token_book import TokenBook
from daemon.tokens.models import Role, Token
from runner.v1 import token_service_pb2 as pb
from runner.v1 import token_service_pb2_grpc as rpc

logger = logging.getLogger(__name__)

MAX_PROJECTS = 100
_ROLE_TO_PB = {role: pb.TokenRole.Value(f"TOKEN_ROLE_{role.name}") for role in Role}
_ROLE_FROM_PB: dict[int, Role] = {number: role for role, number in _ROLE_TO_PB.items()}


class TokenServicer(rpc.TokenServiceServicer):
    """One per server. The interceptor lets admins only in and turns errors into statuses."""

    def __init__(self, tokens: TokenBook, clock: Clock) -> None:
        self._tokens = tokens
        self._clock = clock

    async def CreateToken(
        self, request: pb.CreateTokenRequest, context: Any
    ) -> pb.CreateTokenResponse:
        """Make a token; answered after it is durable."""
        role = _ROLE_FROM_PB.get(request.role)
        if role is None:
            raise UsageError(f"role must be one of {', '.join(Role)}")
        _check_projects(role, request.projects)
        expire_us = None
        if request.HasField("expire_time"):
            expire_us = wire.time_from_pb(request.expire_time)
            if expire_us <= self._clock.now_us():
                raise UsageError("expire_time must lie in the future")
        token, secret = await self._tokens.create(role, request.projects, expire_us)
        logger.info(
            "a token was made",
            extra={
                "action": "token_created",
                "token": token.id,
                "role": role,
                "projects": " ".join(token.projects),
            },
        )
        return pb.CreateTokenResponse(token=_token_to_pb(token), secret=secret)

    async def ListTokens(
        self, request: pb.ListTokensRequest, context: Any
    ) -> pb.ListTokensResponse:
        """Return all tokens, the newest first."""
        return pb.ListTokensResponse(tokens=map(_token_to_pb, self._tokens.tokens()))

    async def RevokeToken(
        self, request: pb.RevokeTokenRequest, context: Any
    ) -> pb.RevokeTokenResponse:
        """End a token and its streams; answered after that is durable."""
        token = await self._tokens.revoke(request.token_id)
        logger.info("a token was revoked", extra={"action": "token_revoked", "token": token.id})
        return pb.RevokeTokenResponse(token=_token_to_pb(token))


def _check_projects(role: Role, projects: Sequence[str]) -> None:
    if role is Role.ADMIN:
        if projects:
            raise UsageError("a token of the role admin is for every project: name none")
        return
    if not 0 < len(projects) <= MAX_PROJECTS:
        raise UsageError(f"a token of the role {role} needs 1 to {MAX_PROJECTS} projects")
    for project in projects:
        if not PROJECT_NAME.fullmatch(project):
            raise UsageError(f"project {project!r} must be {PROJECT_RULE}")


def _token_to_pb(token: Token) -> pb.Token:
    return pb.Token(
        id=token.id,
        role=_ROLE_TO_PB[token.role],
        projects=token.projects,
        create_time=wire.time_to_pb(token.create_us),
        last_use_time=wire.time_to_pb(token.last_use_us),
        expire_time=wire.time_to_pb(token.expire_us),
        revoke_time=wire.time_to_pb(token.revoke_us),
    )
