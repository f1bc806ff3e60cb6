// Presets, links, requests to copy, texts to keep.

import { download, h } from "./dom.js";
import { fromHash, newColumn, PRESETS, toHash } from "./settings.js";
import { SNIPPETS } from "./snippets.js";

const KEPT = "affectlens.presets";

/** Own presets by name; none where the browser keeps nothing. */
function keptPresets() {
  try {
    const found = JSON.parse(localStorage.getItem(KEPT) ?? "{}");
    return typeof found === "object" && found !== null ? found : {};
  } catch {
    return {};
  }
}

/** Choose a preset, save one, delete one. */
export function presetControls(app) {
  const select = h("select", { "aria-label": "Preset", onchange: () => use(select.value) });
  const status = h("span", { class: "al-quiet", role: "status" });
  const fill = () => {
    const own = Object.keys(keptPresets());
    select.replaceChildren(
      h("option", { value: "" }, "Preset…"),
      ...PRESETS.map((one, i) => h("option", { value: `built-in ${i}` }, one.name)),
      ...(own.length ? [h("optgroup", { label: "Yours" }, own.map((name) => h("option", { value: `own ${name}` }, name)))] : []),
    );
  };
  const use = (value) => {
    status.textContent = "";
    try {
      if (value.startsWith("built-in ")) {
        const weights = PRESETS[Number(value.slice(9))].columns(app.pack);
        app.useSettings({ ...app.settings, columns: weights.map((one) => newColumn({ weights: one })) });
      } else if (value.startsWith("own ")) app.useSettings(fromHash(keptPresets()[value.slice(4)], app.about));
    } catch (error) {
      status.textContent = error.message;
    }
  };
  const name = h("input", { type: "text", placeholder: "name", "aria-label": "Name of the preset to save", maxLength: 60 });
  const keep = (presets, said) => {
    try {
      localStorage.setItem(KEPT, JSON.stringify(presets));
      status.textContent = said;
    } catch {
      status.textContent = "This browser keeps no presets; copy the link instead.";
    }
    fill();
  };
  const save = () => {
    const called = name.value.trim();
    if (called) keep({ ...keptPresets(), [called]: toHash(app.settings) }, `Saved as ${called}.`);
    else status.textContent = "Give the preset a name first.";
  };
  const drop = () => {
    const presets = keptPresets();
    const called = select.value.slice(4);
    if (!select.value.startsWith("own ")) status.textContent = "Choose one of your presets first.";
    else {
      delete presets[called];
      keep(presets, `${called} is deleted.`);
    }
  };
  fill();
  return h(
    "div",
    { class: "al-field al-presets" },
    select,
    h("details", {}, h("summary", {}, "Save or delete"), h("div", { class: "al-inline" }, name, h("button", { type: "button", onclick: save }, "Save"), h("button", { type: "button", onclick: drop }, "Delete"))),
    status,
  );
}

/** The link, the requests, the texts. */
export function shareControls(app) {
  const status = h("span", { class: "al-quiet", role: "status" });
  const shown = h("textarea", { class: "al-snippet", rows: 8, readOnly: true, hidden: true, spellcheck: false, "aria-label": "Request to copy" });
  const copy = async (text, what) => {
    try {
      await navigator.clipboard.writeText(text);
      status.textContent = `${what} copied.`;
    } catch {
      status.textContent = "Copying is not allowed here; the text is marked below.";
      shown.value = text;
      shown.hidden = false;
      shown.select();
    }
  };
  const request = (snippet) => {
    const column = app.columns[app.chosen + 1];
    const turns = column.turns.length ? column.messages(app.settings.system) : opening(app.settings);
    const text = snippet.make(app.about, app.settings, turns, column.steering);
    shown.value = text;
    shown.hidden = false;
    copy(text, `The request (${snippet.name})`);
  };
  const link = () => {
    const hash = toHash(app.settings);
    history.replaceState(null, "", hash);
    copy(location.href.replace(/#.*$/, "") + hash, "The link");
  };
  return h(
    "fieldset",
    { class: "al-field" },
    h("legend", {}, "Take it along"),
    h(
      "div",
      { class: "al-buttons" },
      app.options.page ? h("button", { type: "button", onclick: link }, "Copy link") : "",
      app.about.address ? SNIPPETS.map((one) => h("button", { type: "button", title: one.help, onclick: () => request(one) }, `Copy ${one.name}`)) : "",
      h("button", { type: "button", onclick: () => download("affectlens.txt", asText(app), "text/plain") }, "Texts"),
      h("button", { type: "button", onclick: () => download("affectlens.json", JSON.stringify(asData(app), null, 2), "application/json") }, "Texts and numbers"),
    ),
    status,
    shown,
  );
}

function opening(settings) {
  const system = settings.system ? [{ role: "system", content: settings.system }] : [];
  return [...system, { role: "user", content: settings.prompt }];
}

/** What was said, for reading. */
export function asText(app) {
  const parts = app.columns.map((column) => {
    const turns = column.turns.map(({ user, reply }) => `> ${user}\n\n${reply.text}\n`);
    return `# ${column.title} (${column.spec})\n\n${turns.join("\n")}`;
  });
  return `${app.about.model}, pack ${app.settings.pack}\n\n${parts.join("\n")}`;
}

/** What was said and measured, for programs. */
export function asData(app) {
  const { prompt, system, tokens, temperature, seed, pack } = app.settings;
  return {
    model: app.about.model,
    settings: { pack, prompt, system, tokens, temperature, seed },
    columns: app.columns.map((column) => ({
      steering: column.spec,
      turns: column.turns.map(({ user, reply, spec }) => ({
        user,
        reply: reply.text,
        steering: spec,
        finish: reply.finish,
        perplexity: reply.perplexity,
        classes: reply.classes,
        tokens: reply.tokens,
      })),
    })),
  };
}
