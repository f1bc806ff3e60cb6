// The tokens of a reply as a strip: coloured, underlined by kind, one of them in the tab order.

import { freshId, h, number, percent } from "./dom.js";
import { readAs } from "./reply.js";

const KNOWN = ["anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral"];

/** The style class of a label: its own colour and underline for the usual ones, by place else. */
export function styleOf(label, index) {
  const known = KNOWN.indexOf(label);
  return known >= 0 ? `al-e${known}` : `al-x${index % 4}`;
}

/** A strip of tokens; `open(k)` is called when one is chosen. */
export class TokenStrip {
  constructor(label, open) {
    this.open = open;
    this.colouring = "emotion";
    this.current = 0;
    this.marked = null;
    this.box = h("div", {
      class: "al-tokens",
      role: "toolbar",
      "aria-label": label,
      "aria-orientation": "horizontal",
      id: freshId("tokens"),
      onkeydown: (event) => this.key(event),
      onclick: (event) => this.click(event),
    });
  }

  /** Draw the tokens from one on; all of them after a change of colouring. The focus stays. */
  draw(reply, from = 0) {
    const held = [...this.box.children].indexOf(this.box.getRootNode().activeElement);
    while (this.box.children.length > from) this.box.lastChild.remove();
    for (let k = from; k < reply.tokens.length; k += 1) this.box.append(this.token(reply, k));
    if (this.box.children.length && !this.box.querySelector('[tabindex="0"]'))
      this.box.children[Math.min(this.current, this.box.children.length - 1)].tabIndex = 0;
    if (held >= from) this.box.children[Math.min(held, this.box.children.length - 1)]?.focus({ preventScroll: true });
  }

  token(reply, k) {
    const token = reply.tokens[k];
    const read = readAs(token, reply.classes);
    const shown = token.text === "" ? "\u200b" : token.text;
    const span = h("span", { class: "al-token", role: "button", tabIndex: -1, "data-k": k }, shown);
    let told = `“${token.text.replace(/\s+/g, " ")}”`;
    if (this.colouring === "change") {
      if (token.kl !== null) {
        span.classList.add("al-change");
        span.style.setProperty("--p", Math.min(1, Math.sqrt(token.kl / 4)).toFixed(3));
        if (token.kl >= 1) span.classList.add("al-much");
        told += `, changed by ${number(token.kl)} nats`;
      }
    } else if (read) {
      if (read.label !== "neutral") {
        span.classList.add(styleOf(read.label, read.index));
        span.style.setProperty("--p", read.share.toFixed(3));
        if (read.share < 0.5) span.classList.add("al-faint");
      }
      told += `, reads ${read.label} ${percent(read.share)}`;
    }
    span.toggleAttribute("data-open", k === this.marked);
    span.title = told;
    span.setAttribute("aria-label", told);
    return span;
  }

  click(event) {
    const token = event.target.closest(".al-token");
    if (token) this.choose(Number(token.dataset.k), true);
  }

  key(event) {
    const many = this.box.children.length;
    const moves = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };
    if (event.key in moves && many) {
      event.preventDefault();
      this.choose(Math.max(0, Math.min(many - 1, this.current + moves[event.key])), false);
    } else if ((event.key === "Enter" || event.key === " ") && many) {
      event.preventDefault();
      this.choose(this.current, true);
    }
  }

  /** Move to a token, and open it if asked. */
  choose(k, opened) {
    const tokens = [...this.box.children];
    tokens.forEach((one) => {
      one.tabIndex = -1;
    });
    this.current = k;
    tokens[k].tabIndex = 0;
    tokens[k].focus();
    if (opened) this.open(k);
  }

  /** Mark the token that is looked at; none for null. */
  mark(k) {
    this.marked = k;
    [...this.box.children].forEach((one, i) => one.toggleAttribute("data-open", i === k));
  }
}

/** What the colours and underlines mean. */
export function legend(classes) {
  return h(
    "ul",
    { class: "al-legend", "aria-label": "What colours and underlines of tokens mean" },
    classes
      .filter((label) => label !== "neutral")
      .map((label) => h("li", {}, h("span", { class: `al-token ${styleOf(label, classes.indexOf(label))}`, vars: { "--p": "0.7" } }, label))),
    h("li", { class: "al-quiet" }, "plain: neutral; paler: less sure"),
  );
}
