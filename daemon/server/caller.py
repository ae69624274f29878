"""Who makes the call that is being handled. The interceptor sets it, in the task of the call; whoever needs it asks here."""

from __future__ import annotations

from collections.abc import Collection
from contextvars import ContextVar
from typing import NamedTuple

from agent_runner.project_names import DEFAULT_PROJECT
from daemon.errors import ProjectNotAllowedError, UsageError
from daemon.jobs.models import AgentIdentity
from daemon.tokens.models import Role, Token


class Caller(NamedTuple):
    """What a token allows."""

    role: Role = Role.ADMIN
    projects: frozenset[str] | None = None
    """None is every project."""
    token_id: str = ""
    """Empty for the token of the state directory, which cannot be revoked."""

    def may_see(self, project: str) -> bool:
        """Tell whether jobs of a project exist for it."""
        return self.projects is None or project in self.projects

    def project_of(self, named: str) -> str:
        """Return the project of a job to submit, out of what the job says.

        Raises:
            ProjectNotAllowedError: It is none of the caller's.
            UsageError: It names none, and the caller has several without the default one.
        """
        if named:
            self.check(named)
            return named
        if self.projects is None or DEFAULT_PROJECT in self.projects:
            return DEFAULT_PROJECT
        if len(self.projects) > 1:
            raise UsageError(
                f"the token is for several projects: name one of {', '.join(sorted(self.projects))}"
            )
        (only,) = self.projects
        return only

    def check(self, project: str) -> None:
        """Check that a project that was named is one of the caller's.

        Raises:
            ProjectNotAllowedError: It is not.
        """
        if not self.may_see(project):
            raise ProjectNotAllowedError(f"the token is not for project {project!r}")

    def among(self, projects: Collection[str]) -> frozenset[str] | None:
        """Return the projects that a call is for, out of what it names; None for every one. To name none is to name all.

        Raises:
            ProjectNotAllowedError: One is none of the caller's.
        """
        if not projects:
            return self.projects
        for project in projects:
            self.check(project)
        return frozenset(projects)

    def agent(self, agent: AgentIdentity) -> AgentIdentity:
        """Return an agent-runner under the name that it has here: of several projects each may have one called the same.

        Else whoever holds a token of one project could take the place of another's agent-runner, and end its leases.
        """
        if self.projects is None:
            return agent
        return agent._replace(name=f"{'+'.join(sorted(self.projects))}/{agent.name}")


LOCAL = Caller()
"""Whoever has the token of the state directory."""
CALLER: ContextVar[Caller] = ContextVar("caller")


def caller_of(token: Token) -> Caller:
    """Return what a token allows."""
    everything = token.role is Role.ADMIN
    return Caller(
        role=token.role,
        projects=None if everything else frozenset(token.projects),
        token_id=token.id,
    )
