// The request of a column as people would type it elsewhere.

import { specText } from "./settings.js";

export const SNIPPETS = [
  { name: "curl", help: "for this server", make: curl },
  { name: "Python", help: "with the openai client", make: python },
  { name: "vLLM", help: "curl for vLLM with the plug-in", make: vllm },
];

/** The body of a chat request, without anything that only this page needs. */
export function requestBody(about, settings, messages, steering) {
  return {
    model: about.model,
    messages,
    max_tokens: settings.tokens,
    temperature: settings.temperature,
    seed: settings.seed,
    repetition_penalty: 1.1,
    ...steering,
  };
}

/** Steering as both servers read it. */
export function xargs(about, settings, column, read = false) {
  const named = settings.pack !== about.packs[0].name ? { affectlens_pack: settings.pack } : {};
  return {
    vllm_xargs: { affectlens: specText(column), ...named, ...(read ? { affectlens_read: true } : {}) },
  };
}

function short(about, settings, column) {
  const plain = about.server === "affectlens" && settings.pack === about.packs[0].name;
  return plain ? { steering: specText(column) } : xargs(about, settings, column);
}

function curl(about, settings, messages, column) {
  return curlOf(about.address, requestBody(about, settings, messages, short(about, settings, column)));
}

function vllm(about, settings, messages, column) {
  const address = about.server === "vllm" ? about.address : "http://127.0.0.1:8000";
  return curlOf(address, requestBody(about, settings, messages, xargs(about, settings, column)));
}

function curlOf(address, body) {
  const quoted = JSON.stringify(body, null, 2).replaceAll("'", "'\\''");
  return `curl -s ${address}/v1/chat/completions -H 'Content-Type: application/json' -d '${quoted}'\n`;
}

function python(about, settings, messages, column) {
  const body = requestBody(about, settings, messages, {});
  const extra = { repetition_penalty: body.repetition_penalty, ...short(about, settings, column) };
  return [
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${literal(`${about.address}/v1`)}, api_key="none")`,
    "reply = client.chat.completions.create(",
    `    model=${literal(body.model)},`,
    `    messages=${literal(body.messages)},`,
    `    max_tokens=${body.max_tokens},`,
    `    temperature=${body.temperature},`,
    `    seed=${body.seed},`,
    `    extra_body=${literal(extra)},`,
    ")",
    "print(reply.choices[0].message.content)",
    "",
  ].join("\n");
}

/** JSON that is Python: what is sent holds no null, and true only where Python wants True. */
function literal(value) {
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value === "object")
    return `{${Object.entries(value).map(([name, own]) => `${JSON.stringify(name)}: ${literal(own)}`).join(", ")}}`;
  return JSON.stringify(value);
}
