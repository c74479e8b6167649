/** Requests to the server: each carries the page's token, and each failure becomes an error with a message. */

const TOKEN = document.querySelector('meta[name="kindsight-token"]').content;
const SILENCE = 25; // seconds without a line of events, after which the connection is lost
const PAUSE = 1000; // milliseconds before the next attempt to connect

/** A response that is not a success; `status` is 0 if the server could not be reached. */
export class RequestError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** Return the response of a request; `json` is encoded, `body` is sent unchanged. */
export async function request(method, path, { json, body, signal } = {}) {
  const headers = { "X-Kindsight-Token": TOKEN };
  if (json !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method, headers, signal, body: json === undefined ? body : JSON.stringify(json),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new RequestError("The studio does not answer.", 0);
  }
  if (response.ok) return response;
  throw new RequestError(await reason(response), response.status);
}

/** Return the content of a JSON response. */
export async function ask(method, path, options) {
  const response = await request(method, path, options);
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new RequestError("The studio ended while it answered.", 0);
  }
}

async function reason(response) {
  try {
    const problem = await response.json();
    if (typeof problem.detail === "string" && problem.detail) return problem.detail;
    if (typeof problem.title === "string" && problem.title) return problem.title;
  } catch {
    // not JSON
  }
  return `The studio answered ${response.status} ${response.statusText}.`.replace(" .", ".");
}

/**
 * Call `handle(event, data)` for each event of the server, indefinitely. `connection` is called with
 * "on", "off" or "refused" (the page is of another server) when that changes.
 */
export async function listen(handle, connection) {
  for (;;) {
    const controller = new AbortController();
    try {
      const response = await request("GET", "/api/events", { signal: controller.signal });
      connection("on");
      await read(response.body.getReader(), handle, controller);
    } catch (error) {
      if (error.status === 401 || error.status === 403) {
        connection("refused");
        return;
      }
    }
    controller.abort();
    connection("off");
    await new Promise((resolve) => setTimeout(resolve, PAUSE));
  }
}

/** Read server-sent events until the stream ends or is silent for too long. */
async function read(reader, handle, controller) {
  const decoder = new TextDecoder();
  let text = "";
  for (;;) {
    const timer = setTimeout(() => controller.abort(), 1000 * SILENCE);
    const { done, value } = await reader.read().finally(() => clearTimeout(timer));
    if (done) return;
    text += decoder.decode(value, { stream: true }).replaceAll("\r", "");
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const { event, data } = parsed(block);
      if (data !== "") handle(event, JSON.parse(data));
    }
  }
}

function parsed(block) {
  let event = "message";
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event:")) event = line.slice(6).trim();
    if (line.startsWith("data:")) data.push(line.slice(5));
  }
  return { event, data: data.join("\n").trim() };
}
