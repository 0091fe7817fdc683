"""What an application asks for when all goes well, through a node as a newcomer starts it."""

import asyncio
import os
import unittest
from unittest import mock

import openai
from pydantic import BaseModel
from support import HELLO, KEY, KEYED, keyed, keyed_async, node, scenario

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}


class Place(BaseModel):
    name: str
    inhabitants: int
    tags: list[str]


class Chat(unittest.TestCase):
    def test_a_completion_has_words_usage_and_ids(self):
        done = node().chat.completions.create(model="sim", messages=HELLO)
        self.assertEqual(done.object, "chat.completion")
        self.assertIn("simulated provider", done.choices[0].message.content)
        self.assertEqual(done.choices[0].finish_reason, "stop")
        self.assertEqual(done.usage.completion_tokens, 16)
        self.assertTrue(done._request_id)

    def test_several_choices_and_a_limit_are_kept(self):
        done = node().chat.completions.create(model="sim", messages=HELLO, n=3, max_tokens=2)
        self.assertEqual([choice.index for choice in done.choices], [0, 1, 2])
        self.assertEqual({choice.finish_reason for choice in done.choices}, {"length"})

    def test_the_answers_of_a_node_say_who_answered(self):
        raw = node().chat.completions.with_raw_response.create(
            model="sim", messages=HELLO, extra_headers={"x-request-id": "mine-1"}
        )
        self.assertEqual(raw.headers["x-flotilla-target"], "sim")
        self.assertEqual(raw.headers["x-flotilla-attempts"], "1")
        self.assertEqual(len(raw.headers["x-flotilla-request-id"]), 32)
        self.assertEqual(raw.request_id, "mine-1")
        self.assertEqual(raw.parse().model, "sim")

    def test_a_stream_brings_the_same_words(self):
        whole = node().chat.completions.create(model="sim", messages=HELLO)
        stream = node().chat.completions.create(model="sim", messages=HELLO, stream=True)
        chunks = list(stream)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        self.assertEqual(text, whole.choices[0].message.content)
        self.assertEqual(chunks[-1].choices[0].finish_reason, "stop")
        # Usage that nobody asked for is not shown, whether or not the node needed it.
        self.assertTrue(all(chunk.usage is None for chunk in chunks))
        self.assertTrue(all("usage" not in chunk.model_fields_set for chunk in chunks))
        self.assertTrue(all(chunk.choices for chunk in chunks))

    def test_a_stream_ends_with_usage_where_it_is_asked_for(self):
        stream = node().chat.completions.create(
            model="sim", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
        *chunks, last = list(stream)
        self.assertEqual(last.choices, [])
        self.assertEqual(last.usage.completion_tokens, 16)
        self.assertTrue(all(chunk.usage is None for chunk in chunks))

    def test_a_stream_of_several_choices_keeps_them_apart(self):
        texts = {0: "", 1: ""}
        stream = node().chat.completions.create(model="sim", messages=HELLO, stream=True, n=2)
        for chunk in stream:
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
        self.assertEqual(texts[0], texts[1])
        self.assertIn("simulated", texts[0])

    def test_older_completions_are_served_plain_and_streamed(self):
        client = node()
        done = client.completions.create(model="sim", prompt="Once")
        self.assertIn("simulated", done.choices[0].text)
        stream = client.completions.create(model="sim", prompt="Once", stream=True)
        self.assertEqual("".join(c.choices[0].text for c in stream), done.choices[0].text)

    def test_a_body_of_two_megabytes_is_taken(self):
        messages = [{"role": "user", "content": "ä" * (1 << 20)}]
        done = node().chat.completions.create(model="sim", messages=messages)
        self.assertGreater(done.usage.prompt_tokens, 500_000)

    def test_a_hundred_streams_run_at_the_same_time(self):
        # The provider goes on only once all hundred are open, so none may wait for another.
        user, count = scenario(), 100

        async def one(client, number):
            stream = await client.chat.completions.create(
                model="script-together",
                messages=[{"role": "user", "content": f"<{number}>"}],
                user=user,
                seed=count,
                stream=True,
            )
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
            self.assertEqual(text, f"first last <{number}>")

        async def all_of_them():
            async with keyed_async(max_retries=0, timeout=30) as client:
                await asyncio.gather(*(one(client, number) for number in range(count)))

        asyncio.run(all_of_them())


class Tools(unittest.TestCase):
    def test_a_tool_is_called_and_its_result_answered(self):
        client = node()
        messages = [{"role": "user", "content": "Use the tool."}]
        done = client.chat.completions.create(model="sim", messages=messages, tools=[WEATHER])
        self.assertEqual(done.choices[0].finish_reason, "tool_calls")
        (call,) = done.choices[0].message.tool_calls
        self.assertEqual(call.function.name, "weather")
        messages += [
            done.choices[0].message,
            {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
        ]
        done = client.chat.completions.create(model="sim", messages=messages, tools=[WEATHER])
        self.assertEqual(done.choices[0].finish_reason, "stop")

    def test_a_streamed_call_is_put_together(self):
        with node().chat.completions.stream(
            model="sim", messages=HELLO, tools=[WEATHER], tool_choice="required"
        ) as stream:
            kinds = [event.type for event in stream]
            done = stream.get_final_completion()
        self.assertIn("tool_calls.function.arguments.done", kinds)
        (call,) = done.choices[0].message.tool_calls
        self.assertEqual(set(call.function.parsed_arguments), {"city", "days"})

    def test_parallel_calls_stay_apart_plain_and_streamed(self):
        client = keyed()
        asked = dict(model="script-tools", messages=HELLO, tools=[WEATHER])
        done = client.chat.completions.create(user=scenario(), **asked)
        with client.chat.completions.stream(user=scenario(), **asked) as stream:
            streamed = stream.get_final_completion()
        for completion in (done, streamed):
            calls = completion.choices[0].message.tool_calls
            self.assertEqual([call.id for call in calls], ["call_paris", "call_oslo"])
            cities = [call.function.arguments for call in calls]
            self.assertEqual(cities, ['{"city":"Paris"}', '{"city":"Oslo"}'])


class StructuredOutput(unittest.TestCase):
    def test_an_answer_is_parsed_into_its_type(self):
        done = node().chat.completions.parse(model="sim", messages=HELLO, response_format=Place)
        self.assertIsInstance(done.choices[0].message.parsed, Place)

    def test_a_stream_is_parsed_into_its_type(self):
        with node().chat.completions.stream(
            model="sim", messages=HELLO, response_format=Place
        ) as stream:
            done = stream.get_final_completion()
        self.assertIsInstance(done.choices[0].message.parsed, Place)


class Embeddings(unittest.TestCase):
    def test_they_come_as_base64_and_as_numbers_and_are_the_same(self):
        client = node()
        asked = dict(model="sim", input=["one", "two"], dimensions=8)
        # Without a wish, the SDK asks for base64 and reads it.
        usual = client.embeddings.create(**asked)
        floats = client.embeddings.create(**asked, encoding_format="float")
        text = client.embeddings.create(**asked, encoding_format="base64")
        self.assertEqual([len(item.embedding) for item in usual.data], [8, 8])
        self.assertIsInstance(text.data[0].embedding, str)
        for one, other in zip(usual.data, floats.data):
            for left, right in zip(one.embedding, other.embedding):
                self.assertAlmostEqual(left, right, places=5)
        self.assertGreater(usual.usage.total_tokens, 0)


class Media(unittest.TestCase):
    PNG = ("picture.png", b"\x89PNG\r\n\x1a\n" + bytes(4096), "image/png")
    WAV = ("speech.wav", b"RIFF" + bytes(100_000), "audio/wav")

    def test_images_are_made_edited_and_varied(self):
        client = node()
        made = client.images.generate(model="sim", prompt="a ship", n=2)
        edited = client.images.edit(model="sim", prompt="bluer", image=self.PNG)
        several = client.images.edit(model="sim", prompt="one", image=[self.PNG, self.PNG])
        varied = client.images.create_variation(model="sim", image=self.PNG)
        self.assertEqual(len(made.data), 2)
        for image in (*made.data, *edited.data, *several.data, *varied.data):
            self.assertTrue(image.b64_json.startswith("iVBORw0KGgo"))

    def test_images_are_streamed(self):
        stream = node().images.generate(
            model="sim", prompt="a ship", stream=True, partial_images=1
        )
        kinds = [event.type for event in stream]
        self.assertEqual(kinds, ["image_generation.partial_image", "image_generation.completed"])

    def test_an_upload_is_transcribed_in_every_form(self):
        audio = node().audio.transcriptions
        done = audio.create(model="sim", file=self.WAV)
        text = audio.create(model="sim", file=self.WAV, response_format="text")
        verbose = audio.create(model="sim", file=self.WAV, response_format="verbose_json")
        events = list(audio.create(model="sim", file=self.WAV, stream=True))
        self.assertIn("simulated", done.text)
        self.assertEqual(text.strip(), done.text)
        self.assertEqual(verbose.segments[0].text, done.text)
        self.assertEqual(events[-1].type, "transcript.text.done")
        self.assertEqual(events[-1].text, done.text)

    def test_an_upload_is_translated(self):
        done = node().audio.translations.create(model="sim", file=self.WAV)
        self.assertIn("simulated", done.text)

    def test_speech_comes_as_the_bytes_it_is(self):
        client = node()
        asked = dict(model="sim", voice="alloy", input="Hello")
        whole = client.audio.speech.create(**asked).content
        with client.audio.speech.with_streaming_response.create(**asked) as streamed:
            self.assertEqual(b"".join(streamed.iter_bytes()), whole)
            self.assertEqual(streamed.headers["content-type"], "audio/wav")
        self.assertTrue(whole.startswith(b"RIFF"))
        self.assertEqual(len(whole), 844)


class Others(unittest.TestCase):
    def test_moderations_judge_every_input(self):
        done = node().moderations.create(model="sim", input=["a", "b"])
        self.assertEqual([result.flagged for result in done.results], [False, False])
        self.assertFalse(done.results[0].categories.self_harm)

    def test_models_are_listed_and_found(self):
        client = node()
        names = [model.id for model in client.models.list()]
        self.assertIn("sim", names)
        self.assertIn("sim-429", names)
        self.assertEqual(client.models.retrieve("sim").object, "model")
        with self.assertRaises(openai.NotFoundError) as raised:
            client.models.retrieve("nothing")
        self.assertEqual(raised.exception.code, "model_not_found")

    def test_the_environment_alone_leads_a_client_here(self):
        with mock.patch.dict(os.environ, OPENAI_BASE_URL=f"{KEYED}/v1", OPENAI_API_KEY=KEY):
            self.assertTrue(openai.OpenAI().models.list().data)
