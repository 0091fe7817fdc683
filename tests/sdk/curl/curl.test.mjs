// curl, as people use it: what it prints, and how it ends.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { test } from "node:test";

const { SDK_OPEN, SDK_KEYED, SDK_KEY } = process.env;
const HELLO = { model: "sim", messages: [{ role: "user", content: "Hello" }] };

/** What curl prints and with which code it ends. */
function curl(...args) {
  return new Promise((resolve) => {
    const all = ["-sS", "--max-time", "20", "--noproxy", "*", ...args];
    execFile("curl", all, { maxBuffer: 1 << 26 }, (error, stdout, stderr) =>
      resolve({ code: error?.code ?? 0, stdout, stderr }),
    );
  });
}

function chat(body, ...args) {
  const type = ["-H", "content-type: application/json"];
  const data = ["-d", JSON.stringify({ ...HELLO, ...body })];
  return curl(`${SDK_OPEN}/v1/chat/completions`, ...type, ...data, ...args);
}

test("a plain answer is printed whole", async () => {
  const { code, stdout } = await chat({}, "--fail");
  assert.equal(code, 0);
  assert.match(JSON.parse(stdout).choices[0].message.content, /simulated/);
});

test("a stream is printed event by event and ends well", async () => {
  const { code, stdout } = await chat({ stream: true }, "--fail", "-N", "-i");
  assert.equal(code, 0);
  const [head, body] = stdout.split(/\r\n\r\n(.*)/s);
  assert.match(head, /^HTTP\/1.1 200 OK/);
  assert.match(head, /content-type: text\/event-stream/i);
  assert.match(head, /x-accel-buffering: no/i);
  assert.ok(body.split("\n\n").filter(Boolean).every((event) => event.startsWith("data: ")));
  assert.ok(body.endsWith("data: [DONE]\n\n"));
});

test("--fail ends with 22 on every error, and without it the error is printed", async () => {
  for (const [model, status] of [["sim-500", 500], ["sim-context-length", 400], ["none", 404]]) {
    assert.equal((await chat({ model }, "--fail")).code, 22, model);
    const { code, stdout } = await chat({ model }, "-w", "%{http_code}");
    assert.equal(code, 0);
    assert.ok(stdout.endsWith(String(status)));
    assert.ok(JSON.parse(stdout.slice(0, -3)).error.message);
  }
});

test("a stream that breaks off fails, with the error in sight", async () => {
  for (const model of ["sim-cut", "sim-cut-clean", "sim-error-event"]) {
    const { code, stdout } = await chat({ model, stream: true }, "-N");
    // 18: the transfer was closed with data outstanding.
    assert.equal(code, 18, model);
    assert.match(stdout, /data: {"error":/);
    assert.doesNotMatch(stdout, /\[DONE\]/);
  }
});

test("a key is taken from either header that people use", async () => {
  const models = `${SDK_KEYED}/v1/models`;
  const bare = await curl(models, "-w", "%{http_code}", "-o", "/dev/null");
  assert.equal(bare.stdout, "401");
  for (const header of [`authorization: Bearer ${SDK_KEY}`, `x-api-key: ${SDK_KEY}`]) {
    const { code, stdout } = await curl(models, "--fail", "-H", header);
    assert.equal(code, 0);
    assert.equal(JSON.parse(stdout).object, "list");
  }
});

test("an upload from the command line is transcribed", async () => {
  const form = ["-F", "model=sim", "-F", `file=@${process.argv[1]};type=audio/wav`];
  const { code, stdout } = await curl(`${SDK_OPEN}/v1/audio/transcriptions`, "--fail", ...form);
  assert.equal(code, 0);
  assert.match(JSON.parse(stdout).text, /simulated/);
});

test("one connection serves many requests", async () => {
  const url = `${SDK_OPEN}/v1/models`;
  const away = ["-o", "/dev/null", "-o", "/dev/null", "-o", "/dev/null"];
  const { stdout } = await curl(url, url, url, ...away, "-w", "%{num_connects} ");
  assert.equal(stdout, "1 0 0 ");
});

test("a large upload waits for its 100-continue and goes through", async () => {
  const messages = [{ role: "user", content: "x".repeat(100_000) }];
  const { code, stdout } = await chat({ messages }, "--fail", "-H", "expect: 100-continue");
  assert.equal(code, 0);
  assert.match(stdout, /simulated/);
});
