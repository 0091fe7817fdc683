// What an application asks for when all goes well, through a node as a newcomer starts it.

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { HELLO, OpenAI, all, keyed, load, node, scenario, textOf } from "./support.mjs";

const { z } = load("zod");
const { zodFunction, zodResponseFormat } = load("openai/helpers/zod");

const WEATHER = {
  type: "function",
  function: {
    name: "weather",
    parameters: {
      type: "object",
      properties: { city: { type: "string" }, days: { type: "integer" } },
      required: ["city", "days"],
      additionalProperties: false,
    },
    strict: true,
  },
};
const Place = z.object({
  name: z.string(),
  inhabitants: z.number().int(),
  tags: z.array(z.string()),
});

const ask = { model: "sim", messages: HELLO };
const file = (name, type, size) =>
  OpenAI.toFile(Buffer.alloc(size, type), name, { type });

describe("chat", () => {
  test("a completion has words, usage and ids", async () => {
    const done = await node().chat.completions.create(ask);
    assert.equal(done.object, "chat.completion");
    assert.match(done.choices[0].message.content, /simulated provider/);
    assert.equal(done.choices[0].finish_reason, "stop");
    assert.equal(done.usage.completion_tokens, 16);
    assert.ok(done._request_id);
  });

  test("several choices and a limit are kept", async () => {
    const done = await node().chat.completions.create({ ...ask, n: 3, max_tokens: 2 });
    assert.deepEqual(done.choices.map(({ index }) => index), [0, 1, 2]);
    assert.ok(done.choices.every(({ finish_reason }) => finish_reason === "length"));
  });

  test("the answers of a node say who answered", async () => {
    const headers = { "x-request-id": "mine-1" };
    const call = node().chat.completions.create(ask, { headers });
    const { data, response, request_id } = await call.withResponse();
    assert.equal(response.headers.get("x-flotilla-target"), "sim");
    assert.equal(response.headers.get("x-flotilla-attempts"), "1");
    assert.match(response.headers.get("x-flotilla-request-id"), /^[0-9a-f]{32}$/);
    assert.equal(request_id, "mine-1");
    assert.equal(data.model, "sim");
  });

  test("a stream brings the same words, and no usage that nobody asked for", async () => {
    const whole = await node().chat.completions.create(ask);
    const chunks = await all(await node().chat.completions.create({ ...ask, stream: true }));
    assert.equal(textOf(chunks), whole.choices[0].message.content);
    assert.equal(chunks.at(-1).choices[0].finish_reason, "stop");
    assert.ok(chunks.every((chunk) => !("usage" in chunk) && chunk.choices.length === 1));
  });

  test("a stream ends with usage where it is asked for", async () => {
    const stream_options = { include_usage: true };
    const asked = { ...ask, stream: true, stream_options };
    const chunks = await all(await node().chat.completions.create(asked));
    const last = chunks.pop();
    assert.deepEqual(last.choices, []);
    assert.equal(last.usage.completion_tokens, 16);
    assert.ok(chunks.every(({ usage }) => usage === null));
  });

  test("a stream's helper puts it together", async () => {
    const runner = node().chat.completions.stream(ask);
    const done = await runner.finalChatCompletion();
    assert.match(done.choices[0].message.content, /simulated provider/);
  });

  test("older completions are served plain and streamed", async () => {
    const asked = { model: "sim", prompt: "Once" };
    const done = await node().completions.create(asked);
    const chunks = await all(await node().completions.create({ ...asked, stream: true }));
    assert.match(done.choices[0].text, /simulated/);
    assert.equal(chunks.map(({ choices }) => choices[0].text).join(""), done.choices[0].text);
  });

  test("a body of two megabytes is taken", async () => {
    const messages = [{ role: "user", content: "ä".repeat(1 << 20) }];
    const done = await node().chat.completions.create({ ...ask, messages });
    assert.ok(done.usage.prompt_tokens > 500_000);
  });

  test("a hundred streams run at the same time", async () => {
    // The provider goes on only once all hundred are open, so none may wait for another.
    const client = keyed({ maxRetries: 0, timeout: 30_000 });
    const common = { model: "script-together", user: scenario(), seed: 100, stream: true };
    const one = async (number) => {
      const messages = [{ role: "user", content: `<${number}>` }];
      const stream = await client.chat.completions.create({ ...common, messages });
      assert.equal(textOf(await all(stream)), `first last <${number}>`);
    };
    await Promise.all(Array.from({ length: 100 }, (_, number) => one(number)));
  });
});

