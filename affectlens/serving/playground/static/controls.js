// The settings of the chosen column: sliders, mode, condition; and what holds for all columns.

import { freshId, h, number } from "./dom.js";
import { Pad } from "./pad.js";
import { doseWarnings, RANGES } from "./settings.js";
import { styleOf } from "./tokens.js";

const USUAL = 2;

/** Controls of one column; `changed()` is called after the column's settings were changed. */
export class ColumnControls {
  constructor(about, changed) {
    this.about = about;
    this.changed = changed;
    this.box = h("div", { class: "al-column-controls" });
    this.warnings = h("div", { class: "al-warnings", role: "status" });
  }

  /** Show a column. */
  show(column, pack) {
    this.column = column;
    this.pack = pack;
    this.sliders = new Map();
    this.pad = pack.plane ? new Pad(pack.plane, (w) => this.mix(w)) : null;
    this.box.replaceChildren(
      this.modes(),
      h("fieldset", { class: "al-field" }, h("legend", {}, "Strengths"), this.scaleNote(), pack.emotions.map((emotion, i) => this.slider(emotion, i)), this.warnings),
      this.pad ? this.pad.box : "",
      pack.gates.length ? this.gate() : "",
      this.more(),
    );
    this.warn();
  }

  modes() {
    if (this.pack.modes.length < 2) return "";
    const name = freshId("mode");
    const chosen = this.column.mode ?? this.pack.modes[0];
    return h(
      "fieldset",
      { class: "al-field al-choices" },
      h("legend", {}, "Mode"),
      this.pack.modes.map((mode) =>
        h(
          "label",
          { title: MODES[mode] ?? "" },
          h("input", { type: "radio", name, value: mode, checked: mode === chosen, onchange: () => this.set({ mode: mode === this.pack.modes[0] ? null : mode }, true) }),
          mode,
        ),
      ),
    );
  }

  scaleNote() {
    return h("p", { class: "al-quiet" }, "1 is the dose that was chosen for the emotion; the shaded part of a slider was tuned.");
  }

  slider(emotion, i) {
    const value = this.column.weights[emotion] ?? 0;
    const most = Math.max(USUAL, Math.ceil(Math.abs(value)));
    const range = this.pack.calibrated?.[this.column.mode ?? this.pack.modes[0]]?.[emotion] ?? [0, 1];
    const share = (x) => `${(100 * (Math.max(-most, Math.min(most, x)) + most)) / (2 * most)}%`;
    const shown = h("output", {}, number(value));
    const input = h("input", {
      type: "range",
      min: -most,
      max: most,
      step: 0.05,
      value,
      id: freshId("slider"),
      oninput: () => this.setWeight(emotion, Number(input.value)),
    });
    this.sliders.set(emotion, { input, shown });
    return h(
      "div",
      { class: "al-slider" },
      h("label", { htmlFor: input.id }, h("span", { class: `al-token ${styleOf(emotion, i)}`, vars: { "--p": "0.7" } }, emotion)),
      h("span", { class: "al-band", vars: { "--lo": share(range[0]), "--hi": share(range[1]) } }, input),
      shown,
      h("button", { type: "button", class: "al-small", "aria-label": `Set ${emotion} to 0`, onclick: () => this.setWeight(emotion, 0) }, "0"),
    );
  }

  setWeight(emotion, value) {
    this.column.weights[emotion] = value;
    const { input, shown } = this.sliders.get(emotion);
    if (Math.abs(value) > Number(input.max)) {
      input.max = Math.ceil(Math.abs(value));
      input.min = -input.max;
    }
    input.value = value;
    shown.textContent = number(value);
    this.warn();
    this.changed();
  }

  mix(weights) {
    const placed = new Set(Object.keys(this.pad.plane.points));
    for (const emotion of this.pack.emotions) {
      if (!placed.has(emotion)) continue;
      this.column.weights[emotion] = weights[emotion] ?? 0;
      const { input, shown } = this.sliders.get(emotion);
      input.value = this.column.weights[emotion];
      shown.textContent = number(this.column.weights[emotion]);
    }
    this.warn();
    this.changed();
  }

