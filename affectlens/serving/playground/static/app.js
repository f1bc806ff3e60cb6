// The playground: puts the parts together in an element, for the page and for notebooks alike.

import { Column } from "./columns.js";
import { ColumnControls, commonControls } from "./controls.js";
import { debounced, h } from "./dom.js";
import { Inspector } from "./inspector.js";
import { Looking } from "./looking.js";
import { presetControls, shareControls } from "./sharing.js";
import { fromHash, MOST_COLUMNS, newColumn, newSettings } from "./settings.js";
import { requestBody, xargs } from "./snippets.js";
import { legend } from "./tokens.js";

const PATIENCE = 250; // milliseconds without a change before a reply is written again

/** Build it in `root`; `connection` is as in connection.js. Gives an object to look into it. */
export async function mount(root, connection, options = {}) {
  root.classList.add("al");
  root.replaceChildren(h("p", { class: "al-quiet al-loading", role: "status" }, "Asking the server what it has…"));
  let about;
  for (;;) {
    try {
      about = await connection.about();
      break;
    } catch (error) {
      if (error.status === 401 && connection.setKey) connection.setKey(await askKey(root, error.message));
      else {
        root.replaceChildren(h("p", { class: "al-problem", role: "alert" }, error.message));
        return null;
      }
    }
  }
  return new Playground(root, connection, about, options);
}

function askKey(root, message) {
  return new Promise((resolve) => {
    const input = h("input", { type: "password", autocomplete: "off", "aria-label": "API key" });
    const form = h("form", { class: "al-key", onsubmit: (event) => (event.preventDefault(), resolve(input.value)) }, h("p", {}, message), h("label", {}, "API key ", input), h("button", { type: "submit" }, "Go on"));
    root.replaceChildren(form);
    input.focus();
  });
}

class Playground {
  constructor(root, connection, about, options) {
    Object.assign(this, { root, connection, about, options });
    this.problem = h("p", { class: "al-problem", role: "alert" });
    this.said = h("p", { class: "al-hidden", "aria-live": "polite" });
    this.settings = this.initial();
    this.columns = [];
    this.chosen = 0;
    this.live = false;
    this.colouring = "emotion";
    this.again = debounced(PATIENCE, () => this.live && this.rewrite());
    this.controls = new ColumnControls(about, () => this.changed());
    this.inspector = new Inspector(() => this.looking.close());
    this.looking = new Looking(this, this.inspector);
    this.build();
    this.useSettings();
  }

  get pack() {
    return this.about.packs.find((one) => one.name === this.settings.pack);
  }

  initial() {
    if (this.options.hash?.length > 1) {
      try {
        return fromHash(this.options.hash, this.about);
      } catch (error) {
        this.problem.textContent = `${error.message} The page starts with its own settings.`;
      }
    }
    return { ...newSettings(this.about), ...(this.options.settings ?? {}) };
  }

  build() {
    const { about } = this;
    this.tabs = h("div", { class: "al-tabs", role: "group", "aria-label": "Column whose settings are shown" });
    this.common = h("div", {});
    this.grid = h("div", { class: "al-columns" });
    this.legend = h("div", {});
    this.prompt = h("textarea", {
      rows: 2,
      "aria-label": "What you say",
      onkeydown: (event) => {
        if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.send();
      },
      oninput: () => {
        this.settings.prompt = this.prompt.value;
        this.told();
      },
    });
    this.sendButton = h("button", { type: "submit", class: "al-primary" }, "Send");
    this.stopButton = h("button", { type: "button", disabled: true, onclick: () => this.stop() }, "Stop");
    const liveBox = h("input", { type: "checkbox", onchange: () => { this.live = liveBox.checked; this.again(); } });
    const reads = about.packs.some((pack) => pack.reads.length);
    const colour = h("select", { "aria-label": "What colours tokens", onchange: () => this.colour(colour.value) }, h("option", { value: "emotion" }, "emotion read"), about.can.inspect ? h("option", { value: "change" }, "change by steering") : "");
    const composer = h(
      "form",
      { class: "al-composer", onsubmit: (event) => (event.preventDefault(), this.send()) },
      this.prompt,
      h(
        "div",
        { class: "al-bar" },
        this.sendButton,
        this.stopButton,
        h("button", { type: "button", onclick: () => this.rewrite(), title: "The last reply once more, with these settings" }, "Again"),
        h("button", { type: "button", onclick: () => this.restart() }, "New conversation"),
        h("label", { class: "al-inline" }, liveBox, " again as I turn"),
        reads || about.can.inspect ? h("label", { class: "al-inline" }, "colour: ", colour) : "",
      ),
    );
    const packs =
      about.packs.length > 1
        ? h("label", { class: "al-block" }, "Style and vectors", h("select", { onchange: (event) => this.usePack(event.target.value) }, about.packs.map((one) => h("option", { value: one.name, selected: one.name === this.settings.pack }, one.name))))
        : "";
    this.side = h("aside", { class: "al-side", "aria-label": "Settings" }, h("details", { class: "al-settings", open: true }, h("summary", {}, "Settings"), presetControls(this), packs, this.tabs, this.controls.box, this.common, shareControls(this)));
    const main = h("div", { class: "al-main", role: this.options.page ? "main" : "group" }, this.problem, composer, this.legend, this.grid, this.inspector.box, this.said);
    this.root.replaceChildren(h("div", { class: "al-frame" }, this.side, main));
    this.narrow();
  }

  /** On a phone the settings start folded. */
  narrow() {
    if (globalThis.matchMedia?.("(max-width: 760px)").matches) this.side.firstChild.open = false;
  }

