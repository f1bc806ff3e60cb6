// The playground in a notebook (anywidget): requests go to the kernel in messages.

import { mount } from "./app.js";
import { httpConnection } from "./connection.js";

/** Like fetch, through the widget's model; answers come back piece by piece. */
function fetchThrough(model) {
  const open = new Map();
  let count = 0;
  const prefix = Math.random().toString(36).slice(2);
  model.on("msg:custom", (message) => open.get(message.id)?.(message));

  return (path, { method = "GET", body = null, signal } = {}) =>
    new Promise((resolve, reject) => {
      count += 1;
      const id = `${prefix}-${count}`;
      const encoder = new TextEncoder();
      let answered = false;
      let pieces;
      const stream = new ReadableStream({ start: (controller) => { pieces = controller; } });
      const over = () => {
        open.delete(id);
        signal?.removeEventListener("abort", stop);
      };
      const stop = () => {
        model.send({ id, cancel: true });
        over();
        const error = new DOMException("stopped", "AbortError");
        pieces.error(error);
        reject(error);
      };
      open.set(id, (message) => {
        if (message.status && !answered) {
          answered = true;
          resolve(new Response(stream, { status: message.status }));
        }
        if (message.text) pieces.enqueue(encoder.encode(message.text));
        if (message.end) {
          over();
          pieces.close();
          if (!answered) reject(new TypeError("The kernel did not answer."));
        }
      });
      if (signal?.aborted) stop();
      else {
        signal?.addEventListener("abort", stop);
        model.send({ id, method, path, body });
      }
    });
}

async function render({ model, el }) {
  const options = {
    settings: model.get("_settings"),
    onSettings(settings, spec) {
      model.set("spec_text", spec);
      model.set("pack_name", settings.pack);
      model.save_changes();
    },
  };
  const app = await mount(el, httpConnection("", fetchThrough(model)), options);
  return () => app?.stop();
}

export default { render };
