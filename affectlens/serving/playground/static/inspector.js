// What is known of one token: how it reads, what steering changed in its choice, and who wrote it.

import { h, number, percent } from "./dom.js";
import { styleOf } from "./tokens.js";

/** The panel; `close()` is called when a person is done with it. */
export class Inspector {
  constructor(close) {
    this.title = h("h2", { tabIndex: -1 });
    this.body = h("div", {});
    this.box = h(
      "section",
      { class: "al-inspector", hidden: true, "aria-label": "Token", onkeydown: (event) => event.key === "Escape" && close() },
      h("div", { class: "al-bar" }, this.title, h("button", { type: "button", onclick: close }, "Close")),
      this.body,
    );
  }

  /** Show a token at once with what is known, before the server has answered. */
  open(title, token, classes) {
    this.box.hidden = false;
    this.title.textContent = title;
    this.body.replaceChildren(...reading(token, classes));
  }

  /** A line in the place of what is not there yet, or cannot be. */
  note(text) {
    this.body.append(h("p", { class: "al-quiet al-note" }, text));
  }

  /** What the server found; `again(emotion)` asks for the writers of another emotion. */
  found(token, classes, found, again) {
    this.body.replaceChildren(
      ...reading(token, classes),
      h("div", { class: "al-panels" }, shift(found), writers(found, again)),
      ...found.maps.map(layerMap),
    );
  }

  hide() {
    this.box.hidden = true;
  }
}

function reading(token, classes) {
  if (!token.shares) return [];
  const ranked = classes.map((label, k) => ({ label, k, share: token.shares[k] })).sort((a, b) => b.share - a.share);
  return [
    h(
      "ul",
      { class: "al-shares", "aria-label": "How the token reads" },
      ranked.map(({ label, k, share }) => h("li", {}, h("span", { class: `al-token ${styleOf(label, k)}`, vars: { "--p": "0.7" } }, label), ` ${percent(share)}`)),
    ),
  ];
}

function shift(found) {
  const rows = (words) =>
    words.map((word) =>
      h("tr", {}, h("th", { scope: "row" }, visible(word.text)), h("td", {}, percent(word.unsteered)), h("td", {}, percent(word.steered))),
    );
  const table = (title, words) =>
    words.length
      ? h(
          "table",
          { class: "al-table" },
          h("caption", {}, title),
          h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "word"), h("th", { scope: "col" }, "unsteered"), h("th", { scope: "col" }, "steered"))),
          h("tbody", {}, rows(words)),
        )
      : "";
  return h(
    "div",
    { class: "al-panel" },
    h("h3", {}, "What steering changed in this choice"),
    h("p", {}, `KL divergence ${number(found.kl, 3)} nats.`, found.chosen ? ` The word that was written, ${visible(found.chosen.text)}, went from ${percent(found.chosen.unsteered)} to ${percent(found.chosen.steered)}.` : ""),
    found.kl < 1e-6 ? h("p", { class: "al-quiet" }, "Nothing: this choice was not steered.") : "",
    table("Promoted", found.promoted),
    table("Suppressed", found.suppressed),
  );
}

function writers(found, again) {
  const made = found.writers;
  const heading = h("h3", {}, found.circuit ? "The circuit’s largest writers" : "The largest writers");
  if (!made) return h("div", { class: "al-panel" }, heading, h("p", { class: "al-quiet" }, found.writers_missing));
  const select = h(
    "select",
    { "aria-label": "Emotion whose writers are shown", onchange: () => again(select.value) },
    found.emotions.map((one) => h("option", { value: one, selected: one === made.emotion }, one)),
  );
  const row = (name, [steered, unsteered]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, number(unsteered)), h("td", {}, number(steered)));
  return h(
    "div",
    { class: "al-panel" },
    heading,
    h("p", {}, "Along ", select, ` in the stream after block ${made.layer}, in natural doses.`),
    h(
      "table",
      { class: "al-table" },
      h("caption", {}, "Added at this token"),
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "writer"), h("th", { scope: "col" }, "unsteered"), h("th", { scope: "col" }, "steered"))),
      h("tbody", {}, made.largest.map((one) => row(one.name, [one.steered, one.unsteered]))),
      h(
        "tfoot",
        {},
        made.units_circuit ? row("the circuit’s units together", made.units_circuit) : "",
        row("all heads and neurons", made.units),
        row("steering", made.steering),
        row("the token itself", made.words),
        row("biases", made.biases),
        row("all together", made.total),
      ),
    ),
  );
}

/** A map of layers and emotions as a table: rows are emotions, columns are blocks. */
function layerMap(map) {
  const views = { steered: map.steered, unsteered: map.unsteered, difference: minus(map.steered, map.unsteered) };
  const holder = h("div", { class: "al-scroll", tabIndex: 0, role: "region", "aria-label": `Map by ${map.name}` });
  const draw = (view) => holder.replaceChildren(mapTable(map, views[view], view));
  const group = `al-map-${map.name}-${Math.random().toString(36).slice(2)}`;
  const choice = (view) => h("label", {}, h("input", { type: "radio", name: group, checked: view === "steered", onchange: () => draw(view) }), view);
  draw("steered");
  return h(
    "div",
    { class: "al-panel" },
    h("h3", {}, map.name === "probes" ? "Layers and emotions, by probes" : "Layers and emotions, by directions"),
    h("p", { class: "al-quiet" }, map.measure === "probability" ? "Probability after each block; “words” is before block 0. The dot marks the likeliest." : "Cosine of the stream and the emotion’s direction. Compare along a row, or steered with unsteered, not one emotion with another. The dot marks the largest."),
    h("fieldset", { class: "al-choices" }, h("legend", { class: "al-hidden" }, "Which run"), choice("steered"), choice("unsteered"), choice("difference")),
    holder,
  );
}

function mapTable(map, values, view) {
  const most = Math.max(1e-6, ...values.flat().filter(Number.isFinite).map(Math.abs));
  const scale = map.measure === "probability" && view !== "difference" ? 1 : most;
  return h(
    "table",
    { class: "al-map" },
    h("thead", {}, h("tr", {}, h("td", {}), map.layers.map((layer) => h("th", { scope: "col" }, layer < 0 ? "words" : String(layer))))),
    h(
      "tbody",
      {},
      map.columns.map((label, c) =>
        h(
          "tr",
          {},
          h("th", { scope: "row" }, label),
          map.layers.map((layer, l) => {
            const value = values[l][c];
            const top = value !== null && value === Math.max(...values[l].filter(Number.isFinite));
            return h(
              "td",
              { class: value < 0 ? "al-minus" : "", vars: { "--p": value === null ? "0" : Math.min(1, Math.abs(value) / scale).toFixed(3) }, title: `${label}, ${layer < 0 ? "words" : `block ${layer}`}: ${number(value, 3)}` },
              h("span", {}, number(value, 2)),
              top ? h("i", { "aria-hidden": "true" }, "•") : "",
            );
          }),
        ),
      ),
    ),
  );
}

function minus(a, b) {
  return a.map((row, i) => row.map((value, k) => (value === null || b[i][k] === null ? null : value - b[i][k])));
}

/** A token with its blanks made visible. */
function visible(text) {
  return text === "" ? "∅" : text.replaceAll("\n", "⏎").replaceAll("\t", "⇥").replace(/^ /, "␣");
}
