// Asking the server about what was written: whole replies as they grow, and single tokens.

const GLANCE = 24; // tokens between two looks at a reply that is being written

/** Looks into the replies of an app, and shows tokens in its inspector. */
export class Looking {
  constructor(app, inspector) {
    this.app = app;
    this.inspector = inspector;
    this.opened = null;
  }

  /** While a reply grows, look at it now and then: its perplexity ratio. */
  glance(column) {
    const many = column.last.reply.tokens.length;
    if (!column.looking && many >= column.last.looked + GLANCE) {
      column.last.looked = many;
      this.look(column);
    }
  }

  /** Ask about a whole reply. */
  async look(column) {
    const { about, connection } = this.app;
    if (!about.can.inspect || !column.last?.reply.tokens.length || column.looking) return;
    const turn = column.last;
    const { reply } = turn;
    const { done } = reply;
    column.looking = true;
    try {
      const found = await connection.inspect(this.asked(column, column.turns.length - 1));
      if (column.last?.reply !== reply) return;
      if (done) {
        reply.inspected(found);
        turn.strip.draw(reply, 0);
      } else reply.perplexity = found.perplexity;
      this.tellRatios();
    } catch (error) {
      if (done) column.problem.textContent = error.message;
    } finally {
      column.looking = false;
    }
    // It has ended meanwhile, or was begun anew: look again.
    if (column.last?.reply.done && (!done || column.last.reply !== reply)) await this.look(column);
  }

  tellRatios() {
    const base = this.app.columns[0].last?.reply.perplexity ?? null;
    for (const column of this.app.columns) column.tell(base);
  }

  asked(column, turn) {
    const { settings } = this.app;
    const { reply, spec } = column.turns[turn];
    return { pack: settings.pack, steering: spec, messages: column.messages(settings.system, turn), reply: reply.asked };
  }

  /** Show a token: what is known at once, the rest when the server has answered. */
  async open(column, turn, k, emotion = null) {
    const { reply, strip } = column.turns[turn];
    const token = reply.tokens[k];
    this.close();
    const opened = { strip, k };
    this.opened = opened;
    strip.mark(k);
    const { inspector } = this;
    inspector.open(`“${token.text.trim() || token.text}” — token ${k + 1}, ${column.title.toLowerCase()}`, token, reply.classes);
    inspector.title.focus({ preventScroll: true });
    inspector.box.scrollIntoView({ block: "nearest" });
    if (!this.app.about.can.inspect) return;
    if (!reply.done) {
      inspector.note("More is told once the reply is written.");
      return;
    }
    inspector.note("Looking…");
    try {
      const asked = { ...this.asked(column, turn), at: k, ...(emotion ? { emotion } : {}) };
      const found = await this.app.connection.token(asked);
      if (this.opened === opened) inspector.found(token, reply.classes, found, (other) => this.open(column, turn, k, other));
    } catch (error) {
      if (this.opened === opened) inspector.note(error.message);
    }
  }

  /** Put the token away; the focus goes back to it. */
  close() {
    if (!this.opened) return;
    const { strip, k } = this.opened;
    this.opened = null;
    strip.mark(null);
    const inside = this.inspector.box.contains(document.activeElement);
    this.inspector.hide();
    if (inside) strip.box.children[k]?.focus();
  }
}
