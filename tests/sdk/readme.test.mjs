// The snippets of the README, as they stand there, against a node.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const { SDK_OPEN, SDK_INSTALLED } = process.env;
const readme = readFileSync(fileURLToPath(new URL("../../README.md", import.meta.url)), "utf8");
const section = /^## Point an SDK at it\n(.*?)^## /ms.exec(readme)[1];
const blocks = [...section.matchAll(/^```(\w+)\n(.*?)^```/gms)].map(([, language, text]) => ({
  language,
  // The only thing that differs: where the node is.
  text: text.replaceAll("http://127.0.0.1:8080", SDK_OPEN),
}));

/** Runs a program in the folder where the SDKs are; what it prints. */
function run(command, args, env = {}) {
  const cwd = path.join(SDK_INSTALLED, "node");
  const options = { cwd, env: { ...process.env, ...env }, timeout: 30_000 };
  return new Promise((resolve, reject) => {
    execFile(command, args, options, (error, stdout, stderr) =>
      error ? reject(new Error(`${error.message}\n${stderr}`)) : resolve(stdout),
    );
  });
}

const runners = {
  python: (text) => run(path.join(SDK_INSTALLED, "python/bin/python"), ["-c", text]),
  js: (text) => {
    const file = path.join(SDK_INSTALLED, "node/readme.mjs");
    writeFileSync(file, text);
    return run(process.execPath, [file]);
  },
  sh: (text) => run("bash", ["-euo", "pipefail", "-c", text]),
};

test("there is one for each of the languages", () => {
  const languages = new Set(blocks.map(({ language }) => language));
  assert.deepEqual([...languages].sort(), Object.keys(runners).sort());
});

for (const [at, { language, text }] of blocks.entries()) {
  test(`snippet ${at + 1} (${language}) runs and prints an answer`, async () => {
    assert.match(await runners[language](text), /simulated/);
  });
}
