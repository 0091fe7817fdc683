// What the suites for the Node clients share: where the nodes are, and what a call came to.

import { randomUUID } from "node:crypto";
import { createRequire } from "node:module";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

export const env = process.env;

/** The clients are installed elsewhere than these tests. */
export const load = createRequire(path.join(env.SDK_INSTALLED, "node/package.json"));
export const OpenAI = load("openai");

export const HELLO = [{ role: "user", content: "Hello" }];

/** A client of the node that a newcomer starts. */
export const node = (options) =>
  new OpenAI({ baseURL: `${env.SDK_OPEN}/v1`, apiKey: "any", ...options });

/** A client of the node that has keys and the scripted provider. */
export const keyed = (options) =>
  new OpenAI({ baseURL: `${env.SDK_KEYED}/v1`, apiKey: env.SDK_KEY, ...options });

/** A client of the scripted provider itself. */
export const script = (options) =>
  new OpenAI({ baseURL: `${env.SDK_PROVIDER}/v1`, apiKey: "sk-script", ...options });

/** A name under which the scripted provider logs, used by nobody else. */
export const scenario = () => randomUUID();

/** The tries that the scripted provider has seen of this scenario. */
export async function logOf(user) {
  return (await fetch(`${env.SDK_PROVIDER}/log?user=${user}`)).json();
}

/** What `check` returns as soon as that is something; fails after so many milliseconds. */
export async function eventually(check, ms) {
  const until = Date.now() + ms;
  for (;;) {
    const found = await check();
    if (found) return found;
    if (Date.now() > until) throw new Error(`not within ${ms} ms`);
    await sleep(10);
  }
}

/** Waits until the provider has lost all of a scenario's clients; at most a second. */
export function gone(user, tries) {
  return eventually(async () => {
    const entries = await logOf(user);
    const cut = entries.filter((entry) => entry.ended === "cut");
    return cut.length === entries.length && cut.length === tries && entries;
  }, 1000);
}

/** Makes one call under a scenario of its own: what an application and the provider see of it. */
export async function outcome(client, model) {
  const user = scenario();
  let seen;
  try {
    const done = await client.chat.completions.create({ model, messages: HELLO, user });
    const content = done.choices[0].message.content;
    seen = { kind: "ok", status: 200, requestId: done._request_id, content };
  } catch (error) {
    if (!(error instanceof OpenAI.APIError)) throw error;
    const { status, code, type, message, requestID: requestId } = error;
    seen = { kind: error.constructor.name, status, code, type, message, requestId };
  }
  const times = (await logOf(user)).map((entry) => entry.at);
  const waits = times.slice(1).map((time, index) => time - times[index]);
  return { seen, tries: times.length, waits };
}

/** All pieces of a stream of chunks, in a list. */
export async function all(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

export const textOf = (chunks) =>
  chunks.map((chunk) => chunk.choices[0]?.delta?.content ?? "").join("");
