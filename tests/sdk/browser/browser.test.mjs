// Opt-in CORS, judged by a real browser: a page of a listed origin may use the node, preflight and
// streams included; a page of any other origin may not.

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import path from "node:path";
import { after, before, test } from "node:test";

const { SDK_ALLOWED_PAGE, SDK_OTHER_PAGE, SDK_SCRATCH, SDK_KEYED_ADMIN } = process.env;
const DEADLINE_MS = 45_000;

const chromium = ["chromium", "chromium-browser", "google-chrome"].find(
  (name) => spawnSync(name, ["--version"]).status === 0,
);

let browser;
let said = "";

before(() => {
  assert.ok(chromium, "missing: chromium");
  const profile = path.join(SDK_SCRATCH, "chromium");
  mkdirSync(profile, { recursive: true });
  const flags = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    "--remote-debugging-pipe",
    `--user-data-dir=${profile}`,
  ];
  // The pipe of the debugger keeps a headless browser open until it is closed.
  const stdio = ["ignore", "pipe", "pipe", "pipe", "pipe"];
  browser = spawn(chromium, [...flags, SDK_ALLOWED_PAGE], { stdio });
  browser.stderr.on("data", (piece) => (said += piece));
});

after(() => browser?.kill("SIGKILL"));

/** What the page of this origin told, as soon as it has. */
async function result(origin) {
  try {
    const answer = await fetch(`${origin}/result`, { signal: AbortSignal.timeout(DEADLINE_MS) });
    return await answer.json();
  } catch (error) {
    const why = `the page of ${origin} told nothing (${error.message})`;
    throw new Error(`${why}; chromium said:\n${said}`);
  }
}

test("a page of a listed origin asks, streams, and reads errors and ids", async () => {
  const { plain, stream, refused, models } = await result(SDK_ALLOWED_PAGE);
  assert.equal(plain.status, 200);
  assert.match(plain.content, /simulated/);
  assert.match(plain.id, /^[0-9a-f]{32}$/);
  assert.deepEqual(stream, { early: true, done: true });
  assert.deepEqual(refused, { status: 401, code: "invalid_key" });
  assert.equal(models.status, 200);
  assert.ok(models.count > 0);
});

test("the official SDK serves within such a page", async () => {
  const { sdk } = await result(SDK_ALLOWED_PAGE);
  assert.match(sdk.text ?? JSON.stringify(sdk), /^This answer was made up/);
});

test("a page of another origin reads nothing at all", async () => {
  const results = Object.entries(await result(SDK_OTHER_PAGE));
  assert.equal(results.length, 5);
  for (const [name, outcome] of results) {
    const failed = name === "sdk" ? outcome.failed !== undefined : outcome.failed === "TypeError";
    assert.ok(failed, `${name}: ${JSON.stringify(outcome)}`);
  }
});

test("the browser did ask first", async () => {
  await result(SDK_OTHER_PAGE);
  const metrics = await (await fetch(`${SDK_KEYED_ADMIN}/metrics`)).text();
  // Nothing but a preflight is answered 204.
  assert.match(metrics, /^flotilla_requests_total.*status="204"/m);
});