describe("tools", () => {
  test("a tool is called and its result answered", async () => {
    const tools = [WEATHER];
    const messages = [{ role: "user", content: "Use the tool." }];
    const first = await node().chat.completions.create({ model: "sim", messages, tools });
    const [call] = first.choices[0].message.tool_calls;
    assert.equal(call.function.name, "weather");
    messages.push(first.choices[0].message);
    messages.push({ role: "tool", tool_call_id: call.id, content: "sunny" });
    const second = await node().chat.completions.create({ model: "sim", messages, tools });
    assert.equal(second.choices[0].finish_reason, "stop");
  });

  test("the SDK runs tools by itself, over a stream", async () => {
    const asked = [];
    const weather = zodFunction({
      name: "weather",
      parameters: z.object({ city: z.string() }),
      function: ({ city }) => asked.push(city) && "sunny",
    });
    const messages = [{ role: "user", content: "Use the tool." }];
    const options = { model: "sim", messages, tools: [weather], stream: true };
    const text = await node().chat.completions.runTools(options).finalContent();
    assert.equal(asked.length, 1);
    assert.match(text, /simulated/);
  });

  test("parallel calls stay apart, plain and streamed", async () => {
    const asked = { model: "script-tools", messages: HELLO, tools: [WEATHER] };
    const client = keyed();
    const plain = await client.chat.completions.create({ ...asked, user: scenario() });
    const runner = client.chat.completions.stream({ ...asked, user: scenario() });
    for (const done of [plain, await runner.finalChatCompletion()]) {
      const calls = done.choices[0].message.tool_calls;
      assert.deepEqual(calls.map(({ id }) => id), ["call_paris", "call_oslo"]);
      const cities = calls.map((call) => JSON.parse(call.function.arguments).city);
      assert.deepEqual(cities, ["Paris", "Oslo"]);
    }
  });
});

test("structured output is parsed, plain and streamed", async () => {
  const asked = { ...ask, response_format: zodResponseFormat(Place, "place") };
  const plain = await node().chat.completions.parse(asked);
  const streamed = await node().chat.completions.stream(asked).finalChatCompletion();
  for (const done of [plain, streamed]) {
    assert.ok(Place.safeParse(done.choices[0].message.parsed).success);
  }
});

test("embeddings come as base64 and as numbers and are the same", async () => {
  const asked = { model: "sim", input: ["one", "two"], dimensions: 8 };
  // Without a wish, the SDK asks for base64 and reads it.
  const usual = await node().embeddings.create(asked);
  const floats = await node().embeddings.create({ ...asked, encoding_format: "float" });
  assert.deepEqual(usual.data.map(({ embedding }) => embedding.length), [8, 8]);
  usual.data.forEach(({ embedding }, at) =>
    embedding.forEach((number, place) =>
      assert.ok(Math.abs(number - floats.data[at].embedding[place]) < 1e-5),
    ),
  );
});

describe("media", () => {
  test("images are made, edited, varied and streamed", async () => {
    const { images } = node();
    const picture = () => file("picture.png", "image/png", 4096);
    const answers = [
      await images.generate({ model: "sim", prompt: "a ship", n: 2 }),
      await images.edit({ model: "sim", prompt: "bluer", image: await picture() }),
      await images.edit({
        model: "sim",
        prompt: "one",
        image: [await picture(), await picture()],
      }),
      await images.createVariation({ model: "sim", image: await picture() }),
    ];
    assert.equal(answers[0].data.length, 2);
    for (const { b64_json } of answers.flatMap(({ data }) => data)) {
      assert.match(b64_json, /^iVBORw0KGgo/);
    }
    const asked = { model: "sim", prompt: "a ship", stream: true, partial_images: 1 };
    const kinds = (await all(await images.generate(asked))).map(({ type }) => type);
    assert.deepEqual(kinds, ["image_generation.partial_image", "image_generation.completed"]);
  });

  test("an upload is transcribed in every form, and translated", async () => {
    const { transcriptions, translations } = node().audio;
    const asked = async () => ({ model: "sim", file: await file("a.wav", "audio/wav", 100_000) });
    const done = await transcriptions.create(await asked());
    const text = await transcriptions.create({ ...(await asked()), response_format: "text" });
    const verbose = { ...(await asked()), response_format: "verbose_json" };
    const events = await all(await transcriptions.create({ ...(await asked()), stream: true }));
    assert.match(done.text, /simulated/);
    assert.equal(text.trim(), done.text);
    assert.equal((await transcriptions.create(verbose)).segments[0].text, done.text);
    assert.equal(events.at(-1).text, done.text);
    assert.match((await translations.create(await asked())).text, /simulated/);
  });

  test("speech comes as the bytes it is", async () => {
    const asked = { model: "sim", voice: "alloy", input: "Hello" };
    const answer = await node().audio.speech.create(asked);
    const bytes = Buffer.from(await answer.arrayBuffer());
    assert.equal(answer.headers.get("content-type"), "audio/wav");
    assert.equal(bytes.subarray(0, 4).toString(), "RIFF");
    assert.equal(bytes.length, 844);
  });
});

test("moderations judge every input", async () => {
  const done = await node().moderations.create({ model: "sim", input: ["a", "b"] });
  assert.deepEqual(done.results.map(({ flagged }) => flagged), [false, false]);
});

test("models are listed and found", async () => {
  const names = (await all(node().models.list())).map(({ id }) => id);
  assert.ok(names.includes("sim") && names.includes("sim-429"));
  assert.equal((await node().models.retrieve("sim")).object, "model");
  await assert.rejects(node().models.retrieve("nothing"), { code: "model_not_found" });
});
