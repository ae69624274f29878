"""Sees to it that what a job passes on holds no secret: its value becomes the reference again, or is refused."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from agent_runner.errors import TriggersRefusedError
from agent_runner.secret_refs import SecretValues
from agent_runner.triggers.document import AskedJob
from sandbox.masking.masker import Masker


class PassingOn:
    """What one attempt may pass on; made at its end."""

    def __init__(self, masker: Masker, values: SecretValues, plain: Collection[str]) -> None:
        """Take what is known of the attempt's secrets.

        Args:
            masker: Of its log.
            values: That were filled in, by reference.
            plain: Texts that the job's record holds anyhow, and that may be passed on as they are.
        """
        self._masker = masker
        self._plain = frozenset(plain)
        # The longest first: one value may be a part of another.
        hidden = ((ref, value) for ref, value in values.items() if self._is_hidden(value))
        self._values = sorted(hidden, key=lambda pair: -len(pair[1]))

    def job(self, job: AskedJob, place: str) -> AskedJob:
        """Return a job with references in place of values in its ``env``.

        Raises:
            TriggersRefusedError: It holds a secret elsewhere, or one without a reference.
        """
        env = {name: self._env(text, f"{place}.env.{name}") for name, text in job.env.items()}
        self.check([*job.env, job.item_var], f"{place}.env")
        self.check({"job_name": job.name, "job_file": job.job_file, **job.fields}, place)
        if job.for_each:
            self.check({"for_each": list(job.for_each)}, place)
        return replace(job, env=env)

    def check(self, node: Any, place: str) -> None:
        """Check that no text of a tree holds a secret.

        Raises:
            TriggersRefusedError: One does; names its place.
        """
        if isinstance(node, Mapping):
            for name, value in node.items():
                self.check(name, place)
                self.check(value, f"{place}.{name}" if place else str(name))
        elif isinstance(node, list | tuple):
            for number, value in enumerate(node):
                self.check(value, f"{place}.{number}")
        elif isinstance(node, str) and self._is_hidden(node):
            raise TriggersRefusedError(
                self._masker.mask_text(place),
                "holds the value of a secret; pass a reference in env, ${secret:PATH:KEY}",
            )

    def _env(self, text: str, place: str) -> str:
        if not self._is_hidden(text):
            return text
        rest, referring = text, text
        for ref, value in self._values:
            rest, referring = rest.replace(value, " "), referring.replace(value, str(ref))
        if self._is_hidden(rest):
            raise TriggersRefusedError(
                place,
                "holds a secret that is no secret reference of this job, and cannot be passed on",
            )
        return referring

    def _is_hidden(self, text: str) -> bool:
        return text not in self._plain and self._masker.mask_text(text) != text
