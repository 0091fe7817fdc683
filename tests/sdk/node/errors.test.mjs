// Errors, waits and cancellations: through a node, an application sees what it would see of the
// provider itself, or, where the provider breaks off without a word, an honest error.

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import {
  HELLO,
  OpenAI,
  all,
  env,
  eventually,
  gone,
  keyed,
  logOf,
  node,
  outcome,
  scenario,
  script,
  textOf,
} from "./support.mjs";

// Scripts of the provider, and the least wait before each further try, in milliseconds: what the
// provider asked for, or else the SDK's own half and whole second less a quarter of jitter.
const BACKOFF = [375, 750];
const RETRIES = {
  "429a1_200": [1000],
  "429a1": [1000, 1000],
  "429m1500": [1500, 1500],
  "429m100_429m1200_200": [100, 1200],
  429: BACKOFF,
  // A date in whole seconds, two ahead: between one and two are left.
  "429d2_200": [1000],
  "429n": [],
  "503a1_200": [1000],
  "503m1500": [1500, 1500],
  503: BACKOFF,
  500: BACKOFF,
  "503n": [],
  "409m500_200": [500],
  400: [],
  "400y_200": [375],
  404: [],
  422: [],
};
// No wait is longer than this, however busy the machine is.
const LONGEST_MS = 8_000;

describe("retries", { concurrency: true }, () => {
  for (const [name, expected] of Object.entries(RETRIES)) {
    test(`of ${name} are those that the provider itself would see`, () =>
      compare(name, expected));
  }

  async function compare(name, expected) {
    const model = `script-${name}`;
    const both = [outcome(script(), model), outcome(keyed(), model)];
    const [direct, through] = await Promise.all(both);
    assert.deepEqual(through.seen, direct.seen);
    assert.equal(through.tries, direct.tries);
    assert.equal(through.tries, expected.length + 1);
    for (const { waits } of [direct, through]) {
      waits.forEach((wait, at) => {
        // The clocks of two processes round on their own.
        assert.ok(wait >= expected[at] - 5 && wait < LONGEST_MS, `${wait} ms for ${expected[at]}`);
      });
    }
  }

  test("one failure that the node hides is never seen", async () => {
    const { seen, tries } = await outcome(keyed({ maxRetries: 0 }), "usual-503m50_200");
    assert.equal(seen.content, "whole");
    assert.equal(tries, 2);
  });

  test("faults of the simulator look as they do without a node", async () => {
    const direct = new OpenAI({ baseURL: `${env.SDK_SIM}/v1`, apiKey: "any", maxRetries: 0 });
    const seen = async (client, model) => {
      const error = await client.chat.completions.create({ model, messages: HELLO }).then(
        () => assert.fail(`${model} does not fail`),
        (error) => error,
      );
      assert.match(error.requestID, /^req_/);
      const told = [...error.headers].filter(([name]) => /^(x-ratelimit|retry-after)/.test(name));
      return { kind: error.constructor.name, status: error.status, body: error.error, told };
    };
    for (const model of ["sim-429", "sim-500", "sim-503", "sim-context-length"]) {
      assert.deepEqual(await seen(keyed({ maxRetries: 0 }), model), await seen(direct, model));
    }
  });
});

describe("refusals", () => {
  const cases = [
    ["a wrong key", { apiKey: "wrong" }, "sim", OpenAI.AuthenticationError, "invalid_key"],
    ["an old key", { apiKey: env.SDK_OLD_KEY }, "sim", OpenAI.AuthenticationError, "invalid_key"],
    [
      "a model that the key may not use",
      { apiKey: env.SDK_NARROW_KEY },
      "sim",
      OpenAI.PermissionDeniedError,
      "model_not_allowed",
    ],
    ["an unknown model", {}, "nothing", OpenAI.NotFoundError, "model_not_found"],
  ];
  for (const [name, options, model, kind, code] of cases) {
    test(`${name} has its own error, at once`, async () => {
      const call = keyed(options).chat.completions.create({ model, messages: HELLO });
      const error = await call.then(assert.fail, (error) => error);
      assert.ok(error instanceof kind, error);
      assert.equal(error.code, code);
      // Support is asked with this id, whoever refused.
      assert.ok(error.requestID);
    });
  }

  test("what is not served is not found", async () => {
    const error = { status: 404, code: "endpoint_not_served" };
    await assert.rejects(keyed().responses.create({ model: "sim", input: "Hello" }), error);
    await assert.rejects(keyed().files.list(), error);
  });
});

