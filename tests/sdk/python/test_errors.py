"""Errors, waits and cancellations: through a node, an application sees what it would see of the
provider itself, or, where the provider breaks off without a word, an honest error."""

import asyncio
import os
import time
import unittest

import openai
from support import (
    HELLO,
    KEYED_ADMIN,
    SIM,
    eventually,
    keyed,
    keyed_async,
    log_of,
    node,
    outcome,
    read,
    scenario,
    script_async,
)

# Scripts of the provider, and the least wait before each further try, in milliseconds: what the
# provider asked for, or else the SDK's own half and whole second less a quarter of jitter.
BACKOFF = (375, 750)
RETRIES = {
    "429a1_200": (1000,),
    "429a1": (1000, 1000),
    "429m1500": (1500, 1500),
    "429m100_429m1200_200": (100, 1200),
    "429": BACKOFF,
    # A date in whole seconds, two ahead: between one and two are left.
    "429d2_200": (1000,),
    "429n": (),
    # More than the SDK is willing to wait.
    "429a300": (),
    "503a1_200": (1000,),
    "503m1500": (1500, 1500),
    "503": BACKOFF,
    "500": BACKOFF,
    "503n": (),
    "409m500_200": (500,),
    "400": (),
    "400y_200": (375,),
    "404": (),
    "422": (),
}
# No wait is longer than this, however busy the machine is.
LONGEST_MS = 8_000


async def both(scripts, route):
    """What each script comes to at the provider itself, and through a node; all side by side."""
    async with script_async() as direct, keyed_async() as through:

        async def one(script):
            calls = outcome(direct, f"script-{script}"), outcome(through, f"{route}-{script}")
            return script, *await asyncio.gather(*calls)

        return await asyncio.gather(*map(one, scripts))


class Retries(unittest.TestCase):
    def test_retries_are_those_that_the_provider_itself_would_see(self):
        async def all_of_them():
            return await both(RETRIES, "script")

        for script, direct, through in asyncio.run(all_of_them()):
            with self.subTest(script):
                self.assertEqual(through.seen(), direct.seen())
                self.assertEqual(through.tries, len(RETRIES[script]) + 1)
                for found in (direct, through):
                    for wait, least in zip(found.waits, RETRIES[script]):
                        # The clocks of two processes round on their own.
                        self.assertGreaterEqual(wait, least - 5)
                        self.assertLess(wait, LONGEST_MS)

    def test_a_node_that_retries_itself_changes_nothing_but_the_providers_count(self):
        async def all_of_them():
            return await both(("429m100", "503m100", "500m100", "400", "404"), "usual")

        for script, direct, through in asyncio.run(all_of_them()):
            with self.subTest(script):
                hidden = {"tries": None, "request_id": None}
                self.assertEqual(through.seen() | hidden, direct.seen() | hidden)
                # Each of the SDK's three tries is at most three attempts of the node.
                self.assertLessEqual(through.tries, 3 * direct.tries)
                self.assertGreaterEqual(through.tries, direct.tries)

    def test_one_failure_that_the_node_hides_is_never_seen(self):
        async def one():
            async with keyed_async(max_retries=0) as client:
                return await outcome(client, "usual-503m50_200")

        found = asyncio.run(one())
        self.assertEqual((found.kind, found.content, found.tries), ("ok", "whole", 2))

    def test_faults_of_the_simulator_look_as_they_do_without_a_node(self):
        models = ("sim-429", "sim-500", "sim-503", "sim-context-length")

        def seen(client, model):
            with self.assertRaises(openai.APIStatusError) as raised:
                client.chat.completions.create(model=model, messages=HELLO)
            error = raised.exception
            self.assertTrue(error.request_id.startswith("req_"))
            headers = {
                name: value
                for name, value in error.response.headers.items()
                if name.startswith(("x-ratelimit-", "retry-after", "content-type"))
            }
            return type(error), error.status_code, error.body, headers

        direct = openai.OpenAI(base_url=f"{SIM}/v1", api_key="any", max_retries=0)
        for model in models:
            with self.subTest(model):
                through = keyed(max_retries=0)
                self.assertEqual(seen(through, model), seen(direct, model))


# T22
class Limits(unittest.TestCase):
    def test_a_call_over_a_limit_comes_again_when_it_was_told_to_and_then_goes_through(self):
        user = scenario()
        client = keyed(api_key=os.environ["SDK_FEW_KEY"])
        began = time.monotonic()
        for _ in range(3):
            client.chat.completions.create(model="script-200", messages=HELLO, user=user)
        took = time.monotonic() - began
        self.assertGreaterEqual(took, 1.9)
        self.assertLess(took, LONGEST_MS / 1000)
        self.assertEqual(len(log_of(user)), 3)

    def test_a_budget_that_is_spent_fails_at_once(self):
        user = scenario()
        client = keyed(api_key=os.environ["SDK_POOR_KEY"])
        began = time.monotonic()
        with self.assertRaises(openai.RateLimitError) as raised:
            client.chat.completions.create(model="script-200", messages=HELLO, user=user)
        self.assertLess(time.monotonic() - began, 0.375)
        self.assertEqual(raised.exception.code, "budget_exceeded")
        self.assertEqual(log_of(user), [])