  gate() {
    const gate = this.column.gate;
    const chosen = gate ?? { label: this.pack.gates.includes("sadness") ? "sadness" : this.pack.gates[0], above: true, threshold: 0.4 };
    const on = h("input", { type: "checkbox", checked: gate !== null });
    const label = h("select", { "aria-label": "Emotion of the condition" }, this.pack.gates.map((one) => h("option", { value: one, selected: one === chosen.label }, one)));
    const side = h("select", { "aria-label": "Above or below" }, h("option", { value: ">", selected: chosen.above }, "above"), h("option", { value: "<", selected: !chosen.above }, "below"));
    const threshold = h("input", { type: "number", min: 0.01, max: 0.99, step: 0.01, value: chosen.threshold, "aria-label": "Probability", inputMode: "decimal" });
    const apply = () => {
      const p = Number(threshold.value);
      const sound = p > 0 && p < 1;
      threshold.setAttribute("aria-invalid", String(!sound));
      if (sound) this.set({ gate: on.checked ? { label: label.value, above: side.value === ">", threshold: p } : null });
    };
    for (const one of [on, label, side, threshold]) one.addEventListener("change", apply);
    return h(
      "fieldset",
      { class: "al-field al-gate" },
      h("legend", {}, "Condition"),
      h("label", { class: "al-inline" }, on, " steer only where the text reads"),
      h("div", { class: "al-inline" }, label, side, threshold),
      h("p", { class: "al-quiet" }, "Decided at each token by the pack's probe, before anything is steered."),
    );
  }

  more() {
    const select = (name, title, none) =>
      h(
        "label",
        { class: "al-inline" },
        `${title} `,
        h(
          "select",
          { onchange: (event) => this.set({ [name]: event.target.value === none ? (name === "operator" ? "add" : null) : event.target.value }) },
          name === "operator" ? "" : h("option", { value: none }, "as the pack recommends"),
          this.about.options[name].map((one) => h("option", { value: one.name, selected: one.name === this.column[name], title: one.help }, one.name)),
        ),
      );
    return h("details", { class: "al-field" }, h("summary", {}, "Where and how"), select("positions", "tokens", ""), select("operator", "operator", "add"));
  }

  set(changes, redraw = false) {
    Object.assign(this.column, changes);
    if (redraw) this.show(this.column, this.pack);
    this.warn();
    this.changed();
  }

  warn() {
    this.warnings.replaceChildren(...doseWarnings(this.column, this.pack).map((text) => h("p", {}, `⚠ ${text}`)));
  }
}

const MODES = {
  circuit: "through the neurons and heads that write the emotion",
  residual: "into the residual stream",
};

/** System prompt, length, temperature, seed: of all columns. */
export function commonControls(settings, changed) {
  const field = (name, title, help) => {
    const [low, high, whole] = RANGES[name];
    const input = h("input", {
      type: "number",
      min: low,
      max: high,
      step: whole ? 1 : 0.1,
      value: settings[name],
      onchange: () => {
        const value = Number(input.value);
        const sound = input.value !== "" && value >= low && value <= high && (!whole || Number.isInteger(value));
        input.setAttribute("aria-invalid", String(!sound));
        if (sound) {
          settings[name] = value;
          changed();
        }
      },
    });
    return h("label", { class: "al-number", title: help }, title, input);
  };
  const system = h("textarea", {
    rows: 2,
    value: settings.system,
    placeholder: "none",
    onchange: () => {
      settings.system = system.value;
      changed();
    },
  });
  return h(
    "fieldset",
    { class: "al-field" },
    h("legend", {}, "All columns"),
    h("label", { class: "al-block" }, "System prompt", system),
    h("div", { class: "al-numbers" }, field("tokens", "Tokens", "longest reply"), field("temperature", "Temperature", "0: the likeliest token"), field("seed", "Seed", "of sampling, the same for all columns")),
  );
}