// T22
describe("limits", { concurrency: true }, () => {
  test("a call over a limit comes again when it was told to, and then goes through", async () => {
    const user = scenario();
    const client = keyed({ apiKey: env.SDK_FEW_KEY });
    const call = () =>
      client.chat.completions.create({ model: "script-200", messages: HELLO, user });
    const began = Date.now();
    for (const _ of [1, 2, 3]) await call();
    const took = Date.now() - began;
    assert.ok(took >= 1900 && took < LONGEST_MS, `${took} ms for a window of 2 s`);
    assert.equal((await logOf(user)).length, 3);
  });

  test("a budget that is spent fails at once", async () => {
    const user = scenario();
    const client = keyed({ apiKey: env.SDK_POOR_KEY });
    const began = Date.now();
    const call = client.chat.completions.create({ model: "script-200", messages: HELLO, user });
    const error = await call.then(assert.fail, (error) => error);
    assert.ok(error instanceof OpenAI.RateLimitError, error);
    assert.equal(error.code, "budget_exceeded");
    assert.ok(Date.now() - began < 375, "it does not come again");
    assert.equal((await logOf(user)).length, 0);
  });
});

describe("broken streams", () => {
  // sim-cut-clean ends as if it were whole; without a node nobody would notice.
  const codes = {
    "sim-cut": "stream_interrupted",
    "sim-cut-clean": "stream_interrupted",
    "sim-error-event": "server_error",
    "sim-malformed": "stream_interrupted",
  };
  for (const [model, code] of Object.entries(codes)) {
    test(`${model} is an error after its beginning, and never an end`, async () => {
      const chunks = [];
      const read = async () => {
        const asked = { model, messages: HELLO, stream: true };
        const stream = await node({ maxRetries: 0 }).chat.completions.create(asked);
        for await (const chunk of stream) chunks.push(chunk);
      };
      const error = await read().then(assert.fail, (error) => error);
      assert.ok(error instanceof OpenAI.APIError, error);
      // Not that a connection broke, but what happened.
      assert.equal(error.code, code);
      assert.ok(textOf(chunks).length > 0);
    });
  }

  test("a stream without its last word is whole", async () => {
    const asked = { model: "sim-no-done", messages: HELLO, stream: true };
    const chunks = await all(await node().chat.completions.create(asked));
    assert.equal(chunks.at(-1).choices[0].finish_reason, "stop");
  });
});

describe("leaving", { concurrency: true }, () => {
  for (const stream of [false, true]) {
    const kind = stream ? "stream" : "plain answer";
    test(`a client's timeout on a ${kind} is the same and frees the provider`, async () => {
      const options = { timeout: 400, maxRetries: 1 };
      for (const client of [script(options), keyed(options)]) {
        const user = scenario();
        const asked = { model: "script-silent", messages: HELLO, user, stream };
        const call = client.chat.completions.create(asked);
        await assert.rejects(call, OpenAI.APIConnectionTimeoutError);
        await gone(user, 2);
      }
    });
  }

  test("leaving in mid-stream ends the provider's work within a second", async () => {
    const user = scenario();
    const asked = { model: "script-endless", messages: HELLO, user, stream: true };
    const stream = await keyed().chat.completions.create(asked);
    let seen = 0;
    for await (const _ of stream) if (++seen === 5) break;
    stream.controller.abort();
    const left = Date.now();
    const [entry] = await gone(user, 1);
    assert.ok(entry.endedAt - left < 1000);
  });

  test("an aborted call ends the provider's work within a second", async () => {
    const user = scenario();
    const controller = new AbortController();
    const asked = { model: "script-silent", messages: HELLO, user };
    const call = keyed().chat.completions.create(asked, { signal: controller.signal });
    await eventually(async () => (await logOf(user)).length === 1, 10_000);
    controller.abort();
    await assert.rejects(call, OpenAI.APIUserAbortError);
    await gone(user, 1);
  });
});
