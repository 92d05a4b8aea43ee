"""How the series talks to its kernels: encrypted, and without missing a reply."""

from __future__ import annotations

import contextlib
from queue import Empty
from typing import Any

from jupyter_client.asynchronous import AsyncKernelClient
from jupyter_client.channels import AsyncZMQSocketChannel
from traitlets import Type
from traitlets.config import Config

LOOK_AGAIN_AFTER = 0.5  # seconds


class PatientChannel(AsyncZMQSocketChannel):
    """A channel that looks for its message again and again while it waits.

    A widget makes the client send while it waits for a reply, and a send can swallow the one signal that the
    reply has come; a single wait would then last for ever (known as nbclient issue 312).
    """

    async def get_msg(self, timeout: float | None = None) -> dict[str, Any]:
        """Return the next message; without a ``timeout`` (seconds), wait for it as long as it takes."""
        while timeout is None:
            with contextlib.suppress(Empty):
                return await super().get_msg(LOOK_AGAIN_AFTER)
        return await super().get_msg(timeout)


class PatientClient(AsyncKernelClient):
    """A kernel client whose replies come through a `PatientChannel`."""

    shell_channel_class = Type(PatientChannel)


# Unencrypted, a kernel warns on every start that others on the machine could listen in.
CONFIG = Config(KernelManager={"client_factory": PatientClient, "transport_encryption": "auto"})