  /** Draw everything anew for these settings; what was written is gone. */
  useSettings(settings = this.settings) {
    this.stop();
    this.looking.close();
    this.settings = settings;
    this.prompt.value = settings.prompt;
    this.chosen = 0;
    const callbacks = {
      open: (column, turn, k) => this.looking.open(column, turn, k),
      grown: (column) => this.looking.glance(column),
      failed: (error) => this.failed(error),
    };
    this.callbacks = callbacks;
    this.columns = [new Column("Unsteered", null, callbacks), ...settings.columns.map((one) => new Column("", one, callbacks))];
    this.legend.replaceChildren(this.pack.reads.length ? legend(this.pack.reads) : "");
    this.common.replaceChildren(commonControls(this.settings, () => this.changed()));
    this.arrange();
  }

  /** Names, tabs and places of the columns after one came or went. */
  arrange() {
    const steered = this.columns.slice(1);
    steered.forEach((column, i) => {
      column.rename(steered.length > 1 ? `Steered ${i + 1}` : "Steered");
      column.tools.replaceChildren(
        steered.length > 1 ? h("button", { type: "button", class: "al-small", onclick: () => this.remove(column), "aria-label": `Remove ${column.title}` }, "Remove") : "",
      );
      column.tell();
    });
    this.chosen = Math.min(this.chosen, steered.length - 1);
    this.grid.replaceChildren(...this.columns.map((column) => column.box));
    this.grid.style.setProperty("--columns", this.columns.length);
    this.tabs.replaceChildren(
      ...(steered.length > 1
        ? steered.map((column, i) => h("button", { type: "button", "aria-pressed": String(i === this.chosen), onclick: () => this.choose(i) }, column.title))
        : []),
      steered.length < MOST_COLUMNS ? h("button", { type: "button", class: "al-add", onclick: () => this.addColumn() }, "+ column") : "",
    );
    this.controls.show(steered[this.chosen].steering, this.pack);
    this.told();
  }

  choose(i) {
    this.chosen = i;
    this.arrange();
  }

  addColumn() {
    const like = this.columns[this.chosen + 1].steering;
    const steering = newColumn(structuredClone(like));
    this.settings.columns.push(steering);
    const column = new Column("", steering, this.callbacks);
    this.columns.push(column);
    for (const { user } of this.columns[0].turns) column.add(user);
    this.chosen = this.settings.columns.length - 1;
    this.arrange();
    if (column.turns.length) this.writeAll([column]);
  }

  remove(column) {
    column.stop();
    this.looking.close();
    const i = this.columns.indexOf(column);
    this.columns.splice(i, 1);
    this.settings.columns.splice(i - 1, 1);
    this.arrange();
  }

  usePack(name) {
    const pack = this.about.packs.find((one) => one.name === name);
    const columns = this.settings.columns.map((one) => ({
      ...one,
      weights: Object.fromEntries(Object.entries(one.weights).filter(([emotion]) => pack.emotions.includes(emotion))),
      mode: pack.modes.includes(one.mode) ? one.mode : null,
      gate: pack.gates.includes(one.gate?.label) ? one.gate : null,
    }));
    this.useSettings({ ...this.settings, pack: name, columns });
  }

  changed() {
    this.columns[this.chosen + 1]?.tell();
    this.told();
    this.again();
  }

  /** Let others know of the settings as they are: the notebook keeps the last spec. */
  told() {
    const steered = this.columns[this.chosen + 1];
    this.options.onSettings?.(this.settings, steered ? steered.spec : "none");
  }

  send() {
    const text = this.prompt.value.trim();
    if (!text) {
      this.problem.textContent = "Write something to answer first.";
      this.prompt.focus();
      return;
    }
    this.stop();
    this.problem.textContent = "";
    this.looking.close();
    for (const column of this.columns) column.add(text);
    this.writeAll(this.columns);
  }

  rewrite() {
    if (!this.columns[0].turns.length) {
      this.send();
      return;
    }
    this.looking.close();
    const stale = this.columns.filter((column) => !this.live || column.last.spec !== column.spec || !column.last.reply.done || column.last.reply.finish === "stopped");
    for (const column of stale) column.redo();
    this.writeAll(stale);
  }

  restart() {
    this.looking.close();
    for (const column of this.columns) column.clear();
    this.prompt.focus();
  }

  stop() {
    for (const column of this.columns) column.stop();
    this.busy();
  }

  busy() {
    this.stopButton.disabled = !this.columns.some((column) => column.busy);
  }

  async writeAll(columns) {
    const written = columns.map((column) => this.write(column));
    this.busy();
    await Promise.all(written);
    this.busy();
    if (columns.length && columns.every((column) => column.last?.reply.done))
      this.said.textContent = columns.map((column) => `${column.title}: ${column.last.reply.text}`).join(". ");
  }

  async write(column) {
    const read = this.pack.reads.length > 0;
    const messages = column.messages(this.settings.system);
    const steering = xargs(this.about, this.settings, column.steering ?? newColumn(), read);
    const extra = { stream: true, logprobs: true, ...(this.about.can.token_ids ? { return_token_ids: true } : {}) };
    const body = { ...requestBody(this.about, this.settings, messages, steering), ...extra };
    const whole = await column.write((onChunk, signal) => this.connection.chat(body, onChunk, signal));
    this.busy();
    if (whole) await this.looking.look(column);
  }

  failed(error) {
    if (error.status === 401 && this.connection.setKey) {
      this.problem.textContent = `${error.message} Load the page again to give it.`;
      this.connection.setKey("");
    }
  }

  colour(by) {
    this.colouring = by;
    for (const column of this.columns) column.colour(by);
  }
}
