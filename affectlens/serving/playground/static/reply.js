// A reply while it is written: its text, its tokens and what is known of each. No elements here.

/** Collects the chunks of one streamed chat reply. */
export class Reply {
  constructor() {
    this.text = "";
    this.tokens = []; // {text, id, shares, kl}: what is not known is null
    this.classes = [];
    this.layer = null;
    this.finish = null;
    this.perplexity = null;
    this.started = null;
    this.ended = null;
    this.decoder = new TextDecoder();
  }

  get done() {
    return this.finish !== null;
  }

  /** Take a chunk; gives the number of the first token that is new. */
  push(chunk) {
    const before = this.tokens.length;
    const choice = chunk.choices?.[0];
    if (!choice) return before;
    const said = choice.delta?.content ?? "";
    if (said && this.started === null) this.started = performance.now();
    this.text += said;
    const read = chunk.affectlens;
    if (read) {
      this.classes = read.classes;
      this.layer = read.layers.at(-1);
    }
    const pieces = choice.logprobs?.content;
    if (pieces) {
      pieces.forEach((piece, k) =>
        this.tokens.push({
          text: this.textOf(piece),
          id: choice.token_ids?.[k] ?? null,
          shares: read?.tokens[k]?.at(-1) ?? null,
          kl: null,
        }),
      );
    } else if (said) {
      this.tokens.push({ text: said, id: null, shares: read?.tokens.at(-1)?.at(-1) ?? null, kl: null });
    }
    if (choice.finish_reason) this.end(choice.finish_reason);
    return before;
  }

  /** No more chunks come. */
  end(why) {
    this.finish = why;
    this.ended = performance.now();
    // The token that ended the reply, and a stop text that was held back, are no part of it.
    let length = this.tokens.reduce((sum, token) => sum + token.text.length, 0);
    while (this.tokens.length && length > this.text.length) length -= this.tokens.pop().text.length;
  }

  /** Take what the server has found in the whole reply; the tokens are those it looked at. */
  inspected(found) {
    const same = found.tokens.length === this.tokens.length;
    if (!same)
      this.tokens = found.tokens.map((text, k) => ({ text, id: found.ids[k], shares: null, kl: null }));
    this.tokens.forEach((token, k) => {
      token.kl = found.kl[k];
      token.id = found.ids[k];
      if (token.shares === null && found.readings) token.shares = found.readings.tokens[k]?.at(-1) ?? null;
    });
    if (found.readings && !this.classes.length) {
      this.classes = found.readings.classes;
      this.layer = found.readings.layers.at(-1);
    }
    this.perplexity = found.perplexity;
    return same;
  }

  /** Its tokens if all are known by number, else its text: what the server is asked about. */
  get asked() {
    const ids = this.tokens.map((token) => token.id);
    return ids.length && ids.every((id) => id !== null) ? ids : this.text;
  }

  textOf(piece) {
    // A character may be spread over several tokens; the last of them gets it.
    return piece.bytes ? this.decoder.decode(new Uint8Array(piece.bytes), { stream: true }) : piece.token;
  }
}

/** The likeliest class of a token; null if it was not read. */
export function readAs(token, classes) {
  if (!token.shares || !classes.length) return null;
  let best = 0;
  token.shares.forEach((share, k) => {
    if (share > token.shares[best]) best = k;
  });
  return { label: classes[best], share: token.shares[best], index: best };
}
