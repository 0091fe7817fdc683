"""What the suites for the Python SDK share: where the nodes are, and what a call came to."""

import asyncio
import functools
import json
import os
import time
import urllib.parse
import urllib.request
import uuid
from dataclasses import dataclass

import openai

OPEN = os.environ["SDK_OPEN"]
KEYED = os.environ["SDK_KEYED"]
KEYED_ADMIN = os.environ["SDK_KEYED_ADMIN"]
SIM = os.environ["SDK_SIM"]
PROVIDER = os.environ["SDK_PROVIDER"]
KEY = os.environ["SDK_KEY"]

HELLO = [{"role": "user", "content": "Hello"}]


@functools.cache
def node(**options):
    """A client of the node that a newcomer starts."""
    return openai.OpenAI(base_url=f"{OPEN}/v1", api_key="any", **options)


@functools.cache
def keyed(**options):
    """A client of the node that has keys and the scripted provider."""
    return openai.OpenAI(**{"base_url": f"{KEYED}/v1", "api_key": KEY, **options})


def keyed_async(**options):
    return openai.AsyncOpenAI(**{"base_url": f"{KEYED}/v1", "api_key": KEY, **options})


def script_async(**options):
    """A client of the scripted provider itself."""
    return openai.AsyncOpenAI(base_url=f"{PROVIDER}/v1", api_key="sk-script", **options)


def scenario():
    """A name under which the scripted provider logs, used by nobody else."""
    return uuid.uuid4().hex


def read(url):
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read().decode()


def log_of(user):
    """The tries that the scripted provider has seen of this scenario."""
    return json.loads(read(f"{PROVIDER}/log?user={urllib.parse.quote(user)}"))


async def eventually(check, seconds):
    """What `check` returns as soon as that is something; fails after so many seconds."""
    until = time.monotonic() + seconds
    while not (found := await asyncio.to_thread(check)):
        assert time.monotonic() < until, f"not within {seconds} s"
        await asyncio.sleep(0.01)
    return found


@dataclass
class Outcome:
    """What an application sees of one call, and what the provider saw of it."""

    kind: str
    status: int | None = None
    code: str | None = None
    type: str | None = None
    message: str | None = None
    request_id: str | None = None
    content: str | None = None
    tries: int = 0
    waits: tuple = ()

    def seen(self):
        """All but the waits, which are measured."""
        return {**vars(self), "waits": None}


async def outcome(client, model, **options):
    """Makes one call under a scenario of its own."""
    user = scenario()
    messages = options.pop("messages", HELLO)
    try:
        done = await client.chat.completions.create(
            model=model, messages=messages, user=user, **options
        )
        content = done.choices[0].message.content
        found = Outcome("ok", 200, request_id=done._request_id, content=content)
    except openai.APIStatusError as error:
        found = Outcome(
            type(error).__name__,
            error.status_code,
            error.code,
            error.type,
            error.message,
            error.request_id,
        )
    except openai.APIError as error:
        found = Outcome(type(error).__name__)
    tries = await asyncio.to_thread(log_of, user)
    times = [entry["at"] for entry in tries]
    found.tries = len(tries)
    found.waits = tuple(later - earlier for earlier, later in zip(times, times[1:]))
    return found
