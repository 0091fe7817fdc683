// Two origins that serve the same page: one that the node allows, and another. A page tells its own
// origin what came of its requests, and a test asks for it.

import { readFileSync } from "node:fs";
import http from "node:http";
import path from "node:path";
import { fileURLToPath } from "node:url";

const here = path.dirname(fileURLToPath(import.meta.url));

export async function startPages() {
  let env = {};
  const servers = [];
  const start = async () => {
    let told;
    const result = new Promise((resolve) => (told = resolve));
    const server = http.createServer(async (request, response) => {
      const { pathname } = new URL(request.url, "http://page");
      if (pathname === "/result" && request.method === "POST") {
        let text = "";
        for await (const piece of request) text += piece;
        told(text);
        return response.end();
      }
      if (pathname === "/result") return response.end(await result);
      if (pathname === "/settings") {
        const { SDK_KEYED, SDK_KEY, SDK_OTHER_PAGE } = env;
        return response.end(JSON.stringify({ SDK_KEYED, SDK_KEY, SDK_OTHER_PAGE }));
      }
      if (pathname.startsWith("/openai/")) return sdk(pathname, response);
      if (pathname !== "/") return response.writeHead(404).end();
      response.setHeader("content-type", "text/html; charset=utf-8");
      response.end(readFileSync(path.join(here, "page.html")));
    });
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
    servers.push(server);
    return `http://127.0.0.1:${server.address().port}`;
  };
  const sdk = (pathname, response) => {
    const folder = path.join(env.SDK_INSTALLED, "node/node_modules");
    const file = path.join(folder, path.normalize(pathname));
    response.setHeader("content-type", "text/javascript");
    try {
      response.end(readFileSync(file));
    } catch {
      response.writeHead(404).end();
    }
  };
  return {
    allowed: await start(),
    other: await start(),
    configure: (settings) => (env = settings),
    stop: () => servers.forEach((server) => server.close()),
  };
}
