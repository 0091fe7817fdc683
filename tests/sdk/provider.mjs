// A provider whose faults are exact. The model of a request is its script: `script-429m300_200` is
// answered 429 with `retry-after-ms: 300`, and when it comes again, 200. The `user` of a request
// names its scenario: tries are counted and logged for each of them, so that a test can ask what
// the provider saw.

import http from "node:http";

const TICK_MS = 20;

/** What the provider says of each status. */
const ERRORS = {
  400: ["invalid_request_error", "context_length_exceeded", "This model's context is too short."],
  404: ["invalid_request_error", "model_not_found", "The model does not exist."],
  409: ["invalid_request_error", "conflict", "The resource is locked."],
  422: ["invalid_request_error", null, "A value cannot be processed."],
  429: ["requests", "rate_limit_exceeded", "Rate limit reached."],
  500: ["server_error", "server_error", "The server had an error."],
  503: ["service_unavailable_error", "overloaded", "The engine is overloaded."],
};

const TOOLS = [
  { id: "call_paris", name: "weather", pieces: ['{"city"', ':"Paris"}'] },
  { id: "call_oslo", name: "weather", pieces: ['{"city"', ':"Oslo"}'] },
];

export async function startProvider() {
  const scenes = new Map();
  const sceneOf = (user) => {
    if (!scenes.has(user)) scenes.set(user, { tries: [], waiting: [] });
    return scenes.get(user);
  };

  const server = http.createServer(async (request, response) => {
    const url = new URL(request.url, "http://provider");
    if (url.pathname === "/log") {
      const tries = sceneOf(url.searchParams.get("user")).tries;
      return response.end(JSON.stringify(tries));
    }
    let text = "";
    for await (const piece of request) text += piece;
    const body = JSON.parse(text);
    const scene = sceneOf(body.user);
    const entry = { at: Date.now(), ended: null, endedAt: null, headers: request.headers };
    scene.tries.push(entry);
    response.on("close", () => {
      entry.ended = response.writableFinished ? "whole" : "cut";
      entry.endedAt = Date.now();
    });
    const steps = body.model.slice(body.model.indexOf("-") + 1).split("_");
    const step = steps[Math.min(scene.tries.length, steps.length) - 1];
    response.setHeader("x-request-id", `req_try_${scene.tries.length}`);
    play(step, body, scene, response);
  });
  // Longer than any client keeps its own, so that it is never this side that closes.
  server.keepAliveTimeout = 120_000;
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${server.address().port}`, stop: () => server.close() };
}

function play(step, body, scene, response) {
  const [, name, option, number] = /^([a-z]+|\d{3})([a-z])?(\d+)?$/.exec(step) ?? [];
  switch (name) {
    case "silent":
      return;
    case "endless":
      return endless(body, response);
    case "together":
      return together(body, scene, response);
    case "tools":
      return tools(body, response);
    case "200":
      return json(response, 200, completion(body, { role: "assistant", content: "whole" }, "stop"));
    default:
      return refuse(Number(name), option, number, response);
  }
}

/** An error; the option says what it tells about trying again. */
function refuse(status, option, number, response) {
  const headers = {
    a: ["retry-after", number],
    m: ["retry-after-ms", number],
    d: ["retry-after", new Date(Date.now() + 1000 * Number(number)).toUTCString()],
    n: ["x-should-retry", "false"],
    y: ["x-should-retry", "true"],
  };
  if (option) response.setHeader(...headers[option]);
  const [type, code, message] = ERRORS[status];
  json(response, status, { error: { message, type, param: null, code } });
}

/** Words until the client leaves. */
function endless(body, response) {
  events(response);
  chunk(response, body, { role: "assistant", content: "" });
  const timer = setInterval(() => chunk(response, body, { content: "word " }), TICK_MS);
  response.on("close", () => clearInterval(timer));
}

/** One word, and the rest only once as many streams as `seed` says are open at the same time. */
function together(body, scene, response) {
  events(response);
  chunk(response, body, { role: "assistant", content: "first " });
  scene.waiting.push(() => {
    chunk(response, body, { content: `last ${body.messages[0].content}` });
    chunk(response, body, {}, "stop");
    response.end("data: [DONE]\n\n");
  });
  if (scene.waiting.length === body.seed) scene.waiting.splice(0).forEach((go) => go());
}

/** Two calls at once; in a stream one after the other, as the helpers of the SDKs want them. */
function tools(body, response) {
  if (!body.stream) {
    const calls = TOOLS.map(({ id, name, pieces }) => ({
      id,
      type: "function",
      function: { name, arguments: pieces.join("") },
    }));
    const message = { role: "assistant", content: null, tool_calls: calls };
    return json(response, 200, completion(body, message, "tool_calls"));
  }
  events(response);
  chunk(response, body, { role: "assistant", content: null });
  TOOLS.forEach(({ id, name, pieces }, index) => {
    const opening = { index, id, type: "function", function: { name, arguments: "" } };
    chunk(response, body, { tool_calls: [opening] });
    for (const text of pieces) {
      chunk(response, body, { tool_calls: [{ index, function: { arguments: text } }] });
    }
  });
  chunk(response, body, {}, "tool_calls");
  response.end("data: [DONE]\n\n");
}

function completion(body, message, reason) {
  return {
    id: "chatcmpl-script",
    object: "chat.completion",
    created: 1735689600,
    model: body.model,
    choices: [{ index: 0, message, logprobs: null, finish_reason: reason }],
    usage: { prompt_tokens: 3, completion_tokens: 2, total_tokens: 5 },
  };
}

function json(response, status, value) {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(value));
}

function events(response) {
  response.writeHead(200, { "content-type": "text/event-stream" });
}

function chunk(response, body, delta, reason = null) {
  const event = {
    id: "chatcmpl-script",
    object: "chat.completion.chunk",
    created: 1735689600,
    model: body.model,
    choices: [{ index: 0, delta, logprobs: null, finish_reason: reason }],
  };
  response.write(`data: ${JSON.stringify(event)}\n\n`);
}
