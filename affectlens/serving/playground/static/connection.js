// How the page talks to a server. A notebook has another object with the same four functions.

import { Sentence } from "./settings.js";

/** A connection over HTTP; `root` is where /v1 and /affectlens lie, "" for the page's own server. */
export function httpConnection(root = "", fetcher = (path, options) => fetch(path, options)) {
  let key = kept() ?? "";

  async function ask(path, options = {}) {
    const headers = { ...(options.body ? { "Content-Type": "application/json" } : {}) };
    if (key) headers.Authorization = `Bearer ${key}`;
    let answer;
    try {
      answer = await fetcher(root + path, { ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Sentence("The server does not answer; is it still running?");
    }
    if (!answer.ok) throw await refusal(answer);
    return answer;
  }

  const post = async (path, body) =>
    (await ask(path, { method: "POST", body: JSON.stringify(body) })).json();

  return {
    setKey(text) {
      key = text;
      keep(text);
    },
    about: async () => (await ask("/affectlens/play/about")).json(),
    inspect: (body) => post("/affectlens/play/inspect", body),
    token: (body) => post("/affectlens/play/token", body),
    async chat(body, onChunk, signal) {
      const answer = await ask("/v1/chat/completions", { method: "POST", body: JSON.stringify(body), signal });
      const decoder = new TextDecoder();
      const lines = new LineBuffer();
      for await (const bytes of chunksOf(answer.body)) {
        for (const line of lines.push(decoder.decode(bytes, { stream: true }))) {
          if (!line.startsWith("data:")) continue;
          const data = line.slice(5).trim();
          if (data === "[DONE]") return;
          const chunk = JSON.parse(data);
          if (chunk.error) throw new Sentence(chunk.error.message);
          onChunk(chunk);
        }
      }
    },
  };
}

const KEY = "affectlens.key";

function kept() {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null;
  }
}

function keep(text) {
  try {
    sessionStorage.setItem(KEY, text);
  } catch {
    // Asked again after the page is loaded anew.
  }
}

async function refusal(answer) {
  let message = `The server answered with ${answer.status}.`;
  try {
    const body = await answer.json();
    message = body.error?.message ?? body.message ?? body.detail ?? message;
  } catch {
    // No JSON: the number has to do.
  }
  const error = new Sentence(typeof message === "string" ? message : JSON.stringify(message));
  error.status = answer.status;
  return error;
}

async function* chunksOf(stream) {
  const reader = stream.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Gives whole lines of text that comes in pieces. */
export class LineBuffer {
  rest = "";

  push(text) {
    const lines = (this.rest + text).split(/\r\n|\r|\n/);
    this.rest = lines.pop();
    return lines;
  }
}
