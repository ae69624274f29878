"""The calls of the CLI to TokenService."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from daemon.job_client.connection import Connection
from daemon.job_client.job_dicts import time_text
from runner.v1 import token_service_pb2 as pb
from runner.v1 import token_service_pb2_grpc as rpc

TokenDict = dict[str, Any]


class TokenClient:
    """Issues tokens over a connection whose own token is an admin's. Raises what ``Connection.call`` raises."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = rpc.TokenServiceStub(connection.channel)

    def create(
        self, role: str, projects: Sequence[str], expire_us: int | None
    ) -> tuple[TokenDict, str]:
        """Make a token; return it and its secret."""
        request = pb.CreateTokenRequest(
            role=pb.TokenRole.Value(f"TOKEN_ROLE_{role.upper()}"), projects=projects
        )
        if expire_us is not None:
            request.expire_time.FromMicroseconds(expire_us)
        response = self._connection.call(self._stub.CreateToken, request)
        return _token_dict(response.token), response.secret

    def tokens(self) -> list[TokenDict]:
        """Return all tokens, the newest first."""
        response = self._connection.call(self._stub.ListTokens, pb.ListTokensRequest())
        return [_token_dict(token) for token in response.tokens]

    def revoke(self, token_id: str) -> TokenDict:
        """End a token."""
        request = pb.RevokeTokenRequest(token_id=token_id)
        return _token_dict(self._connection.call(self._stub.RevokeToken, request).token)


def _token_dict(token: pb.Token) -> TokenDict:
    return {
        "id": token.id,
        "role": pb.TokenRole.Name(token.role).removeprefix("TOKEN_ROLE_").lower(),
        "projects": [*token.projects],
        "create_time": time_text(token, "create_time"),
        "last_use_time": time_text(token, "last_use_time"),
        "expire_time": time_text(token, "expire_time"),
        "revoke_time": time_text(token, "revoke_time"),
    }