class Refusals(unittest.TestCase):
    def refusal(self, kind, client, model="sim"):
        started = time.monotonic()
        with self.assertRaises(kind) as raised:
            client.chat.completions.create(model=model, messages=HELLO)
        self.assertLess(time.monotonic() - started, 5)
        # Support is asked with this id, whoever refused.
        self.assertTrue(raised.exception.request_id)
        return raised.exception

    def test_a_wrong_or_expired_key_is_an_authentication_error(self):
        for key in ("wrong", os.environ["SDK_OLD_KEY"]):
            error = self.refusal(openai.AuthenticationError, keyed(api_key=key))
            self.assertEqual((error.status_code, error.code), (401, "invalid_key"))

    def test_a_model_that_the_key_may_not_use_is_a_permission_error(self):
        client = keyed(api_key=os.environ["SDK_NARROW_KEY"])
        error = self.refusal(openai.PermissionDeniedError, client)
        self.assertEqual((error.status_code, error.code), (403, "model_not_allowed"))

    def test_an_unknown_model_is_not_found(self):
        error = self.refusal(openai.NotFoundError, keyed(), "nothing-of-the-kind")
        self.assertEqual(error.code, "model_not_found")

    def test_what_is_not_served_is_not_found(self):
        for call in (
            lambda client: client.responses.create(model="sim", input="Hello"),
            lambda client: client.files.list(),
            lambda client: client.batches.list(),
        ):
            with self.assertRaises(openai.NotFoundError) as raised:
                call(keyed())
            self.assertEqual(raised.exception.code, "endpoint_not_served")

    def test_a_provider_that_refuses_our_credential_is_not_the_clients_fault(self):
        error = self.refusal(openai.InternalServerError, keyed(max_retries=0), "sim-401")
        self.assertEqual((error.status_code, error.code), (502, "upstream_error"))


class BrokenStreams(unittest.TestCase):
    def test_a_stream_that_breaks_off_is_an_error_and_never_an_end(self):
        # sim-cut-clean ends as if it were whole; without a node nobody would notice.
        codes = {
            "sim-cut": "stream_interrupted",
            "sim-cut-clean": "stream_interrupted",
            "sim-error-event": "server_error",
            "sim-malformed": "stream_interrupted",
        }
        for model, code in codes.items():
            with self.subTest(model):
                text = ""
                with self.assertRaises(openai.APIError) as raised:
                    stream = node(max_retries=0).chat.completions.create(
                        model=model, messages=HELLO, stream=True
                    )
                    for chunk in stream:
                        text += chunk.choices[0].delta.content or ""
                self.assertTrue(text, "it breaks off after its beginning")
                self.assertEqual(raised.exception.code, code)

    def test_a_stream_without_its_last_word_is_whole(self):
        stream = node().chat.completions.create(model="sim-no-done", messages=HELLO, stream=True)
        self.assertEqual(list(stream)[-1].choices[0].finish_reason, "stop")

    def test_a_plain_answer_that_breaks_off_is_an_error(self):
        with self.assertRaises(openai.APIError):
            node(max_retries=0).chat.completions.create(model="sim-cut", messages=HELLO)


class Leaving(unittest.IsolatedAsyncioTestCase):
    async def test_a_clients_timeout_is_the_same_and_frees_the_provider(self):
        async def timed_out(client, **options):
            user = scenario()
            with self.assertRaises(openai.APITimeoutError):
                await client.chat.completions.create(
                    model="script-silent", messages=HELLO, user=user, **options
                )
            return user

        asked = dict(timeout=0.4, max_retries=1)
        for options in ({}, {"stream": True}):
            for make in (script_async, keyed_async):
                async with make(**asked) as client:
                    user = await timed_out(client, **options)
                    await self.gone(user, tries=2)

    async def test_leaving_in_mid_stream_ends_the_providers_work_within_a_second(self):
        async with keyed_async() as client:
            user = scenario()
            stream = await client.chat.completions.create(
                model="script-endless", messages=HELLO, user=user, stream=True
            )
            seen = 0
            async for chunk in stream:
                seen += 1
                if seen == 5:
                    break
            await stream.close()
            left = time.time()
            (entry,) = await self.gone(user, tries=1)
            self.assertLess(entry["endedAt"] / 1000 - left, 1)
            await eventually(self.leaving_is_counted, 10)

    async def test_a_cancelled_task_ends_the_providers_work_within_a_second(self):
        async with keyed_async() as client:
            user = scenario()
            call = client.chat.completions.create(model="script-silent", messages=HELLO, user=user)
            task = asyncio.create_task(call)
            await eventually(lambda: log_of(user), 10)
            task.cancel()
            await self.gone(user, tries=1)

    async def gone(self, user, tries):
        """Waits until the provider has lost all of a scenario's clients."""

        def all_cut():
            entries = log_of(user)
            cut = [entry for entry in entries if entry["ended"] == "cut"]
            return entries if len(cut) == len(entries) == tries else None

        return await eventually(all_cut, 1)

    def leaving_is_counted(self):
        """That nothing is left in flight is looked at when all suites are over."""
        metrics = read(f"{KEYED_ADMIN}/metrics")
        gone = 'outcome="client_gone"'
        return any(gone in line and 'pool="once"' in line for line in metrics.splitlines())
