// One column of replies: a conversation under one steering, and what is told about its last reply.

import { h, number } from "./dom.js";
import { Reply } from "./reply.js";
import { specText } from "./settings.js";
import { TokenStrip } from "./tokens.js";

/** A column; `steering` is null for the one that is not steered. */
export class Column {
  constructor(title, steering, callbacks) {
    this.steering = steering;
    this.callbacks = callbacks;
    this.turns = []; // {user, reply, strip}
    this.abort = null;
    this.colouring = "emotion";
    this.heading = h("h2", {});
    this.facts = h("p", { class: "al-facts", "aria-live": "off" });
    this.log = h("div", { class: "al-log" });
    this.problem = h("p", { class: "al-problem", role: "alert" });
    this.tools = h("div", { class: "al-tools" });
    this.box = h(
      "article",
      { class: "al-column", "aria-label": title },
      h("div", { class: "al-bar" }, this.heading, this.tools),
      this.facts,
      this.log,
      this.problem,
    );
    this.rename(title);
    this.tell();
  }

  rename(title) {
    this.title = title;
    this.box.setAttribute("aria-label", title);
    this.heading.textContent = title;
  }

  get busy() {
    return this.abort !== null;
  }

  get last() {
    return this.turns.at(-1) ?? null;
  }

  get spec() {
    return this.steering ? specText(this.steering) : "none";
  }

  /** The conversation up to a turn's reply. */
  messages(system, turn = this.turns.length - 1) {
    const found = system ? [{ role: "system", content: system }] : [];
    this.turns.slice(0, turn + 1).forEach(({ user, reply }, i) => {
      found.push({ role: "user", content: user });
      if (i < turn) found.push({ role: "assistant", content: reply.text });
    });
    return found;
  }

  /** Add what the user says. */
  add(user) {
    const turn = { user, reply: new Reply(), strip: null };
    this.turns.push(turn);
    this.fresh(turn);
    this.log.append(h("p", { class: "al-user" }, user), turn.strip.box);
  }

  /** Forget the last reply, to write it again. */
  redo() {
    this.stop();
    const turn = this.last;
    turn.reply = new Reply();
    const { box } = turn.strip;
    this.fresh(turn);
    box.replaceWith(turn.strip.box);
  }

  fresh(turn) {
    const place = this.turns.indexOf(turn);
    turn.spec = this.spec;
    turn.looked = 0;
    turn.strip = new TokenStrip(`Tokens of the reply, ${this.title}`, (k) => this.callbacks.open(this, place, k));
    turn.strip.colouring = this.colouring;
  }

  clear() {
    this.stop();
    this.turns = [];
    this.log.replaceChildren();
    this.problem.textContent = "";
    this.tell();
  }

  stop() {
    this.abort?.abort();
    this.abort = null;
    this.box.removeAttribute("aria-busy");
  }

  /** Write the last reply with `chat(onChunk, signal)`. */
  async write(chat) {
    const abort = new AbortController();
    const turn = this.last;
    const { reply } = turn;
    this.abort = abort;
    this.problem.textContent = "";
    this.box.setAttribute("aria-busy", "true");
    this.tell();
    try {
      await chat((chunk) => {
        if (abort.signal.aborted) return;
        const first = reply.push(chunk);
        turn.strip.draw(reply, Math.min(first, reply.tokens.length));
        this.tell();
        this.callbacks.grown(this);
      }, abort.signal);
      if (!reply.done) reply.end("stop");
    } catch (error) {
      if (abort.signal.aborted) reply.end("stopped");
      else {
        reply.end("failed");
        this.problem.textContent = error.message;
        this.callbacks.failed(error);
      }
    }
    if (this.abort === abort) {
      this.abort = null;
      this.box.removeAttribute("aria-busy");
    }
    turn.strip.draw(reply, reply.tokens.length);
    this.tell();
    return !abort.signal.aborted && reply.finish !== "failed";
  }

  /** Colour tokens by what they read, or by how much steering changed them. */
  colour(by) {
    this.colouring = by;
    for (const { strip, reply } of this.turns) {
      strip.colouring = by;
      strip.draw(reply, 0);
    }
  }

  /** The line of facts; `base` is the perplexity of the unsteered reply. */
  tell(base = null) {
    const reply = this.last?.reply;
    const facts = [];
    if (this.steering) facts.push(this.spec);
    if (reply?.tokens.length) facts.push(`${reply.tokens.length} tokens`);
    if (this.busy) facts.push("writing…");
    if (reply?.finish === "stopped") facts.push("stopped");
    if (reply?.finish === "length") facts.push("cut at the length set");
    if (base !== null) this.base = base;
    if (reply?.perplexity && this.base && this.steering) facts.push(`perplexity ratio ${number(reply.perplexity / this.base)}`);
    else if (reply?.perplexity && !this.steering) facts.push(`perplexity ${number(reply.perplexity, 1)}`);
    this.facts.textContent = facts.join(" · ");
  }
}
