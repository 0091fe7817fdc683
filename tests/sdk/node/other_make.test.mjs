// A client of another make: the AI SDK's provider for OpenAI-compatible servers, which shares no
// code with the official ones.

import assert from "node:assert/strict";
import { test } from "node:test";

import { env, gone, load, scenario, eventually, logOf } from "./support.mjs";

const { createOpenAICompatible } = load("@ai-sdk/openai-compatible");
const { APICallError, embedMany, generateObject, generateText, stepCountIs, streamText, tool } =
  load("ai");
const { z } = load("zod");

const named = (base, apiKey, more) =>
  createOpenAICompatible({ name: "flotilla", baseURL: `${base}/v1`, apiKey, ...more });
const open = named(env.SDK_OPEN, "any", { supportsStructuredOutputs: true, includeUsage: true });
const keyed = named(env.SDK_KEYED, env.SDK_KEY);
const prompt = "Hello";

test("it writes a text", async () => {
  const { text, usage, finishReason } = await generateText({ model: open("sim"), prompt });
  assert.match(text, /simulated provider/);
  assert.equal(usage.outputTokens, 16);
  assert.equal(finishReason, "stop");
});

test("it streams a text", async () => {
  const result = streamText({ model: open("sim"), prompt });
  let pieces = 0;
  let text = "";
  for await (const piece of result.textStream) {
    text += piece;
    pieces += 1;
  }
  assert.match(text, /simulated provider/);
  assert.equal(pieces, 16);
  assert.equal((await result.usage).outputTokens, 16);
});

test("it calls a tool and goes on, plain and streamed", async () => {
  for (const write of [generateText, streamText]) {
    const cities = [];
    const weather = tool({
      description: "the weather",
      inputSchema: z.object({ city: z.string() }),
      execute: ({ city }) => (cities.push(city), "sunny"),
    });
    const asked = { tools: { weather }, stopWhen: stepCountIs(3), prompt: "Use the tool." };
    const result = await write({ model: open("sim"), ...asked });
    assert.match(await result.text, /simulated/);
    assert.equal(cities.length, 1);
  }
});

test("it gets an object in the shape that it asks for", async () => {
  const schema = z.object({ name: z.string(), size: z.number() });
  const { object } = await generateObject({ model: open("sim"), schema, prompt });
  assert.equal(typeof object.name, "string");
  assert.equal(typeof object.size, "number");
});

test("it embeds", async () => {
  const model = open.embeddingModel("sim");
  const { embeddings } = await embedMany({ model, values: ["one", "two"] });
  assert.equal(embeddings.length, 2);
  assert.ok(embeddings[0].length > 0);
});

test("it retries as it would with the provider, and reads errors", async () => {
  const failed = async (model, key) => {
    const client = named(env.SDK_KEYED, key);
    const call = generateText({ model: client(model), prompt, maxRetries: 0 });
    return call.then(assert.fail, (error) => error);
  };
  const limited = await failed("sim-429", env.SDK_KEY);
  assert.ok(APICallError.isInstance(limited) && limited.isRetryable);
  assert.equal(limited.responseHeaders["retry-after"], "1");
  const unknown = await failed("sim", "wrong");
  assert.equal(unknown.statusCode, 401);
  assert.ok(!unknown.isRetryable);

  const user = scenario();
  const model = keyed("script-429m300_200");
  const { text } = await generateText({ model, prompt, providerOptions: { flotilla: { user } } });
  assert.equal(text, "whole");
  const [first, second] = await logOf(user);
  assert.ok(second.at - first.at >= 295);
});

test("a stream that breaks off is an error, and never an end", async () => {
  for (const name of ["sim-cut", "sim-cut-clean", "sim-error-event"]) {
    const told = [];
    const onError = ({ error }) => told.push(error?.message ?? String(error));
    const read = async () => {
      const result = streamText({ model: open(name), prompt, maxRetries: 0, onError });
      for await (const _ of result.textStream);
    };
    // This client reads on behind an error event, and so notices the connection's end as well.
    await read().catch((error) => told.push(error.message));
    // First what happened, and not only that a connection broke.
    assert.match(told[0] ?? "nothing", /broke off|simulated server error/, name);
  }
});

test("leaving in mid-stream ends the provider's work within a second", async () => {
  const user = scenario();
  const controller = new AbortController();
  const providerOptions = { flotilla: { user } };
  const asked = { prompt, providerOptions, abortSignal: controller.signal };
  const result = streamText({ model: keyed("script-endless"), ...asked });
  let seen = 0;
  for await (const _ of result.textStream) {
    seen += 1;
    if (seen === 5) controller.abort();
  }
  await eventually(async () => (await logOf(user)).length === 1, 10_000);
  await gone(user, 1);
});
